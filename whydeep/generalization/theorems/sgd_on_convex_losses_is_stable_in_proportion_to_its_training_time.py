"""Train faster, generalize better: on convex losses SGD moves by at most 2 L^2 / n times the sum of its step sizes.

Statement: for convex, L-Lipschitz, B-smooth losses and steps eta_t <= 2/B, one sample a step, replacing one of n
samples changes the expected loss at any point by at most 2 L^2 / n sum_t eta_t.
Source: Hardt, Recht and Singer 2016, "Train faster, generalize better", Theorem 3.8 (number recalled, not checked
against the paper; the proof is in whydeep.generalization.certificates.stability).
Assumptions: convexity; L; steps of at most 2/B; indices drawn uniformly.

The case is nearly the worst: Huber's loss h(w - z), quadratic within 1 and linear outside (L = B = 1), with samples far
from where the weights go, so that gradients are -1 and the weights go from 0 to 1; in the other set the replaced sample
lies at 0, with gradients that go from 0 to 1. Twins then are 1.5 eta further apart on average each time it is drawn:
.75 of the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, mean
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.stability import convex_stability
from whydeep.generalization.experiments.twin_training import twin_training

CONFIDENCE = 1 - 2 * float(stats.norm.sf(4))
"""That of four standard deviations."""


@dataclass(frozen=True)
class Case:
    """Twin chains with shared indices. convex: else the loss is -h, which drives twins apart.

    favour: how much more often than 1/n the replaced sample is drawn; 1 is right.
    """

    samples: int = 20
    step_size: float = 0.02
    steps: int = 50
    chains: int = 4000
    convex: bool = True
    favour: float = 1.0


def convex(case: Case) -> bool:
    """Whether every sample's loss is convex in the weights."""
    return case.convex


def short_steps(case: Case) -> bool:
    """Whether eta <= 2/B with B = 1."""
    return case.step_size <= 2


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """2 L^2 / n sum eta with L = B = 1."""
    bound = convex_stability([case.step_size] * case.steps, n=case.samples, lipschitz=1.0, smoothness=1.0)
    return Prediction("at most", bound, constants={"n": case.samples, "sum of step sizes": case.step_size * case.steps})


def _slope(residual: Tensor, case: Case) -> Tensor:
    """The derivative of Huber's loss, or of its negative."""
    return residual.clamp(-1, 1) if case.convex else -residual.clamp(-1, 1)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The mean difference of the loss at a far point, where it is linear and the difference is the twins' distance.

    Convex: .75 of the bound. Drawn three times as often: about 2 times it. Not convex: the samples lie within the
    quadratic part, where distances grow by 1 + eta a step. The number of draws is binomial, 2.5 on average, so the
    mean of 4,000 has a standard deviation below 2.5 % of itself, and four of them are 10 %.
    """
    n = case.samples
    z = torch.full((n,), 10.0, dtype=torch.float64) if case.convex else torch.linspace(-0.5, 0.5, n).double()
    w, twin = twin_training(
        lambda w, z: w - case.step_size * _slope(w - z, case),
        z,
        0.0 if case.convex else float(z[0]) + 1.0,
        steps=case.steps,
        chains=case.chains,
        generator=generator,
        favour=case.favour,
    )
    # At a far point the loss has slope +-1, so the losses differ as the weights do.
    return mean("difference of the losses", (w - twin).abs(), confidence=CONFIDENCE)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="On convex losses, replacing one sample moves the loss after SGD by at most 2 L^2 / n times the sum of "
    "the step sizes.",
    source='Hardt, Recht and Singer 2016, "Train faster, generalize better"',
    assumptions={"convex losses": convex, "steps of at most 2/B": short_steps},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(convex=False, step_size=0.1),
    corrupted=lambda: Case(favour=3.0),
    convincing=lambda: Case(chains=100_000),
)
