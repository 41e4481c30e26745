"""A two-layer ReLU network that fits any labels of n samples, written down without training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whydeep.core.errors import InputError
from whydeep.core.randomness import or_default


class Memoriser(nn.Module):
    """f(x) = sum_j w_j relu(a' x - b_j), with 2n + d weights: one direction a for all units.

    direction: (d,). thresholds, weights: (n,).
    """

    def __init__(self, direction: Tensor, thresholds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.direction, self.thresholds, self.weights = map(nn.Parameter, (direction, thresholds, weights))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 1) for samples (n, ...)."""
        return torch.relu((x.flatten(1) @ self.direction)[:, None] - self.thresholds) @ self.weights[:, None]


def memorising_network(x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Memoriser:
    """Return the network of Zhang et al. 2017, Theorem 1, that takes the values y (n,) at the samples x (n, ...).

    Along a random direction a the samples are apart with probability 1: z_1 < ... < z_n. With b_1 < z_1 < b_2 < z_2 ...
    the matrix relu(z_i - b_j) is lower triangular with a positive diagonal, so its system has one solution w.
    Thresholds lie halfway between neighbours. Float64. The theorem's number is recalled, not checked against the paper.

    Raises `InputError` when two samples are equal, which no function could give two values. Cost: O(n^2).

    >>> x, y = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor([3.0, -1.0, 2.0])
    >>> [round(float(v), 6) for v in memorising_network(x, y)(x.double()).detach()[:, 0]]
    [3.0, -1.0, 2.0]
    """
    flat = x.flatten(1).double()
    a = torch.randn(flat.shape[1], generator=or_default(generator), dtype=torch.float64).to(flat.device)
    z, order = (flat @ a).sort()
    if len(z) > 1 and bool((z.diff() <= 0).any()):
        raise InputError("two samples are equal, or equal along the direction drawn", "give distinct samples")
    first = z[:1] - (z.diff().mean() if len(z) > 1 else torch.ones((), dtype=torch.float64))
    b = torch.cat([first, (z[:-1] + z[1:]) / 2])
    matrix = torch.relu(z[:, None] - b)
    w = torch.linalg.solve_triangular(matrix, y.double()[order][:, None], upper=False)[:, 0]
    return Memoriser(a, b, w)
