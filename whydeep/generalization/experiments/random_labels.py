"""Random labels: can the same network, trained in the same way, fit labels that have nothing to do with the samples?

Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep learning requires rethinking generalization", ICLR 2017:
if it can, then no bound that holds for all functions this network can fit explains why it generalizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.loss import Loss
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Outcome, Solver
from whydeep.data.corruption import gaussian_pixels, label_noise, random_labels, random_pixels, shuffled_pixels

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


def half_random_labels(data: Data, *, generator: torch.Generator | None = None) -> Data:
    """Return the data with as many wrong labels as if half of them were drawn anew: the fraction (K - 1) / (2 K).

    Raises `InputError` without two classes.
    """
    classes = data.classes or 1
    return replace(
        label_noise(data, (classes - 1) / (2 * classes), generator=generator), name=f"{data.name}, half random"
    )


CORRUPTIONS: dict[str, Callable[..., Data]] = {
    "true labels": lambda data, generator: data,
    "half of the labels random": half_random_labels,
    "random labels": random_labels,
    "shuffled pixels": shuffled_pixels,
    "random pixels": random_pixels,
    "gaussian pixels": gaussian_pixels,
}
"""The training data of Zhang et al. 2017, Figure 1: functions (data, generator) of the data with true labels."""


def fit_corrupted(
    train: Data,
    solver: Solver,
    *,
    fresh: Callable[[torch.Generator], nn.Module],
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    loss: Loss | str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> dict[str, Fit]:
    """Train copies of one fresh network on `train` corrupted in each of the named ways.

    Start, solver and the order of samples are the same for all: only the data differ. fresh: draws a network from a
    generator. Raises `InputError` without classes, `ValueError` on a name not in `CORRUPTIONS`.
    Cost: a training each.
    """
    if train.classes is None:
        raise InputError(f"{train.name} has no classes, so labels cannot be random", "give data with classes")
    unknown = [name for name in corruptions if name not in CORRUPTIONS]
    if unknown:
        raise ValueError(f"unknown corruption {', '.join(unknown)}; give any of {', '.join(CORRUPTIONS)}")
    generator = or_default(generator)
    model = fresh(spawn(generator))
    changes, steps = spawn(generator), spawn(generator)
    state = steps.get_state()
    fits = {}
    for name in corruptions:
        data = CORRUPTIONS[name](train, generator=spawn(changes))
        steps.set_state(state)
        fits[name] = _fit(Problem(model, data, loss=loss), solver, steps)
    return fits


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
    fits = fit_corrupted(
        train, solver, fresh=fresh, corruptions=("true labels", "random labels"), loss=loss, generator=generator
    )
    return Comparison(fits["true labels"], fits["random labels"])


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
