"""The curvature of the risk: its largest and smallest Hessian eigenvalue and its trace, without the matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default

from .hessian import Hessian

Product = Callable[[Tensor], Tensor]
"""v (p,) -> A v (p,) for a symmetric matrix A."""


@dataclass(frozen=True)
class Eigenpair:
    """An approximate eigenvalue with its vector (p,) of length 1 and residual = |A v - value v|.

    For a symmetric A some eigenvalue lies within [value - residual, value + residual].
    """

    value: float
    residual: float
    vector: Tensor


@dataclass(frozen=True)
class Extremes:
    """Both ends of a spectrum.

    basis: (m, p), the orthonormal vectors that were visited. captured: trace of A on their span.
    unseen: with 95 % probability over the random start no eigenvalue lies further outside the two ends than this.
    """

    largest: Eigenpair
    smallest: Eigenpair
    basis: Tensor
    captured: float
    unseen: float


def extremes(product: Product, start: Tensor, *, steps: int = 60, tolerance: float = 1e-4) -> Extremes:
    """Return the largest and the smallest eigenvalue of a symmetric matrix by the method of Lanczos (1950).

    start: (p,), drawn from a normal distribution for the guarantee below. At most min(steps, p) products, fewer once
    both residuals are below tolerance * max |eigenvalue|, and two more for the residuals themselves. Every new vector
    is made orthogonal to all earlier ones twice, so that rounding brings no copies of eigenvalues. Memory: steps * p.

    The largest Ritz value never exceeds the largest eigenvalue. By Kuczynski and Wozniakowski (1992, theorem 4.2;
    recalled, not checked against the paper) after k steps from a uniformly random direction it falls short of it by
    more than eps (largest - smallest) with probability at most 1.648 sqrt(p) exp(-sqrt(eps) (2k - 1)).

    Raises `ValueError` when the start is zero or steps < 1.

    >>> diagonal = torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64)
    >>> ends = extremes(lambda v: diagonal * v, torch.ones(3, dtype=torch.float64))
    >>> round(ends.largest.value, 6), round(ends.smallest.value, 6)
    (4.0, -1.0)
    """
    length = float(start.norm())
    if not length > 0 or steps < 1:
        raise ValueError(f"the start has length {length} and steps={steps}; give a start that is not zero, steps >= 1")
    size, rounding = len(start), torch.finfo(start.dtype).eps
    basis = torch.empty(min(steps, size), size, dtype=start.dtype, device=start.device)
    basis[0] = start / length
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        done = len(diagonal) + 1
        ahead = product(basis[done - 1])
        diagonal.append(float(ahead.double() @ basis[done - 1].double()))
        for _ in range(2):
            ahead = ahead - basis[:done].T @ (basis[:done] @ ahead)
        beside.append(float(ahead.norm()))
        values, vectors = _tridiagonal(diagonal, beside[:-1])
        scale = float(values.abs().max())
        # The residual of a Ritz vector is the last entry of its coordinates times the next off-diagonal entry.
        worst = beside[-1] * max(abs(float(vectors[-1, 0])), abs(float(vectors[-1, -1])))
        # Below sqrt(p) roundings what is left of the vector is noise: the span is closed under A.
        if done == len(basis) or worst <= tolerance * scale or beside[-1] <= rounding * math.sqrt(size) * scale:
            break
        basis[done] = ahead / beside[-1]
    basis = basis[:done]
    largest = _eigenpair(product, basis.T @ vectors[:, -1].to(basis))
    smallest = largest if done == 1 else _eigenpair(product, basis.T @ vectors[:, 0].to(basis))
    unseen = 0.0 if done == size else _unseen(size, done, largest.value - smallest.value)
    return Extremes(largest, smallest, basis, sum(diagonal), unseen)


def _tridiagonal(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
        matrix = matrix + off + off.T
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def _eigenpair(product: Product, vector: Tensor) -> Eigenpair:
    vector = vector / vector.norm()
    ahead = product(vector)
    value = float(ahead.double() @ vector.double())
    return Eigenpair(value, float((ahead.double() - value * vector.double()).norm()), vector)


def _unseen(size: int, steps: int, spread: float) -> float:
    # 2.5 % for each end; the true spread is at most the one seen divided by 1 - 2 eps.
    eps = (math.log(1.648 * math.sqrt(size) / 0.025) / (2 * steps - 1)) ** 2
    return eps * spread / (1 - 2 * eps) if eps < 0.5 else math.inf


def trace(
    product: Product,
    like: Tensor,
    *,
    probes: int = 16,
    basis: Tensor | None = None,
    captured: float = 0.0,
    generator: torch.Generator | None = None,
) -> Measurement:
    """Return the trace of a symmetric matrix, estimated without bias, with Student's 95 % interval over the probes.

    tr A = E z^T A z for entries z = +-1 with equal probability (Hutchinson 1990). With an orthonormal `basis` (m, p)
    chosen independently of the probes, and captured = tr(Q^T A Q) on it, only the rest is estimated:
    tr A = captured + E (P z)^T A (P z) with P = I - Q Q^T, which removes the part of the variance that the largest
    eigenvalues cause (the idea of Hutch++, Meyer et al. 2021; there the basis is a random sketch, here Lanczos').

    like: any vector (p,), for length, type and device. Cost: one product a probe.

    >>> ones = torch.ones(5, dtype=torch.float64)
    >>> trace(lambda v: 2 * v, ones).value
    10.0
    """
    if probes < 2:
        raise ValueError(f"probes={probes}; give at least 2, one alone tells nothing of its spread")
    generator = or_default(generator)
    values = []
    for _ in range(probes):
        signs = torch.randint(2, like.shape, generator=generator).to(like) * 2 - 1
        if basis is not None:
            signs = signs - basis.T @ (basis @ signs)
        values.append(captured + float(signs.double() @ product(signs).double()))
    return mean("trace", values, method=f"Student, {probes} random probes", evaluations=probes)


@dataclass(frozen=True)
class Spectrum:
    """What was measured of the Hessian of the risk.

    largest, smallest: eigenvalues with the interval +- their residual; trace with Student's interval.
    sharpest, softest: their directions (p,), of length 1. unseen: see `Extremes`. products: all that were taken.
    """

    largest: Measurement
    smallest: Measurement
    trace: Measurement
    sharpest: Tensor
    softest: Tensor
    unseen: float
    products: int


def spectrum(
    problem: Problem,
    *,
    data: Data | None = None,
    steps: int = 60,
    probes: int = 16,
    tolerance: float = 1e-4,
    batch_size: int = 2048,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """Measure the largest and smallest eigenvalue and the trace of the Hessian of the risk at `problem.model`.

    Evaluation mode, on `data` (the training data by default). The interval of an eigenvalue is +- its residual
    |H v - value v|: some eigenvalue lies in it for certain, that it is the outermost one rests on the random start.
    Rounding in the network's own number type comes on top, about 1e-6 of the largest eigenvalue in single precision.
    Cost: at most steps + 2 + probes products (see `Hessian`).
    """
    generator = or_default(generator)
    began = time.perf_counter()
    hessian = Hessian(problem, data=data, batch_size=batch_size)
    like = problem.vector()
    start = torch.randn(hessian.size, generator=generator, dtype=like.dtype).to(like.device)
    ends = extremes(hessian, start, steps=steps, tolerance=tolerance)
    taken, seconds = hessian.products, time.perf_counter() - began
    if len(ends.basis) == hessian.size:  # every direction was visited: nothing is left to estimate
        total = exact("trace", ends.captured, method="every direction visited")
    else:
        total = trace(hessian, like, probes=probes, basis=ends.basis, captured=ends.captured, generator=generator)

    def measured(name: str, pair: Eigenpair) -> Measurement:
        low, high = pair.value - pair.residual, pair.value + pair.residual
        method = f"Lanczos, {len(ends.basis)} steps, +- residual"
        return Measurement(name, pair.value, low, high, method=method, evaluations=taken, seconds=seconds)

    return Spectrum(
        largest=measured("largest curvature", ends.largest),
        smallest=measured("smallest curvature", ends.smallest),
        trace=total,
        sharpest=ends.largest.vector,
        softest=ends.smallest.vector,
        unseen=ends.unseen,
        products=hessian.products,
    )
