"""Two moments of a spectrum that the trace's probes tell, and what they add to a quadrature's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .block_lanczos import Projection
from .trace import Trace


@dataclass(frozen=True)
class Moments:
    """first = tr A / p and second = tr A^2 / p of a symmetric matrix A (p, p), estimated without bias.

    With Q the basis of a Lanczos run, T = Q A Q^T and B = P A P on the rest, tr A = tr T + E z . B z and
    tr A^2 = |T|^2 + 2 |P A Q^T|^2 + E |B z|^2 (Frobenius norms): the images of the trace's probes, which were taken
    already, tell both. noise: tr B^2 / (p k) for k probes, half the variance of p `first` over p.
    """

    first: float
    second: float
    noise: float

    @staticmethod
    def of(projection: Projection, traced: Trace) -> Moments:
        """Return both from a run and the trace's probes beside its basis."""
        size = projection.basis.shape[1]
        inside = float(projection.matrix.square().sum()) + 2 * float(projection.beyond.square().sum())
        left = float(traced.squares.mean())
        return Moments(traced.value / size, (inside + left) / size, left / (size * len(traced.probes)))


@dataclass(frozen=True)
class Parabolas:
    """The functions 1, u, u^2 on the nodes of a quadrature, u = (t - mean)/deviation, made orthonormal in its weights.

    rows: (r, k), r <= 3, in this order: fewer where the weights sit at fewer than three places. mixing: (r, 3), how the
    rows are made of the powers of u. weights: (k,), zero where a node does not count.
    """

    rows: Tensor
    mixing: Tensor
    mean: float
    deviation: float
    weights: Tensor

    @staticmethod
    def on(nodes: Tensor, weights: Tensor) -> Parabolas:
        """Build them on nodes (k,) with weights (k,) >= 0, by Gram and Schmidt."""
        mass = float(weights.sum())
        mean = float(weights @ nodes) / mass if mass > 0 else 0.0
        deviation = float((weights @ (nodes - mean).square() / mass).sqrt()) if mass > 0 else 0.0
        # A deviation of rounding is none: all weight sits at one place.
        unit = (nodes - mean) / deviation if deviation > 1e-12 * float(nodes.abs().max()) else 0 * nodes
        rows, mixing = nodes.new_zeros(0, len(nodes)), nodes.new_zeros(0, 3)
        for power in range(3):
            row, mix = unit**power, torch.eye(3, dtype=nodes.dtype)[power]
            for _ in range(2):  # twice is enough against rounding
                inside = (rows * weights) @ row
                row, mix = row - inside @ rows, mix - inside @ mixing
            length = float((weights @ row.square()).sqrt())
            if length > 1e-10 * mass**0.5:  # else it is a combination of those before it, up to rounding
                rows, mixing = torch.cat([rows, row[None] / length]), torch.cat([mixing, mix[None] / length])
        return Parabolas(rows, mixing, mean, deviation, weights)

    def nearest(self, values: Tensor) -> Tensor:
        """Return the parabola (k, g) nearest to functions given on the nodes (k, g), in the weights."""
        fitted: Tensor = self.rows.T @ ((self.rows * self.weights) @ values)
        return fitted

    def with_moments(self, first: float, second: float) -> Tensor:
        """Return the parabola d (k,) with sum_i w_i d_i = 0, sum_i w_i d_i t_i = first, and = second with t_i^2.

        At fewer than three places, the part of it that there is.
        """
        if len(self.rows) < 2:
            return torch.zeros_like(self.weights)
        gaps = self.rows.new_tensor([0.0, first / self.deviation, (second - 2 * self.mean * first) / self.deviation**2])
        found: Tensor = (self.mixing[1:] @ gaps) @ self.rows[1:]
        return found


def corrections(nodes: Tensor, weights: Tensor, *, free: Tensor, moments: Moments) -> tuple[Tensor, float]:
    """Return factors (k,) of the weights (b, k) that take their mean towards the moments given, and how far: in [0, 1].

    A free weight w_i is a sum of squares of normal numbers, with a variance in proportion to its size; given other
    moments the most likely weights are w_i (1 + a + b t_i + c t_i^2) (generalised least squares; in surveys the
    calibration of Deville and Sarndal 1992, recalled, not checked against the paper). Where the columns' own moments
    have half a variance of sum_i w_i t_i^2 / b over the free nodes and those given `moments.noise`, the gap between
    them is closed to the part in which both together are most precise. Where a weight would fall below zero the
    correction stops there. free: (k,) whether a weight may move; the total stays.
    """
    pooled = weights.mean(0)
    counted = torch.where(free, pooled, 0.0)
    own = float(counted @ nodes.square()) / len(weights)
    share = own / (own + moments.noise) if own > 0 else 0.0
    first, second = moments.first - float(pooled @ nodes), moments.second - float(pooled @ nodes.square())
    change = torch.where(free, share * Parabolas.on(nodes, counted).with_moments(first, second), 0.0)
    deepest = float(change.min())
    kept = min(1.0, -1 / deepest) if deepest < 0 else 1.0
    return 1 + kept * change, kept * share
