"""Paths of matrices of full column rank: subspaces along a Grassmann geodesic, bases along rotations."""

from __future__ import annotations

import math
from collections.abc import Callable

import scipy.linalg
import torch
from torch import Tensor

Moving = Callable[[float], Tensor]


def rotation_power(turn: Tensor) -> Moving:
    """Return s -> turn^s, s in [0, 1], for a rotation (r, r) of determinant +1: identity at 0, `turn` at 1.

    By the real Schur form: planes that turn by an angle each; eigenvalues -1 come in pairs, planes that turn by pi.

    >>> half = rotation_power(torch.tensor([[-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64))(0.5)
    >>> bool((half @ half + torch.eye(2)).abs().max() < 1e-12)
    True
    """
    form, basis = (torch.from_numpy(each) for each in scipy.linalg.schur(turn.numpy(), output="real"))
    size = len(form)
    planes: list[tuple[int, int, float]] = []
    flipped: list[int] = []
    k = 0
    while k < size:
        # Off the blocks of a rotation's Schur form there is only rounding.
        if k + 1 < size and abs(float(form[k + 1, k])) > 1e-10:
            planes.append((k, k + 1, math.atan2(float(form[k + 1, k]), float(form[k, k]))))
            k += 2
            continue
        if form[k, k] < 0:
            flipped.append(k)
        k += 1
    planes += [(i, j, math.pi) for i, j in zip(flipped[::2], flipped[1::2], strict=True)]

    def at(s: float) -> Tensor:
        turned = torch.eye(size, dtype=turn.dtype)
        for i, j, angle in planes:
            c, d = math.cos(s * angle), math.sin(s * angle)
            turned[i, i], turned[i, j], turned[j, i], turned[j, j] = c, -d, d, c
        return basis @ turned @ basis.T

    return at


def polar(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return (Q, S) with matrix = Q S, Q (n, r) orthonormal columns, S (r, r) symmetric and not negative."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right, right.T @ (values[:, None] * right)


def joined(first: Tensor, second: Tensor) -> Moving | None:
    """Return s -> M(s) from `first` to `second` (n, r), all of full column rank; None when there is no such path.

    M(s) = Q(s) S(s): S moves on the straight line between the two symmetric factors of the polar decompositions, all of
    which are positive definite. The span of Q(s) follows the Grassmann geodesic, principal angle by principal angle
    (Q_first' Q_second = U cos(theta) V'), while the basis in it turns from U to V by a rotation. Where U'V has
    determinant -1, the largest angle theta is walked the other way round, to theta - pi, which turns one sign; that
    needs a direction outside the span, so n > r. For n = r matrices of full rank fall into two parts by the sign of the
    determinant, and between them there is no path.
    """
    (q1, s1), (q2, s2) = polar(first), polar(second)
    left, cosines, right = torch.linalg.svd(q1.T @ q2)
    left, right = left.clone(), right.T.clone()
    beside = q2 @ right - (q1 @ left) * cosines
    sines = beside.norm(dim=0)
    angles = torch.atan2(sines, cosines)
    # A direction of rounding size is none; its angle is zero.
    outward = torch.where(sines > 1e-12, beside / sines.clamp_min(1e-300), torch.zeros_like(beside))
    angles = torch.where(sines > 1e-12, angles, torch.zeros_like(angles))
    ending = right
    if float(torch.linalg.det(left.T @ right)) < 0:
        if first.shape[0] == first.shape[1]:
            return None
        k = int(angles.argmax())
        if float(angles[k]) == 0:
            # The same span: any direction outside it will do.
            whole, _ = torch.linalg.qr(q1, mode="complete")
            outward[:, k] = whole[:, -1]
        angles[k] -= math.pi
        ending = right.clone()
        ending[:, k] = -ending[:, k]
    turn = rotation_power(left.T @ ending)

    def at(s: float) -> Tensor:
        span = (q1 @ left) * torch.cos(s * angles) + outward * torch.sin(s * angles)
        moved: Tensor = span @ (left @ turn(s)).T @ torch.lerp(s1, s2, s)
        return moved

    return at
