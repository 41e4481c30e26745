"""The risk exceeds the held-out certificate with probability at most delta: the certificate covers.

Statement: let a classifier of risk p be fixed before m held-out samples are drawn independently, and let k be its
mistakes on them. With B(k) = max {q : P(Binomial(m, q) <= k) >= delta / J}, P(p > B(k)) <= delta / J for each of J
candidates, so P(p > B(k)) <= delta for the one that was picked by the same samples.
Source: Clopper and Pearson 1934; Langford 2005, "Tutorial on practical prediction theory for classification".
Assumptions: the samples are independent of the classifier, or every candidate compared on them is paid for.

Because mistakes are counts, the violation rate jumps with p and is seldom delta itself: it is predicted exactly, and
the prediction's tolerance is delta minus it. So HOLDS says two things: the measured rate agrees with the exact one,
and it does not exceed delta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from scipy import stats

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.inversion import binomial_tail_inverse


@dataclass(frozen=True)
class Case:
    """`candidates` classifiers of equal risk are tried on the same `samples`, the best is certified; `draws` times.

    paid: for how many candidates the certificate pays. bound: errors, samples, delta -> certificate.
    """

    samples: int
    risk: Fraction
    delta: Fraction
    draws: int
    candidates: int = 1
    paid: int = 1
    bound: Callable[[int, int, float], float] = binomial_tail_inverse


def every_candidate_is_paid_for(case: Case) -> bool:
    """Whether the held-out samples chose among no more classifiers than the certificate accounts for."""
    return case.candidates <= case.paid


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The exact violation rate 1 - (1 - P(K <= k*))^J for J = paid candidates, in rational arithmetic.

    p > B(k) says that k mistakes or fewer have probability below delta / J at p, so no inversion is needed: k* is
    the largest k whose lower tail at p stays below delta / J.
    """
    m, p, share = case.samples, case.risk, case.delta / case.paid
    tail, k = Fraction(0), -1
    while k < m:
        longer = tail + math.comb(m, k + 1) * p ** (k + 1) * (1 - p) ** (m - k - 1)
        if longer >= share:
            break
        tail, k = longer, k + 1
    rate = float(1 - (1 - tail) ** case.paid)
    return Prediction(
        "equals",
        rate,
        tolerance=float(case.delta) - rate,
        constants={"delta": float(case.delta), "largest k that violates": k},
    )


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of draws in which the certificate of the best candidate lies below its risk.

    Candidate j errs where coordinate j of x, uniform in [0, 1), is below the risk, so that its risk is known exactly.
    """
    m, risk = case.samples, float(case.risk)
    known: dict[int, bool] = {}
    violations = 0
    for _ in range(case.draws // CHUNK):
        x = torch.rand(CHUNK, case.candidates, m, generator=generator)
        fewest = (x < risk).sum(2).min(1).values
        for k, times in enumerate(torch.bincount(fewest).tolist()):
            if k not in known:
                known[k] = case.bound(k, m, float(case.delta / case.paid)) < risk
            violations += times * known[k]
    return proportion("violation rate", violations, case.draws // CHUNK * CHUNK)


CHUNK = 1000
"""Draws at a time: 2 to 10 MB of uniform numbers."""


def beta_without_its_one(errors: int, samples: int, delta: float) -> float:
    """A damaged certificate: the quantile of Beta(errors, samples - errors), the + 1 forgotten."""
    return 0.0 if errors == 0 else float(stats.beta.ppf(1 - delta, errors, samples - errors))


def holds_on() -> Case:
    """80 samples, risk 0.06, delta 0.05: exact rate 0.0433 (at most one mistake); with two mistakes it is 0.134.

    40,000 draws have standard deviation 0.0010 and half-interval 0.0020. To leave [0.0365, 0.05] the interval must be
    off by 4.7 standard deviations: probability 3e-6. The damaged certificate's rate 0.134 is 80 of them away.
    """
    return Case(samples=80, risk=Fraction(6, 100), delta=Fraction(5, 100), draws=40_000)


def fails_on() -> Case:
    """The best of 20 classifiers, paid for as one: it violates with probability 1 - (1 - 0.0433)^20 = 0.59.

    4,000 draws have standard deviation 0.008, and 0.59 lies 68 of them above delta.
    """
    return replace(holds_on(), draws=4_000, candidates=20)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The risk exceeds the certificate from held-out data with probability at most delta.",
    source='Clopper and Pearson 1934; Langford 2005, "Tutorial on practical prediction theory for classification"',
    assumptions={
        "every candidate compared on the held-out samples is paid for": every_candidate_is_paid_for,
        "the held-out samples are independent": None,
    },
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=fails_on,
    corrupted=lambda: replace(holds_on(), bound=beta_without_its_one),
    convincing=lambda: Case(samples=400, risk=Fraction(9, 100), delta=Fraction(5, 100), draws=200_000),
)
