r"""Double descent: the test error of least squares on N random features peaks where their rank reaches n, then falls.

Features phi(x) = relu(V x), the rows of V uniform on the sphere (fixed), one-hot targets Y (n, K). Least norm:
    W = Phi^+ Y;   ridge: W = (Phi' Phi + n lambda I)^(-1) Phi' Y.
The interpolation threshold is where the rank of Phi (n, N) reaches n: units that are never active, or features that
depend on each other, add none, so it is predicted from the rank and not from N (Belkin, Hsu, Ma and Mandal 2019, for
N). The ridge is chosen on the training samples by the exact leave-one-out error, r_i / (1 - H_ii) with the residual r
and the hat matrix H; tuned, it removes the peak (Nakkiran, Venkat, Kakade and Ma 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.exhibit import Curve, Line
from whydeep.core.loss import Loss, one_hot
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver

RIDGES = torch.logspace(-8, 2, 41, dtype=torch.float64)
"""Grid for n lambda, times the mean squared singular value: a quarter of a decade apart."""


@dataclass(frozen=True)
class DoubleDescent:
    """Errors against the width N, means over draws of the features; fractions. ranks: mean rank of Phi."""

    widths: Sequence[int]
    ranks: Sequence[float]
    train_error: Sequence[float]
    test_error: Sequence[float]
    ridge_error: Sequence[float]
    samples: int

    @property
    def threshold(self) -> int | None:
        """The least width tried at which the rank reaches n in every draw, where the peak is predicted; or None."""
        reached = [width for width, rank in zip(self.widths, self.ranks, strict=True) if rank >= self.samples - 0.5]
        return min(reached, default=None)

    @property
    def peak(self) -> int:
        """The width with the largest test error of the least-norm solution."""
        return max(zip(self.test_error, self.widths, strict=True))[1]

    def curve(self) -> Curve:
        """Return test and training error against the width."""

        def percents(values: Sequence[float]) -> list[float]:
            return [100 * value for value in values]

        lines = [
            Line("least norm, test", self.widths, percents(self.test_error), marks=True),
            Line("least norm, training", self.widths, percents(self.train_error)),
            Line("tuned ridge, test", self.widths, percents(self.ridge_error), marks=True),
        ]
        where = "the rank never reaches the number of samples"
        if self.threshold is not None:
            ends = [0.0, 100 * max(self.test_error)]
            lines.append(Line("rank reaches n", [self.threshold] * 2, ends, role="theory"))
            where = f"the rank reaches {self.samples} at width {self.threshold}"
        return Curve(
            title=f"Random ReLU features on {self.samples} samples",
            x_label="number of features (log scale)",
            y_label="error (%)",
            lines=tuple(lines),
            alt=f"The test error of the least-norm solution is largest at width {self.peak}; {where}.",
            x_log=True,
        )


def random_features(
    train: Data,
    test: Data,
    *,
    widths: Sequence[int],
    draws: int = 3,
    generator: torch.Generator | None = None,
) -> DoubleDescent:
    """Return the errors of least squares and of tuned ridge on random ReLU features of each width.

    Raises `InputError` without classes, `ValueError` on an empty or non-positive list of widths.
    Cost: a singular value decomposition (n, N) each.
    """
    if train.classes is None:
        raise InputError(f"{train.name} has no classes, so there is no error to count", "give data with classes")
    if not widths or min(widths) < 1 or draws < 1:
        raise ValueError(f"widths={list(widths)}, draws={draws}; give widths and draws of at least 1")
    generator = or_default(generator)
    (x, y), (fresh, truth) = (_in_memory(part) for part in (train, test))
    target = one_hot(y, torch.empty(0, train.classes, dtype=torch.float64))
    table = torch.zeros(len(widths), 4, dtype=torch.float64)
    for _ in range(draws):
        v = torch.randn(max(widths), x.shape[1], generator=generator, dtype=torch.float64)
        v /= v.norm(dim=1, keepdim=True)
        for row, width in enumerate(widths):  # nested: a wider network has the features of a narrower one
            inside, outside = (torch.relu(part @ v[:width].T) for part in (x, fresh))
            table[row] += torch.tensor(_errors(inside, outside, target, y, truth), dtype=torch.float64) / draws
    ranks, training, testing, ridge = table.T.tolist()
    return DoubleDescent(tuple(widths), ranks, training, testing, ridge, len(train))


def _errors(inside: Tensor, outside: Tensor, target: Tensor, y: Tensor, truth: Tensor) -> tuple[float, ...]:
    u, s, vh = torch.linalg.svd(inside, full_matrices=False)
    kept = s > s[0] * max(inside.shape) * torch.finfo(torch.float64).eps if float(s[0]) > 0 else s > 0
    u, s, vh = u[:, kept], s[kept], vh[kept]
    coefficients = u.T @ target

    def wrong(features: Tensor, shrunk: Tensor, labels: Tensor) -> float:
        return float(((features @ vh.T) @ (shrunk[:, None] * coefficients)).argmax(1).ne(labels).double().mean())

    plain = 1 / s
    ridge = _tuned_ridge(u, s, coefficients, target)
    return (
        float(len(s)),
        wrong(inside, plain, y),
        wrong(outside, plain, truth),
        wrong(outside, s / (s.square() + ridge), truth),
    )


def _tuned_ridge(u: Tensor, s: Tensor, coefficients: Tensor, target: Tensor) -> Tensor:
    """The n lambda of the grid with the least leave-one-out squared error."""
    if not len(s):
        return torch.ones((), dtype=torch.float64)
    best, chosen = float("inf"), RIDGES[0]
    for ridge in RIDGES * s.square().mean():
        share = s.square() / (s.square() + ridge)
        residual = target - u @ (share[:, None] * coefficients)
        kept = (1 - (u.square() * share).sum(1)).clamp(min=1e-12)
        left_out = float((residual / kept[:, None]).square().mean())
        if left_out < best:
            best, chosen = left_out, ridge
    return chosen


def _in_memory(data: Data) -> tuple[Tensor, Tensor]:
    x = data.in_memory().x
    assert isinstance(x, Tensor)
    return x.flatten(1).double().cpu(), data.targets.cpu()


@dataclass(frozen=True)
class WidthSweep:
    """Networks of growing width, trained alike: errors as fractions. means over the seeds."""

    widths: Sequence[int]
    parameters: Sequence[int]
    train_error: Sequence[float]
    test_error: Sequence[float]
    samples: int

    def curve(self) -> Curve:
        """Return both errors against the width."""
        return Curve(
            title=f"Networks with one hidden layer on {self.samples} samples, trained alike",
            x_label="hidden units (log scale)",
            y_label="error (%)",
            lines=(
                Line("test", self.widths, [100 * e for e in self.test_error], marks=True),
                Line("training", self.widths, [100 * e for e in self.train_error], marks=True),
            ),
            alt=(
                f"Test error from {100 * self.test_error[0]:.2g} % at width {self.widths[0]} to "
                f"{100 * self.test_error[-1]:.2g} % at {self.widths[-1]}; largest {100 * max(self.test_error):.2g} %."
            ),
            x_log=True,
        )


def width_sweep(
    train: Data,
    test: Data,
    solver: Solver,
    *,
    fresh: Callable[[int, torch.Generator], nn.Module],
    widths: Sequence[int],
    seeds: int = 1,
    loss: Loss | str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> WidthSweep:
    """Train a network of each width by the same solver; fresh: (width, generator) -> network.

    Raises `ValueError` on an empty list of widths. Cost: widths x seeds trainings.
    """
    if not widths or seeds < 1:
        raise ValueError(f"widths={list(widths)}, seeds={seeds}; give widths, and at least one seed")
    generator = or_default(generator)
    inside, outside, counts = [0.0] * len(widths), [0.0] * len(widths), [0] * len(widths)
    for _ in range(seeds):
        for index, width in enumerate(widths):
            model = fresh(width, spawn(generator))
            counts[index] = sum(value.numel() for value in model.parameters())
            trained = solver.train(Problem(model, train, loss=loss), generator=spawn(generator)).model
            inside[index] += float(errors(trained, train).double().mean()) / seeds
            outside[index] += float(errors(trained, test).double().mean()) / seeds
    return WidthSweep(tuple(widths), tuple(counts), tuple(inside), tuple(outside), len(train))
