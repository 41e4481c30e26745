"""A network, its data and a loss: what a solver trains and what an instrument measures."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from . import parameters
from .data import Data
from .errors import InputError
from .evaluation import evaluating
from .loss import Loss, PerSample


@dataclass(frozen=True)
class Problem:
    """Minimise over the parameters of `model` the risk R(w) = 1/n sum_i loss(model(x_i; w), y_i) on `train`.

    The user's model is never changed: solvers train `copy()`.
    loss: "cross_entropy", "squared" (1/2 ||.||^2 summed over outputs, one-hot classes), "hinge" (one against
    the rest), or a callable (output, target) -> (n,), one value a sample.

    Raises `InputError` when a weight is NaN or inf, when the model cannot take the samples, when its output does
    not fit the classes, or when the loss is not one finite number a sample, the same at every call.
    """

    model: nn.Module
    train: Data
    test: Data | None = None
    loss: Loss | str | PerSample = "cross_entropy"

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model is {type(self.model).__name__}; give a torch.nn.Module")
        object.__setattr__(self, "loss", Loss.of(self.loss))
        self._check_model()

    @property
    def per_sample(self) -> Loss:
        """The loss as a `Loss`."""
        assert isinstance(self.loss, Loss)
        return self.loss

    def _check_model(self) -> None:
        bad = [name for name, value in self.model.named_parameters() if not bool(torch.isfinite(value).all())]
        if bad:
            raise InputError(f"the weights {', '.join(bad[:5])} hold NaN or inf", "give weights of a finished training")
        few = self.train.take(torch.arange(min(2, len(self.train))))
        x, target = few.x[torch.arange(len(few))], few.targets
        # Dropout and the like are off in evaluation mode, but a forward pass may still draw random numbers.
        with evaluating(self.model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                output = self.model(x)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as fault:
                shape = ("n", *few.input_shape)
                text = str(fault).strip()
                reason = text.splitlines()[0] if text else type(fault).__name__
                raise InputError(
                    f"the model cannot take samples of shape ({', '.join(map(str, shape))}): {reason}",
                    "give a model for this shape, or data of the model's shape",
                ) from fault
            self._check_output(output, few)
            try:
                first = self.per_sample(output, target)
                again = self.per_sample(self.model(x), target)
            except (RuntimeError, TypeError, ValueError, IndexError) as fault:
                kind = "regression targets" if few.classes is None else f"{few.classes} classes"
                raise InputError(
                    f"the loss {self.per_sample.name} cannot compare output {tuple(output.shape)} with {kind}: {fault}",
                    "give a loss that fits the targets",
                ) from fault
        if not isinstance(first, Tensor) or first.shape != (len(few),):
            got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
            raise InputError(
                f"the loss {self.per_sample.name} returned {got} for {len(few)} samples",
                f"let it return one value a sample, shape ({len(few)},), with no mean or sum over samples",
            )
        if not bool(torch.isfinite(first).all()):
            raise InputError(
                f"the loss {self.per_sample.name} is not finite at the given weights", "check loss and data"
            )
        # Kernels may sum in another order from call to call: single precision differs in its last digits only.
        if not torch.allclose(first, again, rtol=1e-4, atol=1e-6):
            raise InputError(
                "model and loss give another value when they are called again",
                "switch off what is random in them",
            )

    @staticmethod
    def _check_output(output: object, few: Data) -> None:
        if not isinstance(output, Tensor):
            raise InputError(f"the model returned {type(output).__name__}", "let it return one tensor of outputs")
        if output.shape[:1] != (len(few),):
            raise InputError(
                f"the model returned shape {tuple(output.shape)} for {len(few)} samples",
                "let its first dimension be the samples",
            )
        if few.classes is not None and output.shape != (len(few), few.classes):
            raise InputError(
                f"the model returned shape {tuple(output.shape)} for {len(few)} samples of {few.classes} classes",
                f"let it return ({len(few)}, {few.classes}), one score a class",
            )
        if few.classes is None and output.shape != few.targets.shape:
            raise InputError(
                f"the model returned shape {tuple(output.shape)} for targets of shape {tuple(few.targets.shape)}",
                "let both have the same shape",
            )

    def copy(self) -> nn.Module:
        """Return a copy of the model that shares nothing with it."""
        return copy.deepcopy(self.model)

    def with_model(self, model: nn.Module) -> Problem:
        """Return the same data and loss with another network."""
        return replace(self, model=model)

    def at(self, vector: Tensor) -> Problem:
        """Return the problem with the parameters `vector` (p,); the data are shared, the model is a copy."""
        model = self.copy()
        parameters.load(model, vector)
        return replace(self, model=model)

    def vector(self) -> Tensor:
        """Return the trainable parameters as one vector (p,), a copy."""
        return parameters.flatten(parameters.named(self.model)).clone()

    def to(self, device: torch.device | str) -> Problem:
        """Return the problem on a device; the model is a copy."""
        test = None if self.test is None else self.test.to(device)
        return replace(self, model=self.copy().to(device), train=self.train.to(device), test=test)

    def risk(self, data: Data | None = None, *, batch_size: int = 2048) -> float:
        """Return the mean loss on `data` (the training data by default), in evaluation mode."""
        data = self.train if data is None else data
        total = torch.zeros((), dtype=torch.float64)
        with evaluating(self.model), torch.no_grad():
            for x, y in data.batches(batch_size):
                total += self.per_sample(self.model(x), y).sum().cpu().double()
        return float(total) / len(data)

    def gradient(self, data: Data | None = None, *, batch_size: int = 2048) -> Tensor:
        """Return the gradient (p,) of the mean loss, in evaluation mode; `.grad` of the model is left alone."""
        data = self.train if data is None else data
        weights = [value for value in self.model.parameters() if value.requires_grad]
        total: list[Tensor] = [torch.zeros_like(value) for value in weights]
        with evaluating(self.model), torch.enable_grad():
            for x, y in data.batches(batch_size):
                loss = self.per_sample(self.model(x), y).sum() / len(data)
                # A weight that the output does not depend on has gradient zero.
                parts = torch.autograd.grad(loss, weights, materialize_grads=True)
                total = [one + part for one, part in zip(total, parts, strict=True)]
        return torch.cat([part.reshape(-1) for part in total])
