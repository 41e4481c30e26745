"""Index against energy on a real network: critical points that were found, beside what random matrices foretell.

Pennington and Bahri split the Hessian of the squared risk, H = H0 + H1, into H0 = 1/n sum_i J_i^T J_i and the second
derivatives times residuals, and take both for random matrices that know nothing of each other. Here both are measured
at each critical point, and the index of their free sum is compared with the index that H has. No constant is fitted:
sigma^2 = tr H0/p sets the unit, and eps = |H1 - mean|_F^2/(2 p sigma^4) the energy in that unit. Whether the index
grows with the energy at all, which the theory says first, is told by their rank correlation over the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Curve, Line
from whydeep.core.problem import Problem

from .critical_points import SearchEnd, find_critical_point, in_double
from .dense_hessian import dense_hessian
from .rank_chance import chance_of_order
from .solvable import pennington_bahri

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class CriticalPointSeen:
    """One critical point: energy (the risk), index measured, index foretold, and eps in units of sigma^2."""

    energy: float
    index: float
    foretold: float
    eps: float


@dataclass(frozen=True)
class IndexAgainstEnergy:
    """points: the critical ones, by energy. ends: every search. phi: parameters over residuals.

    close: how far apart measured and foretold index may be on average.
    """

    points: tuple[CriticalPointSeen, ...]
    ends: tuple[SearchEnd, ...]
    phi: float
    close: float = 0.02

    @property
    def distinct(self) -> tuple[CriticalPointSeen, ...]:
        """The points without repetition: searches meet the same one, or a mirror image of it, again and again.

        Two of the same index whose energies differ by less than 1e-7 of the larger count as one: a gradient of 1e-8
        leaves an energy to far more digits, and different critical points do not come so close by chance.
        """
        kept: list[CriticalPointSeen] = []
        for point in self.points:
            if not any(
                point.index == one.index and abs(point.energy - one.energy) <= 1e-7 * max(point.energy, one.energy)
                for one in kept
            ):
                kept.append(point)
        return tuple(kept)

    @property
    def correlation(self) -> tuple[float, float] | None:
        """Kendall's rank correlation (tau-b) of index and energy over the distinct points, and the chance of as large.

        The chance is that of unrelated ranks, one-sided and exact (`chance_of_order`); two points of one energy, where
        there are such, count as falling. None with fewer than five points or when all have one index.
        """
        points = sorted(self.distinct, key=lambda point: (point.energy, -point.index))
        indices = [point.index for point in points]
        if len(points) < 5 or len(set(indices)) == 1:
            return None
        found = stats.kendalltau([point.energy for point in points], indices)
        return float(found.statistic), chance_of_order(indices)

    @property
    def grows(self) -> bool | None:
        """Whether the index grows with the energy: a chance in `correlation` below 1 %. None where not testable."""
        return None if self.correlation is None else self.correlation[1] < 0.01

    @property
    def difference(self) -> float | None:
        """Mean |index - foretold| over the critical points; None when there are none."""
        if not self.points:
            return None
        return sum(abs(point.index - point.foretold) for point in self.points) / len(self.points)

    @property
    def verdict(self) -> str:
        """ "agrees", "differs" or "not testable here" (fewer than five critical points)."""
        if self.difference is None or len(self.points) < 5:
            return "not testable here"
        return "agrees" if self.difference <= self.close else "differs"

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        flat = sum(end.kind == "gradient-flat" for end in self.ends)
        far = sum(end.kind == "far" for end in self.ends)
        found = f"{len(self.points)} of {len(self.ends)} searches ended at a critical point, {flat} gradient-flat"
        found += f", {far} far from a zero" if far else ""
        if self.difference is None:
            return f"{found}; there is nothing to compare."
        found += f"; the index differs from the random-matrix value by {self.difference:.3f} on average"
        if self.correlation is not None:
            what = "grows with the energy" if self.grows else "is not seen to grow with the energy"
            found += f", and {what} (rank correlation {self.correlation[0]:.2f} over {len(self.distinct)} points)"
        return f"{found}."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw index against energy into `ax` (new ones when None) and return it."""
        return self.curve().plot(ax)

    def curve(self) -> Curve:
        """Return the plot: index against energy, measured and foretold at the same points."""
        energies = [point.energy for point in self.points]
        lines = (
            Line("measured", energies, [point.index for point in self.points], marks=True),
            Line("random matrices", energies, [point.foretold for point in self.points], role="theory", marks=True),
        )
        return Curve(
            title="Downhill directions of critical points",
            x_label="energy (risk)",
            y_label="index (fraction of curvatures below zero)",
            lines=lines if self.points else (),
            alt=f"Index of {len(self.points)} critical points against their energy; {self.sentence}",
        )


def index_against_energy(
    problem: Problem,
    starts: Iterable[Tensor],
    *,
    indices: Sequence[int | None] = (None,),
    tolerance: float = 1e-8,
    most: int = 300,
) -> IndexAgainstEnergy:
    """Search critical points from every start (p,) and compare their index with that of the free sum of their parts.

    indices: numbers of downhill directions to ask for, one search each from every start; None: whatever is near the
    start (see `find_critical_point`). Only ends that are critical are compared, whatever index they have; gradient-flat
    ones and those on the way to infinity are counted. Critical points of many energies are met by asking for many
    indices, and lie where a network with fewer hidden units has its minimum and the others are zero (Fukumizu and Amari
    2000).
    Raises `InputError` when the loss is not squared, and when there are as many parameters as residuals (samples times
    outputs) or more: H0 is singular then. Cost: starts times indices searches; dense matrices (p, p), so p <= 1000.
    """
    if problem.per_sample.name != "squared":
        raise InputError(f"the loss is {problem.per_sample.name}", "give loss='squared': the theory is about residuals")
    size, residuals = len(problem.vector()), len(problem.train) * problem.train.outputs
    phi = size / residuals
    if not phi < 1 or size > 1000:
        raise InputError(
            f"{size} parameters for {residuals} residuals", "give fewer parameters than residuals, and at most 1,000"
        )
    ends, seen = [], []
    for start in starts:
        here = problem.at(start.to(problem.vector()))
        for index in indices:
            end = find_critical_point(here, index=index, tolerance=tolerance, most=most)
            ends.append(end)
            if end.critical and end.index is not None:
                seen.append(_compare(problem, end, phi))
    return IndexAgainstEnergy(tuple(sorted(seen, key=lambda point: point.energy)), tuple(ends), phi)


def _compare(problem: Problem, end: SearchEnd, phi: float) -> CriticalPointSeen:
    here = in_double(problem).at(end.vector)
    first = gauss_newton(here)
    second = dense_hessian(here) - first
    size = len(first)
    unit = float(first.trace()) / size
    second = second - torch.eye(size, dtype=second.dtype) * second.trace() / size
    spread = float(second.square().sum()) / (2 * size)
    # Where H0 vanishes the Wigner part is all there is: symmetric about zero.
    eps = spread / unit**2 if unit > 0 else math.inf if spread > 0 else 0.0
    foretold = 0.0 if eps == 0 else 0.5 if math.isinf(eps) else pennington_bahri.index(phi, eps)
    assert end.index is not None
    return CriticalPointSeen(end.energy, end.index, foretold, eps)


def gauss_newton(problem: Problem) -> Tensor:
    """Return H0 = 1/n sum_i J_i^T J_i (p, p), J_i (outputs, p) the derivative of the network's output for sample i.

    In evaluation mode. Cost: one backward pass an output for all samples at once by `torch.func`, memory n outputs p.
    """
    model = problem.copy().eval()
    free = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    x = problem.train.in_memory().x

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        result: Tensor = torch.func.functional_call(model, weights, (x,))
        return result

    parts = torch.func.jacrev(outputs)(free)
    jacobian = torch.cat([part.reshape(len(problem.train) * problem.train.outputs, -1) for part in parts.values()], 1)
    return jacobian.T @ jacobian / len(problem.train)
