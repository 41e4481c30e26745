r"""The excess risk of Bottou and Bousquet 2008, split into approximation, estimation and optimisation, all three exact.

The population is a finite pool of samples, so every risk is a mean that is computed, not estimated. With the class of
linear functions of N random ReLU features (and a constant) and the squared loss 1/2 ||f(x) - y||^2, one-hot y:
    f_F  the best of the class on the pool;  f_n  the best on n samples drawn from it with replacement (least norm);
    f    what `steps` steps of gradient descent from 0 on these n samples have reached;
    R(f) = R(f_F)  +  [R(f_n) - R(f_F)]  +  [R(f) - R(f_n)] = approximation + estimation + optimisation.
The least possible risk of a pool of distinct samples is 0, so R(f) is the excess itself. Optimisation may be negative:
steps that stop early regularise. More features lower the first term and, up to N = n, raise the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.exhibit import Curve, Line
from whydeep.core.loss import one_hot
from whydeep.core.randomness import or_default


@dataclass(frozen=True)
class ExcessRisk:
    """The three parts for each number of features, means over the draws of samples and features."""

    widths: Sequence[int]
    approximation: Sequence[float]
    estimation: Sequence[float]
    optimisation: Sequence[float]
    samples: int
    pool: int

    @property
    def total(self) -> tuple[float, ...]:
        """R(f), the sum of the three, for each number of features."""
        parts = zip(self.approximation, self.estimation, self.optimisation, strict=True)
        return tuple(sum(three) for three in parts)

    @property
    def best(self) -> int:
        """The number of features with the least approximation + estimation, the trade-off of capacity."""
        fitted = [a + e for a, e in zip(self.approximation, self.estimation, strict=True)]
        return min(zip(fitted, self.widths, strict=True))[1]

    def curve(self) -> Curve:
        """Return the three parts and their sum against the number of features."""
        return Curve(
            title=f"Excess risk on {self.samples} samples of a population of {self.pool:,}",
            x_label="random features (log scale)",
            y_label="squared loss",
            lines=(
                Line("approximation", self.widths, self.approximation, marks=True),
                Line("estimation", self.widths, self.estimation, marks=True),
                Line("optimisation", self.widths, self.optimisation, marks=True),
                Line("sum", self.widths, self.total, role="reference"),
            ),
            alt=f"Approximation falls from {self.approximation[0]:.2g} to {self.approximation[-1]:.2g} as features are "
            f"added; with estimation it is least at {self.best} features.",
            x_log=True,
        )


def split_excess_risk(
    pool: Data,
    *,
    widths: Sequence[int],
    samples: int,
    steps: int = 100,
    draws: int = 3,
    generator: torch.Generator | None = None,
) -> ExcessRisk:
    """Return the split on `samples` samples drawn from `pool`, for each number of random features.

    steps: of gradient descent, step size 1 / largest curvature. Raises `ValueError` on empty or non-positive numbers,
    `DataError` on data without targets. Cost: two singular value decompositions (pool, N) each.
    """
    if not widths or min(widths) < 1 or samples < 1 or draws < 1 or steps < 0:
        raise ValueError(
            f"widths={list(widths)}, samples={samples}, draws={draws}, steps={steps}; give numbers of at least 1"
        )
    generator = or_default(generator)
    x = pool.in_memory().x
    assert isinstance(x, Tensor)
    flat = x.flatten(1).double().cpu()
    y = one_hot(pool.targets.cpu(), torch.empty(0, pool.outputs)).double()
    parts = torch.zeros(len(widths), 3, dtype=torch.float64)
    for _ in range(draws):
        v = torch.randn(max(widths), flat.shape[1], generator=generator, dtype=torch.float64)
        v /= v.norm(dim=1, keepdim=True)
        chosen = torch.randint(len(flat), (samples,), generator=generator)
        for row, width in enumerate(widths):
            phi = torch.relu(flat @ v[:width].T)
            phi = torch.cat([phi, torch.ones(len(phi), 1, dtype=torch.float64)], 1)
            risks = [
                float(0.5 * (phi @ w - y).square().sum(1).mean())
                for w in (
                    least_norm(phi, y),
                    least_norm(phi[chosen], y[chosen]),
                    descended(phi[chosen], y[chosen], steps),
                )
            ]
            parts[row] += torch.tensor([risks[0], risks[1] - risks[0], risks[2] - risks[1]]).double() / draws
    approximation, estimation, optimisation = parts.T.tolist()
    return ExcessRisk(tuple(widths), approximation, estimation, optimisation, samples, len(flat))


def least_norm(phi: Tensor, y: Tensor) -> Tensor:
    """Return the least-squares weights (N, k) of least norm for features (n, N) and targets (n, k)."""
    weights: Tensor = torch.linalg.pinv(phi, rtol=1e-10) @ y
    return weights


def descended(phi: Tensor, y: Tensor, steps: int) -> Tensor:
    """Return the weights after `steps` gradient steps from 0 on 1/(2n) ||phi w - y||^2, step size 1/largest curvature.

    In the basis of singular vectors a step shrinks what is missing by 1 - s^2/s_1^2, so all are taken at once.
    """
    u, s, vh = torch.linalg.svd(phi, full_matrices=False)
    share = 1 - (1 - (s / s[0]).square()) ** steps
    kept = s > 1e-12 * s[0]
    weights: Tensor = vh.T @ (torch.where(kept, share / s, 0.0)[:, None] * (u.T @ y))
    return weights
