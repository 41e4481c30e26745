"""Index against energy on a real network: critical points that were found, beside what random matrices foretell.

Pennington and Bahri split the Hessian of the squared risk, H = H0 + H1, into H0 = 1/n sum_i J_i^T J_i and the second
derivatives times residuals, and take both for random matrices that know nothing of each other. Here both are measured
at each critical point, and the index of their free sum is compared with the index that H has. No constant is fitted:
sigma^2 = tr H0/p sets the unit, and eps = |H1 - mean|_F^2/(2 p sigma^4) the energy in that unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Curve, Line
from whydeep.core.problem import Problem

from .critical_points import SearchEnd, dense_hessian, find_critical_point, in_double
from .solvable import pennington_bahri


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
        found = f"{len(self.points)} of {len(self.ends)} searches ended at a critical point, {flat} gradient-flat"
        if self.difference is None:
            return f"{found}; there is nothing to compare."
        return f"{found}; the index differs from the random-matrix value by {self.difference:.3f} on average."

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
    problem: Problem, starts: Iterable[Tensor], *, tolerance: float = 1e-8, most: int = 300
) -> IndexAgainstEnergy:
    """Search a critical point from every start (p,) and compare its index with that of the free sum of its parts.

    Only ends that are critical are compared; gradient-flat ones are counted, and from weights on the way of a training
    they are most. Critical points of many energies lie where a network with fewer hidden units has its minimum and the
    others are zero (Fukumizu and Amari 2000).
    Raises `InputError` when the loss is not squared, and when there are as many parameters as residuals (samples times
    outputs) or more: H0 is singular then. Cost: as many searches as starts; dense matrices (p, p), so p <= 1000.
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
        end = find_critical_point(problem.at(start.to(problem.vector())), tolerance=tolerance, most=most)
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
