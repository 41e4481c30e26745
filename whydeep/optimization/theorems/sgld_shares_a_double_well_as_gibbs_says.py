"""SGLD with small steps stays in each well of an energy as often as the Gibbs density exp(-beta F) says.

Statement: the stationary density of dw = -F'(w) dt + sqrt(2 / beta) dB is proportional to exp(-beta F(w)); SGLD is its
discretisation, whose stationary density differs by a term of the order of the step size. For F a double well with a
tilt, the fraction of time in the deeper well is int_left exp(-beta F) / int exp(-beta F).
Source: the slide "Distinctions of SGLD"; Raginsky, Rakhlin and Telgarsky 2017.
Assumptions: the wells have exchanged their chains often enough by the end (Kramers), and the steps are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.optimization.langevin.double_well import DoubleWell, settled
from whydeep.optimization.langevin.kramers import kramers_time

CONFIDENCE = 1 - 2 * float(stats.norm.sf(4.0))
# Discretisation: the order eta F'' of the wells' widths, of which only the difference between the wells counts. By
# comparison of step sizes .02 and .01 on 10^6 chains it is below .003 at beta = 4.
DISCRETISATION = 0.005


@dataclass(frozen=True)
class Case:
    """Chains that start on the barrier, in a tilted double well. noise: factor of the noise's variance; 1 is right."""

    tilt: float = 0.2
    beta: float = 3.0
    step_size: float = 0.02
    time: float = 24.0
    chains: int = 20_000
    noise: float = 1.0


def exchanged(case: Case) -> bool:
    """Whether the time is four relaxation times: chains change wells at the rates 1 / (2 T) of both sides together."""
    rates = [1 / (2 * kramers_time(DoubleWell(sign * case.tilt), beta=case.beta)) for sign in (-1, 1)]
    return case.time * sum(rates) >= 4


def small_steps(case: Case) -> bool:
    """Whether eta F'' is at most .05 in the wells, where F'' is about 2."""
    return 2 * case.step_size <= 0.05


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The mass of the left well by quadrature.

    Tolerance: an estimate from m chains has a standard deviation of at most 1 / (2 sqrt m), and the interval reaches
    four of them beyond it: twice that, and the discretisation.
    """
    well = DoubleWell(case.tilt)
    value = well.mass(-math.inf, well.critical_points[1], beta=case.beta)
    return Prediction(
        "equals",
        value,
        tolerance=2 * 4.0 / (2 * math.sqrt(case.chains)) + DISCRETISATION,
        constants={"tilt": case.tilt, "beta": case.beta, "eta": case.step_size},
    )


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of chains in the left well at the end."""
    well = DoubleWell(case.tilt)
    places = settled(
        well,
        beta=case.beta / case.noise,
        lr=case.step_size,
        time=case.time,
        chains=case.chains,
        generator=generator,
    )
    left = int((places < well.critical_points[1]).sum())
    return proportion("fraction in the left well", left, case.chains, confidence=CONFIDENCE)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="SGLD with small steps stays in each well of a double well as often as the Gibbs density says.",
    source='Slide "Distinctions of SGLD"; Raginsky, Rakhlin and Telgarsky 2017',
    assumptions={"the wells exchange their chains in time": exchanged, "small steps": small_steps},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Too short: half the chains fell to either side, and few have come back.
    fails_on=lambda: Case(time=1.0),
    # sqrt(eta / beta) z in place of sqrt(2 eta / beta) z: twice as cold.
    corrupted=lambda: Case(noise=0.5, beta=1.5),
    convincing=lambda: Case(chains=100_000, step_size=0.01),
)
