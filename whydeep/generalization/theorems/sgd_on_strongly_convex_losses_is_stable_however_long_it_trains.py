"""On strongly convex losses the stability of SGD does not depend on how long it trains: 2 L^2 / (gamma n).

Statement: for gamma-strongly convex, B-smooth losses that are L-Lipschitz on a convex set to which the weights are
projected, and a constant step eta <= 1/B, one sample a step, replacing one of n samples changes the expected loss at
any point by at most 2 L^2 / (gamma n), after any number of steps.
Source: Hardt, Recht and Singer 2016, "Train faster, generalize better", Theorem 3.9 (number recalled, not checked
against the paper; the proof is in whydeep.generalization.certificates.stability).
Assumptions: strong convexity with gamma; eta <= 1/B.

The case: (w - z)^2 / 2 on [-1, 1] with z in [-1, 1]: gamma = B = 1 and L = 2. The replaced sample is 1 against -1, the
others 0. Twins end 2/n apart on average, and at z = -1 the losses differ by about as much: a quarter of the bound 8/n.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, mean
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.stability import strongly_convex_stability
from whydeep.generalization.experiments.twin_training import twin_training

CONFIDENCE = 1 - 2 * float(stats.norm.sf(4))
"""That of four standard deviations."""


@dataclass(frozen=True)
class Case:
    """Twin chains with shared indices. curvature: of the loss, where the bound is told 1.

    favour: how much more often than 1/n the replaced sample is drawn; 1 is right.
    """

    samples: int = 50
    step_size: float = 0.1
    steps: int = 300
    chains: int = 4000
    curvature: float = 1.0
    favour: float = 1.0


def strongly_convex(case: Case) -> bool:
    """Whether the losses curve by at least the gamma = 1 that the bound is told."""
    return case.curvature >= 1


def short_steps(case: Case) -> bool:
    """Whether eta <= 1/B with B = 1."""
    return case.step_size <= 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """2 L^2 / (gamma n) with L = 2, gamma = B = 1."""
    bound = strongly_convex_stability(case.step_size, n=case.samples, lipschitz=2.0, smoothness=1.0, convexity=1.0)
    return Prediction("at most", bound, constants={"n": case.samples, "L": 2.0, "gamma": 1.0})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """E |loss(w) - loss(w')| at the worst of the points z = -1, 0, 1.

    Without curvature (losses -z w) twins drift apart until the walls of the set stop them: 7 times the bound. Weighted
    by 12 the replaced sample makes up a fifth of all draws in place of a fiftieth, and the losses differ by 2.5 times
    the bound in place of .25. Of 4,000 chains the standard deviation of the mean is below 3 % of it.
    """
    z = torch.zeros(case.samples, dtype=torch.float64)
    z[0] = 1.0
    w, twin = twin_training(
        lambda w, z: (w - case.step_size * (case.curvature * w - z)).clamp(-1, 1),
        z,
        -1.0,
        steps=case.steps,
        chains=case.chains,
        generator=generator,
        favour=case.favour,
    )
    # The loss is curvature w^2 / 2 - z w + z^2 / 2.
    by_point = [(case.curvature * (w.square() - twin.square()) / 2 - z * (w - twin)).abs() for z in (-1.0, 0.0, 1.0)]
    worst = max(by_point, key=lambda difference: float(difference.mean()))
    return mean("difference of the losses", worst, confidence=CONFIDENCE)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="On gamma-strongly convex losses, replacing one sample moves the loss after SGD by at most "
    "2 L^2 / (gamma n), however long it trains.",
    source='Hardt, Recht and Singer 2016, "Train faster, generalize better"',
    assumptions={"strongly convex losses": strongly_convex, "steps of at most 1/B": short_steps},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(curvature=0.0),
    corrupted=lambda: Case(favour=12.0),
    convincing=lambda: Case(chains=100_000, steps=3000),
)
