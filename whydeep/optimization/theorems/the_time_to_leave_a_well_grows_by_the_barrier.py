"""The time that Langevin dynamics needs to leave a well grows like e^(beta times the barrier's height).

Statement (Kramers): for a high barrier, beta dF >> 1, the mean time from a minimum of F to the top of the barrier is
pi / sqrt(F''(minimum) |F''(top)|) e^(beta dF), so ln T grows by dF for each unit of beta.
Source: Kramers 1940; the lecture's slides on SGLD (escape from local minima).
Assumption: the barrier is high. Steps are watched only at their ends, which lengthens T by a factor
1 + erf(.5826 sqrt(eta)) that does not depend on beta, and F' = 0 at both ends keeps the step's first order out of dF.

Exact first-passage times (quadrature) have the slope .2497 between beta = 8 and 16, where dF = .25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.optimization.langevin.chains import run_chains
from whydeep.optimization.langevin.double_well import DoubleWell

DEVIATIONS = 4.0
CONFIDENCE = 1 - 2 * float(stats.norm.sf(DEVIATIONS))


@dataclass(frozen=True)
class Case:
    """Chains from the left minimum at two temperatures. noise: factor of the noise's variance; 1 is the lecture's."""

    betas: tuple[float, float] = (8.0, 16.0)
    step_size: float = 0.05
    times: tuple[float, float] = (30.0, 150.0)
    chains: int = 1500
    noise: float = 1.0


def high_barrier(case: Case) -> bool:
    """Whether beta dF is at least 2 at both temperatures."""
    return min(case.betas) * 0.25 >= 2


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The barrier's height, F(0) - F(-1) = 1/4.

    Tolerance: about 1,000 chains leave at either temperature, so the slope's standard deviation is
    sqrt(2 / 1,000) / 8 = .0056. The interval reaches 4 of them from an estimate that may itself be 4 off (probability
    6e-5): 8 in all. Kramers' own error, .0003, is far below one.
    """
    deviation = math.sqrt(2 / (0.67 * case.chains)) / 8  # two thirds of the chains leave
    return Prediction("equals", 0.25, tolerance=2 * DEVIATIONS * deviation, constants={"barrier": 0.25})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The slope of ln T: T = time spent before leaving / chains that left, exact for exponential times.

    Its logarithm has the standard deviation 1 / sqrt(chains that left).
    """
    logs, variance = [], 0.0
    for beta, time in zip(case.betas, case.times, strict=True):
        left, spent = _watched(case, beta, time, generator)
        logs.append(math.log(spent / max(1, left)))
        variance += 1 / max(1, left)
    span = case.betas[1] - case.betas[0]
    slope, half = (logs[1] - logs[0]) / span, DEVIATIONS * math.sqrt(variance) / span
    return Measurement("slope of ln T", slope, slope - half, slope + half, confidence=CONFIDENCE)


def _watched(case: Case, beta: float, time: float, generator: torch.Generator) -> tuple[int, float]:
    """How many chains passed the top within `time`, and the time that all spent before it."""
    inside = torch.ones(case.chains, dtype=torch.bool)
    spent = 0

    def watch(step: int, places: Tensor) -> bool:
        nonlocal inside, spent
        spent += int(inside.sum())
        inside &= places <= 0
        return not bool(inside.any())

    run_chains(
        DoubleWell().force,
        torch.full((case.chains,), -1.0, dtype=torch.float64),
        lr=case.step_size,
        beta=beta / case.noise,
        steps=math.ceil(time / case.step_size),
        generator=generator,
        watch=watch,
    )
    return case.chains - int(inside.sum()), spent * case.step_size


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The logarithm of the time that Langevin dynamics needs to leave a well grows by the barrier's height "
    "for each unit of the inverse temperature.",
    source='Kramers 1940, "Brownian motion in a field of force"',
    assumptions={"the barrier is high, beta dF >= 2": high_barrier},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(betas=(1.0, 2.0), times=(30.0, 30.0)),
    # Half the noise's variance: the barrier seems twice as high.
    corrupted=lambda: Case(noise=0.5),
    convincing=lambda: Case(chains=6000),
)
