"""The spectral density of a symmetric matrix and counts of its eigenvalues, from one block Lanczos run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.measurement import Measurement, exact

from .block_lanczos import Projection
from .gauss_rule import GaussRule
from .moments import Moments, Parabolas, corrections
from .trace import Trace

LIKELY = 6.0
"""A mean of 2 squares of normal numbers exceeds this with probability .002: more weight is several eigenvalues."""


@dataclass(frozen=True)
class Density:
    """Values on a grid (g,), per unit of the eigenvalue, with a 95 % band [low, high]; their integral is 1.

    The band is 1.96 standard errors of the random start (see `Quadrature.mean`). The coarseness of the quadrature
    between its nodes comes on top.
    """

    grid: Tensor
    value: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Quadrature:
    """rho(t) = 1/p sum_i delta(t - lambda_i) as nodes (k,) ascending with weights (b, k), one row a random column.

    tr f(A) / p = E sum_k weights[j, k] f(nodes[k]) for every row j and every polynomial f of degree below twice the
    number of Lanczos steps (Golub and Meurant 2010; Ubaru, Chen and Saad 2017). single: the nodes that are one
    eigenvalue each, known to their residual: they weigh 1/p exactly, as in Chen and Hallman (2023, recalled, not
    checked against the paper), and only the rest is estimated. rules: of every random column its own Gauss rule; seen
    (b, k): the weights of the single nodes as they came out in the columns, 0 for the others. told: how far the weights
    follow the moments that probes told beside the columns (`corrections`), 0 without any and 1 for sure ones.
    """

    nodes: Tensor
    weights: Tensor
    single: Tensor
    size: int
    whole: bool
    rules: tuple[GaussRule, ...]
    seen: Tensor
    told: float = 0.0

    @staticmethod
    def of(projection: Projection, traced: Trace | None = None, *, tolerance: float = 1e-3) -> Quadrature:
        """Return the quadrature of a run whose start was uniformly random, with the moments that probes tell.

        A node is taken for one eigenvalue when its residual is below `tolerance` of the largest |eigenvalue|, the
        next node is ten residuals away, and it does not weigh so much that several must sit there.
        """
        values, vectors, residuals = projection.ritz()
        size = projection.basis.shape[1]
        if projection.whole:
            rows = torch.full((1, len(values)), 1 / size, dtype=torch.float64)
            return Quadrature(values, rows, torch.ones(len(values), dtype=torch.bool), size, True, (), rows)
        weights = vectors[: projection.first].square()
        gaps = torch.full_like(values, math.inf)
        gaps[:-1] = values.diff()
        gaps[1:] = torch.minimum(gaps[1:], values.diff())
        scale = float(values.abs().max())
        single = (residuals <= tolerance * scale) & (gaps > 10 * residuals) & (weights.mean(0) * size < LIKELY)
        seen = torch.where(single, weights, 0.0)
        steps = len(values) // projection.first
        rules = tuple(GaussRule.of(projection.matrix, j, steps=steps) for j in range(projection.first))
        rest = 1 - int(single.sum()) / size
        others = weights[:, ~single].sum(1, keepdim=True)
        if bool((others > 0).all()):
            weights = torch.where(single, 1 / size, weights * rest / others.clamp(min=1e-300))
        told = 0.0
        if traced is not None and len(traced.probes):
            moments = Moments.of(projection, traced)
            factors, told = corrections(values, weights, free=~single, moments=moments)
            weights = weights * factors
        return Quadrature(values, weights, single, size, False, rules, seen, told)

    def density(self, grid: Tensor | Sequence[float], *, width: float | None = None) -> Density:
        """Return rho smoothed by a normal density of standard deviation `width` (1 % of the range by default)."""
        points = torch.as_tensor(grid, dtype=torch.float64).reshape(-1)
        if width is None:
            spread = float(self.nodes[-1] - self.nodes[0])
            width = 0.01 * (spread if spread > 0 else max(1.0, abs(float(self.nodes[0]))))
        if not width > 0:
            raise ValueError(f"width={width}; give a positive standard deviation")
        bumps = torch.exp(-0.5 * ((points - self.nodes[:, None]) / width).square()) / (width * math.sqrt(2 * math.pi))
        value, error = self.mean(bumps)
        half = 1.96 * error
        return Density(points, value, (value - half).clamp(min=0), value + half)

    def mean(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return tr f(A) / p (g,) for functions f given by their values on the nodes (k, g), and its standard error.

        For x uniform on the sphere of dimension d the form x . F x has variance 2 / (d + 2) (tr F^2 / d - (tr F / d)^2)
        (its fourth moments), so that b orthonormal columns have a standard error of at most
        sqrt(2 / (b (d + 2)) (mean f^2 - (mean f)^2)), d = p less the single nodes, which are known; both means are
        taken from the quadrature itself. With moments from probes the columns alone tell
        only what of f is no parabola q, the nearest to it: mean (f - q)^2 + (1 - told) mean (q - mean q)^2 stands in
        the place of the variance of f.
        """
        pooled = self.weights.mean(0)
        value = pooled @ values
        if self.whole:
            return value, torch.zeros_like(value)
        rest = torch.where(self.single, 0.0, pooled)
        mass, dimension = float(rest.sum()), self.size - int(self.single.sum())
        if not mass > 0:
            return value, torch.zeros_like(value)
        first = rest @ values / mass
        near = Parabolas.on(self.nodes, rest).nearest(values)
        variance = rest @ (values - near).square() + (1 - self.told) * (rest @ (near - first).square())
        return value, (mass * variance * 2 / (len(self.weights) * (dimension + 2))).sqrt()

    def below(self, level: float, *, name: str = "") -> Measurement:
        """Return the number of eigenvalues below `level`, with an interval.

        Certain: no fewer than the nodes below it, and no more than p less the nodes above it (Cauchy). Within these,
        of every random column the bounds of its mass below the level (`GaussRule.below`) less its mass on the single
        nodes there, which are counted; their mean over columns times what is left of p is 1.96 standard errors (see
        `mean`) from the count. Eigenvalues closer to the level than rounding count on either side.
        """
        name = name or f"eigenvalues below {level:.3g}"
        under = self.nodes < level
        least, most = int(under.sum()), self.size - int((~under).sum())
        if self.whole:
            return exact(name, least, method="every direction visited", unit="eigenvalues")
        value = min(max(self.size * float(self.mean(under.double()[:, None])[0]), least), most)
        counted, known = int((under & self.single).sum()), int(self.single.sum())
        rest = 1 - self.seen.sum(1)
        ends = torch.tensor([rule.below(level) for rule in self.rules], dtype=torch.float64)
        ends = ((ends - self.seen[:, under].sum(1, keepdim=True)).mean(0) / rest.mean()).clamp(0, 1)
        errors = (2 * ends * (1 - ends) / (len(self.rules) * (self.size - known + 2))).sqrt()
        low, high = (counted + (self.size - known) * (ends + 1.96 * errors * torch.tensor([-1.0, 1.0]))).tolist()
        method = f"Lanczos quadrature, {len(self.weights)} random columns; standard error and certain bounds"
        return Measurement(
            name,
            value,
            min(value, max(low, least)),
            max(value, min(high, most)),
            unit="eigenvalues",
            method=method,
        )
