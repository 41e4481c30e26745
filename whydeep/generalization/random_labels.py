"""Random labels: can the same network, trained in the same way, fit labels that have nothing to do with the samples?

Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep learning requires rethinking generalization", ICLR 2017:
if it can, then no bound that holds for all functions this network can fit explains why it generalizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.loss import Loss
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Outcome, Solver
from whydeep.data.corruption import random_labels

FITTED = 0.01
"""Training error at which labels count as fitted: one in a hundred, so that a few doubtful samples do not decide."""


@dataclass(frozen=True)
class Fit:
    """How one labelling was fitted.

    error: training error after every pass, the start included (where the solver recorded it, else at the end only).
    passes: the first pass after which it was at most `FITTED`, or None. budget: the passes that were made.
    """

    error: Tensor
    passes: int | None
    budget: int
    outcome: Outcome
    model: nn.Module


@dataclass(frozen=True)
class Comparison:
    """The same initial network and the same solver, on true and on random labels."""

    true: Fit
    random: Fit

    @property
    def slowdown(self) -> float | None:
        """Passes on random labels over passes on true ones; None unless both were fitted."""
        if self.true.passes is None or self.random.passes is None:
            return None
        return self.random.passes / max(1, self.true.passes)


def compare_labels(
    train: Data,
    solver: Solver,
    *,
    fresh: Callable[[torch.Generator], nn.Module],
    loss: Loss | str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> Comparison:
    """Train one fresh network on the true labels of `train` and a copy of it on random ones.

    solver: the same one for both. fresh: draws a network from a generator.
    Random labels are those of `whydeep.data.corruption.random_labels`. Raises `InputError` without classes.
    Cost: two trainings.
    """
    if train.classes is None:
        raise InputError(f"{train.name} has no classes, so labels cannot be random", "give data with classes")
    generator = or_default(generator)
    model = fresh(spawn(generator))
    relabelled = random_labels(train, generator=spawn(generator))
    steps = spawn(generator)
    state = steps.get_state()
    fits = []
    for data in (train, relabelled):
        steps.set_state(state)  # the same order of samples, too: only the labels differ
        fits.append(_fit(Problem(model, data, loss=loss), solver, steps))
    return Comparison(*fits)


def _fit(problem: Problem, solver: Solver, generator: torch.Generator) -> Fit:
    training = solver.train(problem, generator=generator)
    budget = len(training.history["loss"]) - 1
    error = training.history.get("error")
    if error is None:
        error = errors(training.model, problem.train).double().mean().reshape(1)
        passes = budget if float(error) <= FITTED else None
    else:
        fitted = (error <= FITTED).nonzero()
        passes = int(fitted[0]) if len(fitted) else None
    return Fit(error, passes, budget, training.outcome, training.model)
