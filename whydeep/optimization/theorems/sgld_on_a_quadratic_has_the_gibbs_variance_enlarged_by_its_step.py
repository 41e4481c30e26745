"""SGLD on a quadratic settles at the Gibbs variance, enlarged by what its step size adds.

On F(w) = a w^2 / 2 the update w <- w - eta a w + sqrt(2 eta / beta) z has the stationary variance

    1 / (beta a (1 - eta a / 2)),

that of the Gibbs density exp(-beta F) times 1 / (1 - eta a / 2).

Proof: a stationary variance v satisfies v = (1 - eta a)^2 v + 2 eta / beta, so
v = (2 eta / beta) / (2 eta a - eta^2 a^2). It is reached when 0 < eta a < 2, from w = 0 as
v (1 - (1 - eta a)^(2 k)) after k steps.

Source: the slide "Distinctions of SGLD" (its distribution converges to the Gibbs density); the variance at a finite
step size is the recursion above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.optimization.langevin.sgld import SGLD

# Four standard deviations on either side: a correct estimate misses its interval with probability 6.3e-5.
DEVIATIONS = 4.0
CONFIDENCE = 1 - 2 * float(stats.norm.sf(DEVIATIONS))


@dataclass(frozen=True)
class Case:
    """Independent chains that start at w = 0 on F(w) = curvature w^2 / 2.

    noise: the factor of the noise's variance 2 eta / beta; 1 is the lecture's.
    """

    curvature: float = 2.0
    step_size: float = 0.25
    beta: float = 3.0
    chains: int = 20_000
    steps: int = 40
    noise: float = 1.0


def stable(case: Case) -> bool:
    """Whether 0 < eta a < 2: otherwise the chains leave every bounded set."""
    return 0 < case.step_size * case.curvature < 2


def burnt_in(case: Case) -> bool:
    """Whether the start's share of the variance, (1 - eta a)^(2 k), is below a tenth of the tolerance."""
    return abs(1 - case.step_size * case.curvature) ** (2 * case.steps) < 0.1 * _relative_tolerance(case)


def _relative_tolerance(case: Case) -> float:
    # The mean of m squared Gaussians has a relative standard deviation of sqrt(2 / m). The interval reaches DEVIATIONS
    # of them from an estimate that may itself be as far off: twice that. With 20,000 chains it is 8 %, so that half
    # the noise (50 % less), or the Gibbs value without the step's share (25 % less here), lies far outside.
    return 2 * DEVIATIONS * math.sqrt(2 / case.chains)


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return 1 / (beta a (1 - eta a / 2))."""
    gibbs = 1 / (case.beta * case.curvature)
    value = gibbs / (1 - case.step_size * case.curvature / 2)
    constants = {"a": case.curvature, "eta": case.step_size, "beta": case.beta, "Gibbs variance": gibbs}
    return Prediction("equals", value, tolerance=_relative_tolerance(case) * abs(value), constants=constants)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Run the chains through the optimizer, one coordinate a chain, and return their mean square at the end.

    By symmetry the mean is zero, so m times the mean square over the variance is chi-square with m degrees of freedom.
    """
    chains = torch.nn.Parameter(torch.zeros(case.chains, dtype=torch.float64))
    optimizer = SGLD([chains], case.step_size, beta=case.beta / case.noise, generator=generator)
    for _ in range(case.steps):
        optimizer.zero_grad()
        (case.curvature / 2 * chains.square()).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    square = float(chains.detach().square().mean())
    tail = (1 - CONFIDENCE) / 2
    return Measurement(
        "stationary variance",
        square,
        case.chains * square / float(stats.chi2.isf(tail, case.chains)),
        case.chains * square / float(stats.chi2.ppf(tail, case.chains)),
        confidence=CONFIDENCE,
        method=f"chi-square, {case.chains:,} independent chains",
        evaluations=case.steps,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="On F(w) = a w^2 / 2 the stationary variance of SGLD is 1 / (beta a (1 - eta a / 2)): "
    "that of the Gibbs density, enlarged by its step.",
    source='Slide "Distinctions of SGLD"; Welling and Teh 2011; the factor of the step from the variance recursion.',
    assumptions={"stable step, 0 < eta a < 2": stable, "burnt in": burnt_in},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Three small steps from zero: (1 - (1 - 0.1)^6) = 47 % of the stationary variance.
    fails_on=lambda: Case(step_size=0.05, steps=3),
    # sqrt(eta / beta) z in place of sqrt(2 eta / beta) z, the factor most often got wrong.
    corrupted=lambda: Case(noise=0.5),
    convincing=lambda: Case(chains=1_000_000),
)
