"""Rosenblatt's perceptron: one layer, one threshold, and a rule that learns from mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.training import Outcome, Status

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


def rosenblatt(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return w + y x, the weights after a mistake on the sample x (d,) of label y = +-1.

    >>> rosenblatt(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 3.0]), torch.tensor(-1.0))
    tensor([-1., -3.])
    """
    return weights + y * x


@dataclass(frozen=True)
class Learned:
    """What the perceptron learned.

    weights: (d,). mistakes: how many updates were made. passes: over the samples, the last one included.
    outcome: CONVERGED after a pass without mistake, else BUDGET_SPENT.
    """

    weights: Tensor
    mistakes: int
    passes: int
    outcome: Outcome

    def predict(self, x: Tensor) -> Tensor:
        """Return the labels +1 or -1 (n,) of samples (n, d); a sample on the plane is given +1."""
        return torch.where(x @ self.weights >= 0, 1, -1)


def perceptron(x: Tensor, y: Tensor, *, passes: int = 1000, rule: Rule = rosenblatt) -> Learned:
    """Learn to separate x (n, d) by labels y (n,) of +-1 with a plane through the origin.

    From w = 0 the samples are visited in order, again and again; a sample with y w.x <= 0 is a mistake and
    gives w <- w + y x. Learning ends after a pass without mistake, or after `passes` of them. For a plane off the
    origin append a constant feature to x.
    rule: what happens at a mistake, (w, x_i, y_i) -> w; Rosenblatt's by default.

    Raises `InputError` when the shapes do not fit, a label is not +-1, or a sample is not finite.
    Source: Rosenblatt 1957; Novikoff 1962: at most (R / gamma)^2 mistakes where a unit vector u has y u.x >= gamma and
    ||x|| <= R.
    Cost: one product (n, d) x (d,) for each mistake and each pass.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> learned = perceptron(x, torch.tensor([1, -1]))
    >>> learned.mistakes, learned.weights.tolist()
    (2, [1.0, -1.0])
    """
    if x.ndim != 2 or y.shape != x.shape[:1] or len(x) == 0:
        raise InputError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}", "give (n, d) and (n,) with n >= 1")
    if not bool((y.abs() == 1).all()):
        raise InputError("a label is neither +1 nor -1", "map the two classes to +1 and -1")
    if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
        raise InputError(f"x is {x.dtype} or holds NaN or inf", "give finite floating-point samples")
    if passes < 1:
        raise ValueError(f"passes={passes}; give at least 1")
    labels = y.to(x.dtype)
    signed = labels[:, None] * x
    weights = torch.zeros_like(x[0])
    mistakes = 0
    for done in range(1, passes + 1):
        before, position = mistakes, 0
        while position < len(x):
            # Until the next mistake the weights stay as they are, so all samples up to it are judged at once.
            wrong = signed[position:] @ weights <= 0
            if not bool(wrong.any()):
                break
            position += int(wrong.to(torch.uint8).argmax())  # argmax gives the first of equal values
            weights = rule(weights, x[position], labels[position])
            mistakes += 1
            position += 1
        if mistakes == before:
            return Learned(weights, mistakes, done, Outcome(Status.CONVERGED, f"pass {done} made no mistake"))
    reason = f"pass {passes} still made mistakes: no plane through the origin was found"
    return Learned(weights, mistakes, passes, Outcome(Status.BUDGET_SPENT, reason))
