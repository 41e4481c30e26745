"""The losses of a sample: what the risk is the mean of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PerSample = Callable[[Tensor, Tensor], Tensor]


def one_hot(target: Tensor, output: Tensor) -> Tensor:
    """Return class labels (n,) as rows of 0 and 1 shaped like `output` (n, k); regression targets unchanged."""
    if target.is_floating_point():
        return target
    return F.one_hot(target, output.shape[1]).to(output.dtype)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return -log softmax(output)[target], (n,), in nats; raises `ValueError` on regression targets."""
    if target.is_floating_point():
        raise ValueError("the cross-entropy needs class labels, and the targets are numbers; give the squared loss")
    return F.cross_entropy(output, target, reduction="none")


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Return 1/2 ||output - target||^2 summed over outputs, (n,); classes as one-hot targets."""
    return 0.5 * (output - one_hot(target, output)).square().flatten(1).sum(1)


def hinge(output: Tensor, target: Tensor) -> Tensor:
    """Return sum_k max(0, 1 - s_k output_k), (n,), with s_k = +1 for the right class and -1 for every other.

    Raises `ValueError` on regression targets.
    """
    if target.is_floating_point():
        raise ValueError("the hinge loss compares classes, and the targets are numbers; give the squared loss")
    return torch.relu(1 - (2 * one_hot(target, output) - 1) * output).sum(1)


NAMED: dict[str, PerSample] = {"cross_entropy": cross_entropy, "hinge": hinge, "squared": squared}


@dataclass(frozen=True)
class Loss:
    """A loss per sample: (output (n, ...), target) -> (n,). The risk is its mean over samples.

    >>> Loss.of("squared")(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    tensor([2.])
    """

    name: str
    per_sample: PerSample

    @classmethod
    def of(cls, loss: str | PerSample | Loss) -> Loss:
        """Return the loss of a name ("cross_entropy", "squared", "hinge"), or of a callable (output, target).

        Raises `ValueError` on an unknown name and `TypeError` on anything else.
        """
        if isinstance(loss, Loss):
            return loss
        if isinstance(loss, str):
            if loss not in NAMED:
                raise ValueError(f"unknown loss {loss!r}; give one of {', '.join(sorted(NAMED))}, or a callable")
            return cls(loss, NAMED[loss])
        if callable(loss):
            return cls(getattr(loss, "__name__", type(loss).__name__), loss)
        raise TypeError(f"loss is {type(loss).__name__}; give a name or a callable (output, target) -> (n,)")

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every sample, (n,)."""
        return self.per_sample(output, target)
