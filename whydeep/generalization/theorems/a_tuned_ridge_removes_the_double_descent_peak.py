"""With the best ridge the error at the interpolation threshold is finite and known: the peak of double descent is gone.

Statement: n = d samples y = w'x + noise, x from N(0, I), w random with E ||w||^2 = r^2, noise variance s^2. The ridge
with n lambda = d s^2/r^2 is the best, and for large d at aspect ratio gamma = d/n its excess risk tends to
    s^2 gamma m(-lambda),  m(-z) = (-(1 - gamma + z) + sqrt((1 - gamma + z)^2 + 4 gamma z)) / (2 gamma z);
at gamma = 1, r = s = 1 this is (sqrt(5) - 1)/2 = 0.618, where least squares without ridge has an infinite mean.
Source: Dobriban and Wager 2018, Theorem 2.1; Hastie, Montanari, Rosset and Tibshirani 2022 (recalled, not checked
against the papers; m is the Stieltjes transform of the Marchenko-Pastur law).
Assumptions: the features are independent and of the same variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, mean
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """n = d = size, r = s = 1. ridge: n lambda in units of the best.

    loud: fraction of features of ten times the others' variance; the mean variance stays 1.
    """

    size: int
    draws: int
    ridge: float = 1.0
    loud: float = 0.0


def features_are_alike(case: Case) -> bool:
    """Whether all features have the same variance."""
    return case.loud == 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """0.618 at gamma = lambda = 1, within 0.03 for the finite size."""
    gamma = z = 1.0
    a = 1 - gamma + z
    m = (-a + math.sqrt(a * a + 4 * gamma * z)) / (2 * gamma * z)
    return Prediction("equals", gamma * m, tolerance=0.03)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The mean of (w - w*)' S (w - w*) over draws of fits by the normal equations, S the variances of the features."""
    n = d = case.size
    variance = torch.ones(d, dtype=torch.float64)
    variance[: round(case.loud * d)] = 10.0
    variance /= variance.mean()
    x = torch.randn(case.draws, n, d, generator=generator, dtype=torch.float64) * variance.sqrt()
    truth = torch.randn(case.draws, d, 1, generator=generator, dtype=torch.float64) / math.sqrt(d)
    y = x @ truth + torch.randn(case.draws, n, 1, generator=generator, dtype=torch.float64)
    matrix = x.mT @ x + case.ridge * d * torch.eye(d, dtype=torch.float64)
    w = torch.linalg.solve(matrix, x.mT @ y)
    return mean("excess risk", ((w - truth).square() * variance[:, None]).sum((1, 2)))


def holds_on() -> Case:
    """d = 60: the excess of a draw has standard deviation 0.12, the mean of 1,200 draws 0.0035, half-interval 0.007.

    The finite size moves the mean by less than 0.01 (1/d of it). The interval leaves 0.618 +- 0.03 when it is off by
    0.013, 3.7 standard deviations: probability 1e-4. A thousandth of the ridge gives an excess above 10.
    """
    return Case(size=60, draws=1_200)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="With the best ridge the excess risk at as many features as samples is finite, s^2 m(-lambda).",
    source='Dobriban and Wager 2018; Hastie et al. 2022; slide "Big model should fail!"',
    assumptions={"features have the same variance": features_are_alike},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), loud=0.1),
    corrupted=lambda: replace(holds_on(), ridge=1e-3, draws=200),
    convincing=lambda: Case(size=200, draws=400),
)
