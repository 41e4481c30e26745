"""Sums of ridge functions: what the first layer computes, and the input of the second."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.loss import one_hot
from whydeep.core.randomness import or_default

REACH = 3.0
"""Profiles have knots from -3 to 3 standard deviations of the projections; beyond they continue linearly."""


class Profiles(nn.Module):
    """The profiles rho_i of k ridge functions, vector-valued (one component an output), as cubic splines.

        rho_i(t) = a_i t + sum_j c_ij B((t - t_j) / h),   output = b + sum_i rho_i(t_i)

    B: the cubic B-spline, B(s) = 2/3 - s^2 + |s|^3/2 for |s| <= 1, (2 - |s|)^3/6 up to 2, zero beyond. t_j: `knots`
    equidistant points from -3 to 3, h apart. Maps (n, k) to (n, outputs). All coefficients start at zero.
    """

    knots: Tensor

    def __init__(self, ridges: int, outputs: int, knots: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(-REACH, REACH, knots))
        self.spacing = 2 * REACH / (knots - 1)
        self.weight = nn.Parameter(torch.zeros(outputs, ridges * (knots + 1)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, t: Tensor) -> Tensor:
        """Return the sum of the ridge functions at the projections t (n, k)."""
        distance = ((t.unsqueeze(-1) - self.knots) / self.spacing).abs()
        # (2 - s)^3/6 - 4 (1 - s)^3/6 with both parts cut at zero is B(s).
        bumps = ((2 - distance).clamp(min=0) ** 3 - 4 * (1 - distance).clamp(min=0) ** 3) / 6
        basis = torch.cat([t.unsqueeze(-1), bumps], -1).flatten(1)
        return nn.functional.linear(basis, self.weight, self.bias)


def ridge_sum(
    data: Data, *, ridges: int | None = None, knots: int = 9, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Return an unfitted sum of k ridge functions, f(x) = b + sum_{i=1..k} rho_i(u_i'x), as Flatten, Linear, Profiles.

    The directions u_i and the profiles rho_i are learned together by any solver (full-batch L-BFGS suits: the network
    is smooth and small); the softmax of cross-entropy reads the outputs. One direction serves all outputs.

    data: sets the scale: every projection u_i'x starts with mean 0 and standard deviation 1 on it.
    ridges: k, by default one an output. knots: of a profile's spline.
    generator: draws the random part of the directions; the first ones, as many as outputs, are least-squares
    directions plus a random part of equal size.

    Parameters: k (d + 1) + outputs (k (knots + 1) + 1), d inputs.
    Raises `ValueError` for fewer than 1 ridge or 2 knots.

    Friedman and Stuetzle (1981), projection pursuit regression, with two departures: all ridges are fitted jointly
    rather than one after the other, and profiles are splines rather than running means.
    Cost: one singular value decomposition of the (n, d) data, then the solver's.

    >>> data = Data(torch.eye(3), torch.tensor([0, 1, 1]), classes=2)
    >>> ridge_sum(data)(data.x).tolist()  # the profiles start at zero
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    data = data.in_memory()
    assert isinstance(data.x, Tensor)
    outputs = data.outputs
    ridges = outputs if ridges is None else ridges
    if ridges < 1 or knots < 2:
        raise ValueError(f"ridges is {ridges} and knots is {knots}; give at least 1 ridge and 2 knots")
    x = data.x.flatten(1)
    centre = x.mean(0)
    directions = torch.randn(ridges, x.shape[1], generator=or_default(generator)).to(x)
    spread = _deviation(x - centre, directions)
    directions = directions / spread[:, None]
    first = _least_squares(x - centre, one_hot(data.targets, x.new_empty(0, outputs)).to(x))[:ridges]
    scale = _deviation(x - centre, first)
    directions[: len(first)] += first / scale[:, None]
    directions = directions / _deviation(x - centre, directions)[:, None]
    with torch.random.fork_rng(devices=[]):  # Linear draws weights that are overwritten
        layer = nn.Linear(x.shape[1], ridges).to(x)
    with torch.no_grad():
        layer.weight.copy_(directions)
        layer.bias.copy_(-directions @ centre)
    return nn.Sequential(nn.Flatten(), layer, Profiles(ridges, outputs, knots).to(x))


def _deviation(centred: Tensor, directions: Tensor) -> Tensor:
    """Standard deviation of the projections, 1 where there is none (constant data, a zero direction)."""
    spread = (centred @ directions.T).square().mean(0).sqrt()
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def _least_squares(centred: Tensor, target: Tensor) -> Tensor:
    """Return least-squares directions (outputs, d), damped by 1 % of the largest variance (constant pixels)."""
    covariance = centred.T @ centred / len(centred)
    damping = 0.01 * torch.linalg.matrix_norm(covariance, 2)
    eye = torch.eye(len(covariance)).to(covariance)
    if damping == 0:
        damping = torch.ones_like(damping)
    right = centred.T @ (target - target.mean(0)) / len(centred)
    directions: Tensor = torch.linalg.solve(covariance + damping * eye, right).T
    return directions
