"""Mini-batches heat SGLD: the temperature is 1/beta + eta s2 / 2, s2 the variance of a batch's gradient.

On the loss (w - x)^2 / 2 over samples x of variance S2, a batch of b drawn anew from n samples without replacement has
the gradient w - mean(batch), of variance s2 = S2 / b (n - b) / (n - 1) about the full one (S2 with 1/n). A stationary
variance v satisfies v = (1 - eta)^2 v + eta^2 s2 + 2 eta / beta, so

    v = (eta^2 s2 + 2 eta / beta) / (1 - (1 - eta)^2) = (1 / beta + eta s2 / 2) / (1 - eta / 2).

Source: the recursion above; the slide "Distinctions of SGLD" (full and mini-batch gradients).
Assumptions: the step is stable, and every step draws its batch anew, so that its noise is independent of the last.
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

DEVIATIONS = 4.0
CONFIDENCE = 1 - 2 * float(stats.norm.sf(DEVIATIONS))


@dataclass(frozen=True)
class Case:
    """Independent chains, each with its own batches. reuse: for how many steps a batch is kept."""

    samples: int = 8
    batch: int = 2
    step_size: float = 0.3
    beta: float = 10.0
    chains: int = 20_000
    steps: int = 40
    reuse: int = 1
    noise: float = 1.0


def stable(case: Case) -> bool:
    """Whether 0 < eta < 2, and the start is forgotten to (1 - eta)^(2 k) < .001."""
    return 0 < case.step_size < 2 and abs(1 - case.step_size) ** (2 * case.steps) < 1e-3


def drawn_anew(case: Case) -> bool:
    """Whether every step has a batch of its own."""
    return case.reuse == 1


def _samples(case: Case) -> torch.Tensor:
    """Evenly spaced in [-1, 1]: their mean is zero."""
    return torch.linspace(-1, 1, case.samples, dtype=torch.float64)


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """(1 / beta + eta s2 / 2) / (1 - eta / 2), with twice four relative standard deviations sqrt(2 / m)."""
    n, b = case.samples, case.batch
    # Evenly spaced points have the variance (n + 1) / (3 (n - 1)), with 1/n.
    s2 = (n + 1) / (3 * (n - 1)) / b * (n - b) / (n - 1)
    value = (1 / case.beta + case.step_size * s2 / 2) / (1 - case.step_size / 2)
    # Chains are not quite Gaussian: bounded batch noise makes their squares vary less, not more.
    tolerance = 2 * DEVIATIONS * math.sqrt(2 / case.chains) * value
    return Prediction("equals", value, tolerance=tolerance, constants={"s2": s2, "1 / beta": 1 / case.beta})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Run the chains through the optimizer; the batch's mean is taken over samples that were really drawn."""
    x = _samples(case)
    chains = torch.nn.Parameter(torch.zeros(case.chains, dtype=torch.float64))
    optimizer = SGLD([chains], case.step_size, beta=case.beta / case.noise, generator=generator)
    means = torch.zeros(case.chains, dtype=torch.float64)
    for step in range(case.steps):
        if step % case.reuse == 0:
            order = torch.rand(case.chains, case.samples, generator=generator).argsort(1)[:, : case.batch]
            means = x[order].mean(1)
        chains.grad = chains.detach() - means
        optimizer.step()
    squares = chains.detach().square()
    value = float(squares.mean())
    half = DEVIATIONS * float(squares.std()) / math.sqrt(case.chains)
    return Measurement("stationary variance", value, value - half, value + half, confidence=CONFIDENCE)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Mini-batches heat SGLD: on a quadratic its temperature is 1/beta + eta s2/2, s2 the variance of a "
    "batch's gradient.",
    source='Slide "Distinctions of SGLD"; Welling and Teh 2011; the recursion above.',
    assumptions={"stable step, start forgotten": stable, "each step draws its batch anew": drawn_anew},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # A batch kept for ten steps pulls in one direction for as long.
    fails_on=lambda: Case(reuse=10),
    # sqrt(eta / beta) z in place of sqrt(2 eta / beta) z.
    corrupted=lambda: Case(noise=0.5),
    convincing=lambda: Case(chains=400_000),
)
