"""Replacing one training sample moves the expected loss after Langevin training by at most the stability bound.

Statement: with full gradients, losses in [0, M] and every sample's gradient of norm at most L,

    |E loss(w_N) - E loss(w_N')| <= M L / (sqrt(2) n) sqrt(beta sum eta_k)

for w_N' trained on data with one sample replaced; so the expected generalization gap is at most that.
Source: Mou, Wang, Zhai and Zheng 2018 (the slide's form, where no constant is given); with this constant Theorem 7.23
of Zhang 2023, "Mathematical Analysis of Machine Learning"; derived in whydeep.generalization.certificates.stability.
Assumption: no sample's gradient is longer than L.

The case is nearly the worst one: gradients +-L that do not depend on w, so that w_N and w_N' are Gaussians 2 L T / n
apart with variance 2 T / beta, T = sum eta, and the loss 1[w > c] with c half way: 2 Phi(L sqrt(beta T / 2) / n) - 1,
which is sqrt(2/pi) = .80 of the bound while both are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.stability import langevin_stability
from whydeep.optimization.langevin.sgld import SGLD

DEVIATIONS = 4.0
CONFIDENCE = 1 - 2 * float(stats.norm.sf(DEVIATIONS))


@dataclass(frozen=True)
class Case:
    """n samples z_i = +-1 with the loss L z_i w; the last is 1 in one set and -1 in the other.

    steepness: the length of the gradients over the L that the bound is told. noise: factor of the noise's variance.
    """

    samples: int = 8
    lipschitz: float = 1.5
    beta: float = 4.0
    step_size: float = 0.05
    steps: int = 25
    chains: int = 40_000
    steepness: float = 1.0
    noise: float = 1.0


def gradients_within(case: Case) -> bool:
    """Whether no sample's gradient is longer than L."""
    return case.steepness <= 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The bound from the step sizes, the temperature and L."""
    bound = langevin_stability(
        [(case.step_size, case.beta, case.steps)],
        n=case.samples,
        lipschitz=case.lipschitz,
        batch_size=case.samples,
    )
    return Prediction("at most", bound.value, trivial=1.0, constants={"n": case.samples, "L": case.lipschitz})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The difference of the mean 0-1 losses 1[w > c] of chains on the two sets, each with noise of its own.

    The bound is .2965 and the exact difference .233 in the good case, .325 with half the noise and .447 with gradients
    of twice the length; the standard deviation of the measured difference is at most sqrt(1 / (2 chains)) = .0035, so
    each lies at least eight of them from the bound, and four are the interval.
    """
    z = torch.tensor([1.0, -1.0] * case.samples, dtype=torch.float64)[: case.samples]
    slope = case.steepness * case.lipschitz
    ends = []
    for last in (1.0, -1.0):
        z[-1] = last
        w = torch.nn.Parameter(torch.zeros(case.chains, dtype=torch.float64))
        optimizer = SGLD([w], case.step_size, beta=case.beta / case.noise, generator=generator)
        for _ in range(case.steps):
            w.grad = torch.full_like(w, float((slope * z).mean()))
            optimizer.step()
        ends.append(w.detach())
    middle = float((ends[0].mean() + ends[1].mean()) / 2)
    rates = [float((end > middle).double().mean()) for end in ends]
    value = abs(rates[1] - rates[0])
    half = DEVIATIONS * math.sqrt(sum(rate * (1 - rate) for rate in rates) / case.chains)
    return Measurement("difference of the expected losses", value, value - half, value + half, confidence=CONFIDENCE)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="Replacing one sample moves the expected loss after Langevin training by at most "
    "M L / (sqrt(2) n) sqrt(beta sum eta).",
    source="Mou, Wang, Zhai and Zheng 2018 (slide on the stability of SGLD); Zhang 2023, Theorem 7.23",
    assumptions={"no sample's gradient is longer than L": gradients_within},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(steepness=2.0),
    corrupted=lambda: Case(noise=0.5),
    convincing=lambda: Case(chains=1_000_000),
)
