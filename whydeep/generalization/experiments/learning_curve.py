"""How the generalization gap falls with the number of samples, and how risk and error move during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.loss import Loss
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver


@dataclass(frozen=True)
class LearningCurve:
    """Training and test error (fractions) of networks trained on `sizes` samples: rows are seeds, (seeds, sizes)."""

    sizes: Sequence[int]
    train_error: Sequence[Sequence[float]]
    test_error: Sequence[Sequence[float]]
    test_samples: int

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Test minus training error, (seeds, sizes)."""
        gaps: NDArray[np.float64] = np.asarray(self.test_error) - np.asarray(self.train_error)
        return gaps

    @property
    def exponent(self) -> float | None:
        """Slope a of ln(mean gap) = a ln n + c by least squares; None when some mean gap is not positive."""
        return self._slope(self.gaps)

    @property
    def exponents(self) -> NDArray[np.float64] | None:
        """Pseudo-values of the slope, (seeds,): S a - (S - 1) a_(-s), with a_(-s) the slope without seed s.

        Their mean with Student's interval is the jackknife's estimate of the exponent (Tukey 1958). A slope of every
        seed alone would not do: one seed without a gap has no logarithm. None with one seed, or where some mean gap,
        of all seeds or of all but one, is not positive: then the gaps are too noisy for a power.
        """
        seeds = len(self.gaps)
        whole = self._slope(self.gaps)
        if seeds < 2 or whole is None:
            return None
        values = []
        for left_out in range(seeds):
            part = self._slope(np.delete(self.gaps, left_out, axis=0))
            if part is None:
                return None
            values.append(seeds * whole - (seeds - 1) * part)
        return np.asarray(values)

    def _slope(self, gaps: NDArray[np.float64]) -> float | None:
        means = gaps.mean(0)
        if len(means) < 2 or not bool((means > 0).all()):
            return None
        return float(np.polyfit(np.log(np.asarray(self.sizes, dtype=float)), np.log(means), 1)[0])


def gap_by_samples(
    train: Data,
    test: Data,
    solver: Solver,
    *,
    fresh: Callable[[torch.Generator], nn.Module],
    sizes: Sequence[int],
    seeds: int = 1,
    loss: Loss | str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> LearningCurve:
    """Train fresh networks on nested parts of `train` and return their errors; cost: sizes x seeds trainings.

    Raises `InputError` without classes, `ValueError` when a size is below 1 or above the samples there are.
    """
    if train.classes is None:
        raise InputError(f"{train.name} has no classes, so there is no error to count", "give data with classes")
    if not sizes or min(sizes) < 1 or max(sizes) > len(train) or seeds < 1:
        raise ValueError(
            f"sizes={list(sizes)}, seeds={seeds}; give sizes from 1 to {len(train)}, and at least one seed"
        )
    generator = or_default(generator)
    inside, outside = [], []
    for _ in range(seeds):
        order = torch.randperm(len(train), generator=generator)
        rows: tuple[list[float], list[float]] = ([], [])
        for size in sizes:
            part = train.take(order[:size])
            problem = Problem(fresh(spawn(generator)), part, loss=loss)
            trained = solver.train(problem, generator=spawn(generator)).model
            rows[0].append(float(errors(trained, part).double().mean()))
            rows[1].append(float(errors(trained, test).double().mean()))
        inside.append(rows[0])
        outside.append(rows[1])
    return LearningCurve(tuple(sizes), inside, outside, len(test))


@dataclass(frozen=True)
class Overtraining:
    """Risk (mean loss) and error on training and test samples after each number of passes."""

    passes: Sequence[int]
    train_risk: Sequence[float]
    test_risk: Sequence[float]
    train_error: Sequence[float]
    test_error: Sequence[float]

    @property
    def risk_rise(self) -> float:
        """Test risk at the end over its least value before: above 1 it has overfitted."""
        return self.test_risk[-1] / min(self.test_risk) if min(self.test_risk) > 0 else 1.0

    @property
    def error_rise(self) -> float:
        """Test error at the end minus that at the least test risk, as a fraction."""
        best = min(range(len(self.passes)), key=lambda k: self.test_risk[k])
        return self.test_error[-1] - self.test_error[best]


def overtrain(
    problem: Problem,
    solver: Callable[[int], Solver],
    *,
    passes: Sequence[int],
    generator: torch.Generator | None = None,
) -> Overtraining:
    """Train `problem` from its present parameters for each number of passes and measure on its test data.

    solver: passes -> a solver of so many with a constant step size; each is given the same random numbers, so that a
    longer training goes through the weights of the shorter ones. Passes that double cost twice the longest.
    Raises `InputError` without classes or test data, `ValueError` without passes.
    """
    if problem.train.classes is None or problem.test is None:
        raise InputError("there are no classes or no test data to measure on", "give data with classes, and test data")
    if not passes or min(passes) < 1:
        raise ValueError(f"passes={list(passes)}; give numbers of at least 1")
    state = or_default(generator).get_state()
    columns: list[list[float]] = [[], [], [], []]
    for count in passes:
        same = torch.Generator()
        same.set_state(state)
        trained = problem.with_model(solver(count).train(problem, generator=same).model)
        values = (
            trained.risk(),
            trained.risk(problem.test),
            float(errors(trained.model, problem.train).double().mean()),
            float(errors(trained.model, problem.test).double().mean()),
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Overtraining(tuple(passes), *map(tuple, columns))
