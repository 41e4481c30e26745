"""The local entropy of a quadratic is a quadratic with softened curvature, and a term that counts the volume.

Statement: for f(y) = sum_i a_i y_i^2 / 2 and a window of gamma at inverse temperature beta,

    F(x) = -1/beta log E exp(-beta f(x + z)), z ~ N(0, I / (beta gamma))
         = sum_i [ a_i gamma / (a_i + gamma) x_i^2 / 2 + log(1 + a_i / gamma) / (2 beta) ].

Proof: complete the square in every coordinate. The first term is the Moreau envelope, with g = 1 / gamma.
Source: Chaudhari et al. (2017), Entropy-SGD, and (2018), Deep Relaxation; lecture, "Chaudhari et al." of the overview.
Constants derived here. Assumption: f is quadratic, convex in the window: a_i > -gamma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.local_entropy import local_entropy

# Four standard deviations on either side: a correct estimate misses its interval with probability 6.3e-5.
DEVIATIONS = 4.0
CONFIDENCE = 1 - 2 * float(stats.norm.sf(DEVIATIONS))


@dataclass(frozen=True)
class Case:
    """f(y) = sum_i a_i y_i^2 / 2 + quartic y_i^4 at x = (1, ..., 1).

    window: the factor of the Gaussian's variance 1 / (beta gamma); 1 is the definition's.
    """

    curvatures: tuple[float, ...] = (0.2, 1.0, 3.0)
    gamma: float = 4.0
    beta: float = 0.8
    quartic: float = 0.0
    window: float = 1.0
    samples: int = 400_000


def quadratic(case: Case) -> bool:
    """Whether f has no terms above the second order."""
    return case.quartic == 0


def convex(case: Case) -> bool:
    """Whether every curvature lies above -gamma."""
    return min(case.curvatures) > -case.gamma


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the closed form, coordinate by coordinate."""
    a, gamma = torch.tensor(case.curvatures, dtype=torch.float64), case.gamma
    value = float((a * gamma / (a + gamma) / 2).sum() + torch.log(1 + a / gamma).sum() / (2 * case.beta))
    # 400,000 samples, whose exponents vary by less than 2, give the value to 0.002; twice four deviations are 1 %.
    return Prediction("equals", value, tolerance=0.01 * value, constants={"gamma": gamma, "beta": case.beta})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Average over Gaussian samples around x."""
    a = torch.tensor(case.curvatures, dtype=torch.float64)

    def f(y: Tensor) -> Tensor:
        return (a / 2 * y.square() + case.quartic * y.pow(4)).sum(-1)

    found = local_entropy(
        f,
        torch.ones(len(a), dtype=torch.float64),
        gamma=case.gamma / case.window,
        beta=case.beta,
        samples=case.samples,
        generator=generator,
    ).value
    # The tool's interval reaches 1.96 deviations.
    reach = DEVIATIONS / float(stats.norm.ppf(0.975)) * (found.high - found.value)
    return Measurement(
        found.name,
        found.value,
        found.value - reach,
        found.value + reach,
        confidence=CONFIDENCE,
        method=found.method,
        evaluations=found.evaluations,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The local entropy of a quadratic of curvatures a_i is a quadratic of curvatures "
    "a_i gamma / (a_i + gamma) plus the sum of log(1 + a_i / gamma) / (2 beta).",
    source="Chaudhari et al. (2017), Entropy-SGD; Chaudhari et al. (2018), Deep Relaxation; constants derived",
    assumptions={"f is quadratic": quadratic, "curvatures above -gamma": convex},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(quartic=0.3),
    # A window of twice the variance: the Gaussian's constant got wrong.
    corrupted=lambda: Case(window=2.0),
    convincing=lambda: Case(samples=10_000_000),
)
