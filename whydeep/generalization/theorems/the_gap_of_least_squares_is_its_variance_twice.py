"""The generalization gap of least squares is s^2 d/n on the training side and s^2 d/(n - d - 1) on the test side.

Statement: y = w'x + noise, x from N(0, I_d), noise of variance s^2 independent of x, n > d + 1, w fitted by least
squares:
    E training error = s^2 (1 - d/n),  E test error = s^2 (1 + d/(n - d - 1)),
so the expected gap is s^2 d/n + s^2 d/(n - d - 1), about 2 s^2 d/n: it falls like 1/n, not like 1/sqrt(n).
Proof: the residual is the noise projected onto n - d dimensions; w - w* has covariance s^2 (X'X)^-1, whose expected
trace is that of an inverse Wishart matrix, d/(n - d - 1).
Source: Breiman and Freedman 1983 (recalled, not checked against the paper; the proof is above); slide "Generalization
Error".
Assumptions: features and noise are as stated; the noise does not depend on x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, mean
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """`draws` data sets. grows: noise of standard deviation proportional to ||x||^2, its mean square still s^2.

    shrink: a factor on the fitted weights; 1 is least squares.
    """

    samples: int
    features: int
    draws: int
    noise: float = 1.0
    grows: bool = False
    shrink: float = 1.0


def noise_is_independent(case: Case) -> bool:
    """Whether the noise has the same variance everywhere."""
    return not case.grows


def there_are_enough_samples(case: Case) -> bool:
    """Whether n > d + 1, so that the expectation exists."""
    return case.samples > case.features + 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """s^2 d/n + s^2 d/(n - d - 1), within 4 %."""
    n, d, variance = case.samples, case.features, case.noise**2
    inside, outside = variance * d / n, variance * d / (n - d - 1)
    constants = {"training side": inside, "test side": outside}
    return Prediction("equals", inside + outside, tolerance=0.04 * (inside + outside), constants=constants)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The mean of test minus training error of fits by QR; given the weights, the former is s^2 + ||w - w*||^2."""
    n, d = case.samples, case.features
    x = torch.randn(case.draws, n, d, generator=generator, dtype=torch.float64)
    noise = case.noise * torch.randn(case.draws, n, 1, generator=generator, dtype=torch.float64)
    if case.grows:
        size = x.square().sum(2, keepdim=True)
        noise = noise * size / (d * (d + 2)) ** 0.5  # E ||x||^4 = d (d + 2)
    truth = torch.ones(d, 1, dtype=torch.float64)
    y = x @ truth + noise
    q, r = torch.linalg.qr(x)
    w = case.shrink * torch.linalg.solve_triangular(r, q.mT @ y, upper=True)
    inside = (y - x @ w).square().mean((1, 2))
    outside = case.noise**2 + (w - truth).square().sum((1, 2))
    return mean("generalization gap", outside - inside)


def holds_on() -> Case:
    """n = 30, d = 5: gap 5/30 + 5/24 = 0.375, tolerance 0.015.

    The gap of one draw has standard deviation about 0.32 (most of it that of the residual's mean square, sqrt(2/n)):
    40,000 draws give 0.0016, half-interval 0.0032, so the interval is inside unless off by 7 of them.
    """
    return Case(samples=30, features=5, draws=40_000)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The expected generalization gap of least squares is s^2 d/n + s^2 d/(n - d - 1).",
    source='Breiman and Freedman 1983; slide "Generalization Error"',
    assumptions={"the noise is independent of x": noise_is_independent, "n > d + 1": there_are_enough_samples},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), grows=True),
    corrupted=lambda: replace(holds_on(), shrink=0.9),
    convincing=lambda: Case(samples=200, features=20, draws=20_000),
)
