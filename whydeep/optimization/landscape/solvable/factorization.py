"""Factorised problems: when a local minimum over the factors is a global one, and how to be sure.

min over U (m, r), V (n, r) of 1/2 |Y - U V^T|^2 + penalty/2 (|U|^2 + |V|^2): not convex in the factors, but in
Z = U V^T it is 1/2 |Y - Z|^2 + penalty |Z|_*, the nuclear norm, as long as r is large enough. Haeffele and Vidal (2015,
2017): where loss and regulariser are sums over r slices, positively homogeneous of equal degree in each, a local
minimum with one slice that is zero is global. (Recalled, not checked against the papers; for this problem both
directions are tested here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def objective(u: Tensor, v: Tensor, y: Tensor, *, penalty: float) -> Tensor:
    """Return 1/2 |Y - U V^T|^2 + penalty/2 (|U|^2 + |V|^2), for U (m, r), V (n, r), Y (m, n).

    >>> one = torch.ones(1, 1)
    >>> float(objective(one, 2 * one, 4 * one, penalty=1.0))  # 1/2 2^2 + 1/2 (1 + 4)
    4.5
    """
    return 0.5 * (y - u @ v.T).square().sum() + 0.5 * penalty * (u.square().sum() + v.square().sum())


def global_minimum(y: Tensor, *, penalty: float, slices: int | None = None) -> float:
    """Return the least objective over all factors with at most `slices` columns (any number when None).

    With singular values s_i of Y: 1/2 sum s_i^2 - 1/2 sum_{i <= slices} max(s_i - penalty, 0)^2 (soft thresholding).

    >>> round(global_minimum(torch.diag(torch.tensor([3.0, 1.0])), penalty=2.0), 9)  # 1/2 (9 + 1) - 1/2 (3 - 2)^2
    4.5
    """
    strengths = torch.linalg.svdvals(y)
    kept = (strengths[:slices] - penalty).clamp_min(0)
    return 0.5 * float(strengths.square().sum() - kept.square().sum())


@dataclass(frozen=True)
class DualCertificate:
    """A proof that factors are near global, from one matrix at hand.

    polar: sigma_max(Y - U V^T)/penalty; at most one (and gradient zero) means globally optimal.
    gap: the objective minus a lower bound on its least value, >= 0 up to rounding.
    """

    polar: float
    gap: float


def dual_certificate(u: Tensor, v: Tensor, y: Tensor, *, penalty: float) -> DualCertificate:
    """Return the certificate of U, V. Any A with sigma_max(A) <= penalty bounds the least objective from below,

    min >= tr(A^T Y) - 1/2 |A|^2 (weak duality); A is the residual Y - U V^T, shrunk until it is allowed.
    Raises `ValueError` when the penalty is not positive.
    """
    if not penalty > 0:
        raise ValueError(f"penalty={penalty}; the certificate needs one above zero")
    residual = y - u @ v.T
    largest = float(torch.linalg.matrix_norm(residual, 2))
    allowed = residual * min(1.0, penalty / largest) if largest > 0 else residual
    bound = float((allowed * y).sum() - 0.5 * allowed.square().sum())
    return DualCertificate(largest / penalty, float(objective(u, v, y, penalty=penalty)) - bound)


def zero_slices(factors: Sequence[Tensor], *, tolerance: float = 1e-6) -> Tensor:
    """Return (r,) bool: the slices in which all factors are zero, each factor (..., r) with slices last.

    tolerance: relative to the largest slice, over all factors together. For a two-layer ReLU network with weight decay
    pass W1^T (inputs, r) and W2 (outputs, r): a hidden unit is a slice of equal degrees.

    >>> zero_slices([torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])]).tolist()
    [False, True]
    """
    sizes = torch.stack([factor.reshape(-1, factor.shape[-1]).norm(dim=0) for factor in factors]).norm(dim=0)
    zero: Tensor = sizes <= tolerance * sizes.max()
    return zero


def concentrate(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return U Q, V Q for the orthogonal Q (r, r) that puts as much of both as possible into the first slices.

    U V^T and |U|^2 + |V|^2 do not change, so that a local minimum stays one; descent ends at any Q, and a slice that is
    zero for the right Q shows in none before. Q: the right singular vectors of U above V.
    """
    _, _, right = torch.linalg.svd(torch.cat([u, v]), full_matrices=True)
    return u @ right.T, v @ right.T


def descend(u: Tensor, v: Tensor, y: Tensor, *, penalty: float, steps: int = 3000) -> tuple[Tensor, Tensor]:
    """Return where gradient descent from U, V ends, after `steps` of size 1/(3 s + penalty).

    s = max(sigma_max(Y), |U|^2, |V|^2) with spectral norms at the start: the curvature in U is |V|^2 + penalty, in the
    mixed direction it adds |Y - U V^T|, and the factors shrink from large starts.
    """
    norms = [float(torch.linalg.matrix_norm(z, 2)) for z in (y, u, v)]
    step = 1 / (3 * max(norms[0], norms[1] ** 2, norms[2] ** 2) + penalty)
    for _ in range(steps):
        residual = u @ v.T - y
        u, v = u - step * (residual @ v + penalty * u), v - step * (residual.T @ u + penalty * v)
    return u, v
