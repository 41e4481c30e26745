"""The tensor power method: components of an orthogonal tensor, each an attractor, found without a poor one.

T = sum_i lambda_i a_i x a_i x a_i with orthonormal a_i, lambda_i > 0. The maps x -> T(I, x, x)/|.| have the a_i as
their only stable fixed points (the eigenvectors of a matrix are all but one unstable): from a start x the one with the
largest lambda_i |<a_i, x>| wins, and the others vanish quadratically,
(lambda_j c_j)/(lambda_i c_i) -> its square at every step. Anandkumar et al. (2014), recalled, not checked against the
paper; the rate is derived in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.randomness import or_default


@dataclass(frozen=True)
class Decomposition:
    """strengths: (r,) lambda, descending as found. components: (r, d) unit rows. residual: |T - sum|/|T|."""

    strengths: Tensor
    components: Tensor
    residual: float


def tensor(strengths: Tensor, components: Tensor) -> Tensor:
    """Return sum_i lambda_i a_i x a_i x a_i, (d, d, d), of lambda (r,) and rows a_i (r, d)."""
    return torch.einsum("r,ri,rj,rk->ijk", strengths, components, components, components)


def contract(tensor: Tensor, points: Tensor) -> Tensor:
    """Return T(I, x, x) (b, d) for points (b, d)."""
    once = torch.einsum("ijk,bk->bij", tensor, points)
    return torch.einsum("bij,bj->bi", once, points)


def power_iteration(tensor: Tensor, points: Tensor, *, steps: int = 30) -> Tensor:
    """Return the points (b, d) of length one after `steps` of x -> T(I, x, x)/|T(I, x, x)|.

    A point that the tensor sends to zero stays where it is. Convergence is quadratic: 30 steps double the digits 30
    times from any start that is not balanced between components to the last bit.

    >>> t = tensor(torch.tensor([2.0, 1.0]), torch.eye(2))
    >>> power_iteration(t, torch.tensor([[0.6, 0.8]]))  # 2 * 0.6 > 1 * 0.8
    tensor([[1., 0.]])
    """
    for _ in range(steps):
        moved = contract(tensor, points)
        length = moved.norm(dim=1, keepdim=True)
        points = torch.where(length > 0, moved / length.clamp_min(torch.finfo(moved.dtype).tiny), points)
    return points


def decompose(
    symmetric: Tensor, rank: int, *, starts: int = 20, steps: int = 30, generator: torch.Generator | None = None
) -> Decomposition:
    """Return `rank` components by power iterations from random starts and deflation.

    Each time the end with the largest T(x, x, x) is taken and lambda x x x x subtracted. Exact for orthogonal tensors;
    for others `residual` says how far from it. Negative lambda appear as the negative component.
    Raises `ValueError` when T is not (d, d, d), not symmetric to 1e-6 of its size, or rank is not in 1..d.
    """
    if symmetric.ndim != 3 or len(set(symmetric.shape)) != 1 or not 1 <= rank <= len(symmetric):
        raise ValueError(f"the tensor is {tuple(symmetric.shape)} and rank={rank}; give (d, d, d) and a rank of 1 to d")
    size = float(symmetric.norm())
    swapped = max(float((symmetric - symmetric.transpose(a, b)).norm()) for a, b in ((0, 1), (1, 2)))
    if swapped > 1e-6 * size:
        raise ValueError(f"the tensor differs from its transpose by {swapped / size:.1e} of its size; symmetrise it")
    generator = or_default(generator)
    rest, strengths, components = symmetric, [], []
    for _ in range(rank):
        points = torch.randn(starts, len(symmetric), generator=generator, dtype=symmetric.dtype).to(symmetric)
        ends = power_iteration(rest, points / points.norm(dim=1, keepdim=True), steps=steps)
        values = (contract(rest, ends) * ends).sum(1)
        best = int(values.argmax())
        strengths.append(values[best])
        components.append(ends[best])
        rest = rest - tensor(values[best][None], ends[best][None])
    residual = float(rest.norm()) / size if size > 0 else 0.0
    return Decomposition(torch.stack(strengths), torch.stack(components), residual)
