"""Block Lanczos: one sequence of products tells the ends of a spectrum, its trace and its density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.errors import InputError

BlockProduct = Callable[[Tensor], Tensor]
"""V (b, p) -> the rows A v (b, p), for a symmetric matrix A (p, p)."""

Verdict = Callable[["Projection"], bool]
"""Told the state after every step; returns whether to stop."""


STRETCH = 2**18
"""Entries that are summed in one matrix product: few enough for rounding, many enough for speed."""


@dataclass(frozen=True)
class Projection:
    """A symmetric matrix A (p, p) seen from k orthonormal directions.

    basis: (k, p), rows q_1 ... q_k; the first `first` of them span the random start.
    matrix: (k, k) float64, T = Q A Q^T. beyond: (l, k) float64, the part of A Q^T outside the span, |.| a column:
    a unit vector c (k,) gives a direction Q^T c with |A Q^T c - theta Q^T c|^2 = |T c - theta c|^2 + |beyond c|^2.
    starts: how many times it began, once and whenever a span was closed under A. whole: every direction was visited.
    """

    basis: Tensor
    matrix: Tensor
    beyond: Tensor
    first: int
    steps: int
    starts: int
    whole: bool
    rounding: float

    @property
    def closed(self) -> bool:
        """Whether the span is closed under A: what it holds is exact, and nothing leads out of it."""
        return len(self.beyond) == 0

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the Ritz values (k,) ascending, their coordinates (k, k) in columns, and their residuals (k,).

        The residual |A v - theta v| bounds the distance from theta to the nearest eigenvalue of A. `rounding`, what the
        products themselves may err by, is added to it.
        """
        values, vectors = torch.linalg.eigh(self.matrix)
        return values, vectors, (self.beyond @ vectors).norm(dim=0) + self.rounding


def block_lanczos(
    product: BlockProduct, start: Tensor, *, steps: int, stop: Verdict | None = None, noise: float | None = None
) -> Projection:
    """Return A on the Krylov space of `start` (b, p): span {Z, A Z, ..., A^(steps-1) Z}, rows of Z the start.

    Golub and Underwood (1977). Every new block is made orthogonal to the two before it, which the recurrence couples to
    it, and then to all; once more where that left little of it. So rounding brings no copies of eigenvalues. Directions
    in which a block has come to an end (an eigenvector found, a matrix of low rank) are dropped; when none is left
    before `steps` or before `stop` agrees, fresh random-looking directions orthogonal to all continue, uncoupled to the
    rest.

    noise: what a product may err by, as a part of the largest |A q|; by default the rounding of the vectors' type.
    A block of b finds eigenvalues of multiplicity up to b. Cost: one product with b vectors a step, and
    2 steps^2 b^2 p operations of orthogonalisation in all, the basis read twice a step. Memory: steps * b + 3 b
    vectors (p,).

    Raises `InputError` when A is seen not to be symmetric: some q_i A q_j differs from q_j A q_i by more than the
    rounding of the products explains; or when a product is not finite. `ValueError` when the start is zero.

    >>> diagonal = torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64)
    >>> seen = block_lanczos(lambda v: v * diagonal, torch.ones(1, 3, dtype=torch.float64), steps=3)
    >>> [round(float(value), 6) for value in seen.ritz()[0]], seen.whole
    ([-1.0, 0.5, 4.0], True)
    """
    width, size = start.shape
    if steps < 1 or not bool((start.norm(dim=1) > 0).all()):
        raise ValueError(f"steps={steps} and a start of length {float(start.norm())}; give steps >= 1, no zero rows")
    epsilon = torch.finfo(start.dtype).eps if noise is None else noise
    limit = min(size, steps * width)
    basis = torch.empty(limit, size, dtype=start.dtype, device=start.device)
    matrix = torch.zeros(limit, limit, dtype=torch.float64)
    block, _ = _orthonormal(start, 4 * torch.finfo(start.dtype).eps * math.sqrt(size) * float(start.norm()))
    first = len(block)
    done, step, starts, scale = 0, 0, 1, 0.0
    coupling = torch.zeros(first, 0, dtype=torch.float64)
    previous = 0
    while True:
        now = slice(done, done + len(block))
        basis[now] = block
        ahead = product(block)
        if not bool(torch.isfinite(ahead).all()):
            raise InputError(
                "a product with a vector is NaN or infinite", "check the weights, the loss and the operator"
            )
        step, done = step + 1, now.stop
        scale = max(scale, float(ahead.norm(dim=1).max()))
        # The blocks that the three-term recurrence couples to come first. What they leave is as long as what is sought,
        # so that one pass over the whole basis then loses no digits to cancellation.
        near = slice(previous, done)
        seen = _inner(basis[near], ahead)  # (a + b, b): q_i A q_j
        ahead = ahead - seen.T.to(ahead) @ basis[near]
        rest, length = _inner(basis[:done], ahead), float(ahead.norm(dim=1).max())
        _check_symmetry(seen, coupling, rest, epsilon * scale)
        diagonal = seen[len(seen) - len(block) :]
        matrix[now, now] = (diagonal + diagonal.T) / 2
        if coupling.shape[1]:
            before = slice(previous, previous + coupling.shape[1])
            matrix[now, before], matrix[before, now] = coupling, coupling.T
        ahead -= rest.T.to(ahead) @ basis[:done]
        # What is left below this is the noise of the products, no direction of A.
        following, beyond = _orthonormal(ahead, 4 * epsilon * math.sqrt(size) * scale)
        # What rounding of this pass left in the basis was divided by the shortest direction: twice is then enough.
        if len(following) and float(torch.linalg.svdvals(beyond).min()) < 0.1 * length:
            following, beyond = _again(following, beyond, basis[:done])
        whole = done == size
        projection = Projection(
            basis[:done],
            matrix[:done, :done],
            torch.cat([torch.zeros(len(beyond), done - len(block), dtype=torch.float64), beyond], 1),
            first,
            step,
            starts,
            whole,
            8 * epsilon * scale,  # a product and the sums after it, in norm
        )
        if whole or step >= steps or done >= limit or (stop is not None and stop(projection)):
            return projection
        previous = now.start
        if not len(following):
            starts += 1
            following = _fresh(basis[:done], min(width, limit - done))
            beyond = torch.zeros(len(following), 0, dtype=torch.float64)
        block, coupling = following[: limit - done], beyond[: limit - done]


def lengths(rows: Tensor) -> Tensor:
    """Return |v| of each row (b,) in float64; summed in single precision ten million squares lose four digits."""
    result: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return result


def _inner(rows: Tensor, others: Tensor) -> Tensor:
    """Return the inner products (k, b) in float64; summed in the vectors' own type over `STRETCH` entries at a time.

    A sum of p single numbers errs by up to sqrt(p) roundings: at ten million more than what asymmetry is told by.
    """
    parts = zip(torch.split(rows, STRETCH, 1), torch.split(others, STRETCH, 1), strict=True)
    total = torch.zeros(len(rows), len(others), dtype=torch.float64)
    for part, other in parts:
        total += (part @ other.T).double().cpu()
    return total


def _orthonormal(rows: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return orthonormal rows N (r, p) and B (r, b) with rows = B^T N, without directions shorter than `least`."""
    if len(rows) == 1:  # Householder's reflections would take longer than all else here
        length = lengths(rows)[0]
        if not length > least:
            return rows[:0], torch.zeros(0, 1, dtype=torch.float64)
        return rows / float(length), length.cpu().reshape(1, 1)
    q, r = torch.linalg.qr(rows.T)
    left, strengths, right = torch.linalg.svd(r.double().cpu())
    kept = strengths > least
    return (q @ left[:, kept].to(q)).T.contiguous(), strengths[kept, None] * right[: len(strengths)][kept]


def _again(rows: Tensor, factor: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Make normalised rows orthogonal to the basis once more: rounding of the first time grew with the division."""
    rows = rows - (rows @ basis.T) @ basis
    q, r = torch.linalg.qr(rows.T)
    return q.T.contiguous(), r.double().cpu() @ factor


def _fresh(basis: Tensor, count: int) -> Tensor:
    """Return `count` orthonormal rows orthogonal to the basis, the same for the same basis."""
    count = min(count, basis.shape[1] - len(basis))
    generator = torch.Generator().manual_seed(len(basis))
    rows = torch.randn(count, basis.shape[1], generator=generator, dtype=basis.dtype).to(basis)
    for _ in range(2):
        rows = rows - (rows @ basis.T) @ basis
        rows = torch.linalg.qr(rows.T)[0].T.contiguous()
    return rows


def _check_symmetry(near: Tensor, coupling: Tensor, rest: Tensor, rounding: float) -> None:
    """Compare q_i A q_j with q_j A q_i: within the new block, to the one before, and 0 to those before that."""
    width = near.shape[1]
    expected = torch.zeros_like(near)
    expected[len(near) - width :] = near[len(near) - width :].T
    if coupling.shape[1]:
        expected[: coupling.shape[1]] = coupling.T
    gap = max(float((near - expected).abs().max()), float(rest.abs().max()))
    # 1000 roundings: products of deep networks lose two to three digits by cancellation.
    if gap > 1000 * rounding:
        raise InputError(
            f"the operator is not symmetric: <x, A y> and <y, A x> differ by {gap:.2g} for directions of length 1",
            "give the matrix of a quadratic form, or (A + A^T)/2",
        )
