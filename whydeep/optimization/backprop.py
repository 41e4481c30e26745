"""Back-propagation: any torch.optim optimizer over a problem."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default, spawn
from whydeep.core.training import Callback, Outcome, Status, Training

from .counts import check_counts
from .passes import Passes

Schedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Let the step size fall as (1 + cos(pi k / steps)) / 2."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


SCHEDULES: dict[str, Schedule | None] = {"constant": None, "cosine": cosine}


@dataclass(frozen=True)
class Backprop:
    """Minimise the risk by a torch.optim optimizer on gradients from back-propagation.

    optimizer: a class of torch.optim; `options` are its other arguments (momentum, weight_decay, ...).
    lr: step size. epochs or steps: how long, one of them. batch_size: None takes the full batch.
    schedule: "constant", "cosine", or a function (optimizer, steps) -> LRScheduler, advanced after every step.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    patience: stop after so many passes without a better one (needs validation).
    goal: stop as converged when the training risk is at most this.
    monitor: the history's risk and error are taken on at most so many training samples, the same ones throughout.

    History: "loss", "seconds", for classes "error" (misclassified fraction), with validation "validation" (risk).
    Outcome DIVERGED when the loss is not finite, or at the end `explosion.TIMES` that of the start: the model is the
    one with the least risk.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import linear
    >>> data = Data(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), classes=2)
    >>> solver = Backprop(torch.optim.SGD, lr=1.0, epochs=100)
    >>> float(solver.train(Problem(linear(1, 2), data)).history["error"][-1])
    0.0
    """

    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    lr: float = 1e-3
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = 64
    schedule: str | Schedule = "constant"
    options: Mapping[str, Any] = field(default_factory=dict)
    validation: float = 0.0
    patience: int | None = None
    goal: float | None = None
    monitor: int = 10_000

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}; give exactly one of them")
        check_counts(optional=True, epochs=self.epochs, steps=self.steps, batch_size=self.batch_size)
        check_counts(optional=True, patience=self.patience)
        check_counts(monitor=self.monitor)
        # Some optimizers of PyTorch take a step size that is not a number, and say so by their first loss only.
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"lr={self.lr}; give a finite number >= 0")
        missing = [name for name, value in self.options.items() if isinstance(value, float) and math.isnan(value)]
        if missing:
            raise ValueError(f"{missing[0]}=nan; give a number")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; give one of {', '.join(SCHEDULES)}, or a function")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation={self.validation}; give a fraction in [0, 1)")
        if self.goal is not None and not math.isfinite(self.goal):
            raise ValueError(f"goal={self.goal}; give a finite number, or None")
        if self.patience is not None and not self.validation:
            raise ValueError("patience needs a validation split; give validation=0.1, say")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters."""
        generator = or_default(generator)
        with global_seed(generator):  # dropout draws from the global generator
            return _Run(self, problem, generator).run(callback)


class _Run(Passes):
    """The state of one training."""

    def __init__(self, solver: Backprop, problem: Problem, generator: torch.Generator) -> None:
        super().__init__(
            problem,
            validation=solver.validation,
            batch_size=solver.batch_size,
            monitor=solver.monitor,
            generator=generator,
        )
        self.solver = solver
        # A last batch of one sample joins the one before it: batch normalisation has no variance of one.
        starts = range(0, len(self.train), self.batch)
        self.starts = starts[:-1] if len(starts) > 1 and len(self.train) - starts[-1] == 1 else starts
        self.total = solver.steps or (solver.epochs or 0) * len(self.starts)
        trainable = [value for value in self.model.parameters() if value.requires_grad]
        options = dict(solver.options)
        if "generator" in inspect.signature(solver.optimizer).parameters:
            options.setdefault("generator", spawn(generator))
        self.optimizer = solver.optimizer(trainable, lr=solver.lr, **options)
        schedule = SCHEDULES[solver.schedule] if isinstance(solver.schedule, str) else solver.schedule
        self.scheduler = schedule(self.optimizer, self.total) if schedule is not None else None

    def updates(self) -> Iterator[float]:
        """Take the steps of one pass."""
        for x, y in self._batches():
            loss = self._step(x, y)
            if self.scheduler is not None and math.isfinite(loss):
                self.scheduler.step()
            yield loss

    def verdict(self, passes: int) -> Outcome | None:
        """Stop at the goal, or when patience ends."""
        goal, patience = self.solver.goal, self.solver.patience
        if goal is not None and self.history["loss"][-1] <= goal:
            return Outcome(Status.CONVERGED, f"the risk reached {goal:g} after {passes} passes")
        if patience is not None and passes - self.best[1] >= patience:
            return Outcome(Status.STOPPED_EARLY, f"no better validation risk in {patience} passes")
        return None

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the samples of one pass in a random order."""
        targets = self.train.targets
        order = torch.randperm(len(self.train), generator=self.generator).to(targets.device)
        ends = [*self.starts[1:], len(self.train)]
        for start, end in zip(self.starts, ends, strict=True):
            chosen = order[start:end]
            yield self.train.x[chosen], targets[chosen]

    def _step(self, x: Tensor, y: Tensor) -> float:
        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.problem.per_sample(self.model(x), y).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        # L-BFGS calls the closure several times; every other optimizer calls it once, with the same result.
        loss: Any = self.optimizer.step(closure)  # type: ignore[arg-type]  # torch types the result as a float
        return float(loss.detach())
