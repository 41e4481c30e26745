"""What a solver returns: a trained copy, the history of the training, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .problem import Problem


class Status(Enum):
    """How a training ended.

    CONVERGED: the solver's own criterion was met. BUDGET_SPENT: all passes were made. STOPPED_EARLY: more would not
    help. INTERRUPTED: by the callback. DIVERGED: a number was not finite, a step could not be taken, or the passes were
    made and the risk is in the end more than ten times that of the start (of outputs zero, if that is more).
    """

    CONVERGED = "converged"
    BUDGET_SPENT = "budget spent"
    STOPPED_EARLY = "stopped early"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Outcome:
    """Status of a training and the reason in one sentence."""

    status: Status
    reason: str = ""

    @property
    def converged(self) -> bool:
        """Whether the solver's own criterion of convergence was met."""
        return self.status is Status.CONVERGED

    @property
    def diverged(self) -> bool:
        """Whether the training broke down; the returned model is then the best that it had, maybe its start."""
        return self.status is Status.DIVERGED


@dataclass(frozen=True)
class Progress:
    """What a callback is told: `done` of `total` steps or sweeps, and the risk where it was just computed."""

    done: int
    total: int
    loss: float | None = None


Callback = Callable[[Progress], bool | None]
"""Called after every step; returning True asks the solver to stop there (outcome INTERRUPTED)."""


@dataclass(frozen=True)
class Training:
    """A trained copy of the problem's model.

    history: one value a pass over the data, the start included, so each tensor has 1 + passes entries; "loss" is the
    risk on the training data, "seconds" the time spent in steps until then (evaluation not counted).
    """

    model: nn.Module
    history: Mapping[str, Tensor]
    outcome: Outcome
    seconds: float


@runtime_checkable
class Solver(Protocol):
    """Trains a network: a frozen dataclass of hyper-parameters with one method."""

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model`; never raises on divergence, which is an `Outcome`."""
