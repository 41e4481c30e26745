"""With a fixed number of weights the generalization gap falls like 1/n, faster than the 1/sqrt(n) of capacity bounds.

Statement: for least squares with d features and independent noise, E gap = s^2 d/n + s^2 d/(n - d - 1) is of order
1/n: over sample sizes far above d the exponent of the gap in n tends to -1.
Source: slide "Stability" (bounds of order 1/n); Breiman and Freedman 1983 for the exact gap.
Assumptions: the number of weights stays the same as n grows; the fit is exact.

The finite sizes bend the line: between n = 10 d and 80 d the exact formula itself has a slope near -1.03, inside
the tolerance 0.15; an exponent of -1/2 is far outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Gaussian features, `features(n)` = features (n / sizes[0])^growth; `draws` data sets a size.

    floor: a constant added to every gap, that of a risk that no fit reaches.
    """

    sizes: tuple[int, ...]
    features: int
    draws: int
    growth: float = 0.0
    floor: float = 0.0


def weights_stay(case: Case) -> bool:
    """Whether the number of weights does not grow with n."""
    return case.growth == 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Exponent -1 within 0.15."""
    return Prediction("grows like", -1.0, tolerance=0.15)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Slope of ln(mean gap) against ln n; its interval from the standard errors of the means, by the delta method."""
    logs, variances = [], []
    for n in case.sizes:
        d = round(case.features * (n / case.sizes[0]) ** case.growth)
        x = torch.randn(case.draws, n, d, generator=generator, dtype=torch.float64)
        y = torch.randn(case.draws, n, 1, generator=generator, dtype=torch.float64)  # w* = 0 and s = 1
        q, r = torch.linalg.qr(x)
        w = torch.linalg.solve_triangular(r, q.mT @ y, upper=True)
        gap = 1 + w.square().sum((1, 2)) - (y - x @ w).square().mean((1, 2)) + case.floor
        # The noise's own mean square, 1 on average, moves the training error alike: subtracted, it adds no noise.
        gap = gap + y.square().mean((1, 2)) - 1
        centre = float(gap.mean())
        logs.append(math.log(max(centre, 1e-300)))
        variances.append(float(gap.var()) / case.draws / centre**2)
    points = np.log(np.asarray(case.sizes, dtype=float))
    weights = (points - points.mean()) / ((points - points.mean()) ** 2).sum()
    slope = float(weights @ np.asarray(logs))
    half = float(stats.norm.ppf(0.975) * math.sqrt(float(weights**2 @ np.asarray(variances))))
    return Measurement("exponent", slope, slope - half, slope + half, method="log-log slope, delta method")


def holds_on() -> Case:
    """d = 5, n from 50 to 400; a gap has relative standard deviation near 0.7, of 1,500 draws 0.02: slope within 0.012.

    The exact slope is -1.03, 0.11 inside the tolerance: 9 standard deviations.
    """
    return Case(sizes=(50, 100, 200, 400), features=5, draws=1_500)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="With a fixed number of weights the generalization gap of least squares falls like 1/n.",
    source='Slide "Stability"; Breiman and Freedman 1983',
    assumptions={"the number of weights stays the same": weights_stay, "the fit is exact": None},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), growth=0.5, draws=500),
    corrupted=lambda: replace(holds_on(), floor=0.05),
    convincing=lambda: Case(sizes=(100, 200, 400, 800), features=5, draws=4_000),
)
