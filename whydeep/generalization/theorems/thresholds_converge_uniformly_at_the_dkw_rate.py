"""The empirical risks of all thresholds are close to their risks at once: the DKW inequality, VC theory made exact.

Statement: for the classifiers h_t(x) = 1[x > t] of n independent samples with label 0, sup_t |R_n(h_t) - R(h_t)|
exceeds sqrt(ln(2/delta) / (2 n)) with probability at most delta, whatever the distribution of x.
Source: Dvoretzky, Kiefer and Wolfowitz 1956; Massart 1990 (the constant 2). VC theory with its VC dimension 1 gives
the same rate with larger constants (slide "Traditional Learning Theory").
Assumptions: the samples are independent.

The supremum is the Kolmogorov-Smirnov statistic, so the violation rate is known exactly and a little below delta: it
is predicted from that distribution, with tolerance delta minus it. HOLDS says both: as predicted, and at most delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """`draws` data sets of n samples, each sample repeated so that only n / repeats are independent.

    sides: the number in ln(sides / delta).
    """

    samples: int
    delta: float
    draws: int
    repeats: int = 1
    sides: float = 2.0


def samples_are_independent(case: Case) -> bool:
    """Whether no sample is a copy of another."""
    return case.repeats == 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The exact rate P(D_n > sqrt(ln(2/delta)/(2n))), D_n the two-sided Kolmogorov-Smirnov statistic."""
    radius = math.sqrt(math.log(2 / case.delta) / (2 * case.samples))
    rate = float(stats.kstwo.sf(radius, case.samples))
    return Prediction("equals", rate, tolerance=case.delta - rate, constants={"delta": case.delta, "radius": radius})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of data sets with a larger supremum; x is uniform, so that R(h_t) = 1 - t.

    Between samples R_n is constant, so the supremum is reached at a sample, from the left or from the right.
    """
    n = case.samples
    radius = math.sqrt(math.log(case.sides / case.delta) / (2 * n))
    x = torch.rand(case.draws, n // case.repeats, generator=generator, dtype=torch.float64)
    x = x.repeat_interleave(case.repeats, 1).sort(1).values
    step = torch.arange(n, dtype=torch.float64) / n
    largest = torch.maximum((x - step).amax(1), (step + 1 / n - x).amax(1))
    return proportion("violation rate", int((largest > radius).sum()), case.draws)


def holds_on() -> Case:
    """n = 20, delta = 0.1: the exact rate is 0.0816.

    30,000 draws have standard deviation 0.0016 and half-interval 0.0031; the interval leaves 0.0816 +- 0.018 only when
    the rate is off by 0.015, 9 of them. With ln(1/delta) the rate is near 0.17, 40 of them beyond delta.
    """
    return Case(samples=20, delta=0.1, draws=30_000)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The empirical risks of all thresholds are within sqrt(ln(2/delta)/(2n)) of their risks at once, with "
    "probability 1 - delta.",
    source='Dvoretzky, Kiefer and Wolfowitz 1956; Massart 1990; slide "Traditional Learning Theory"',
    assumptions={"the samples are independent": samples_are_independent},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), repeats=4, draws=4_000),
    corrupted=lambda: replace(holds_on(), sides=1.0),
    convincing=lambda: Case(samples=200, delta=0.1, draws=200_000),
)
