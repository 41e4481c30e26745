from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from scipy import stats

from whydeep.core import Verdict, check
from whydeep.generalization.certificates.inversion import binomial_tail_inverse
from whydeep.generalization.theorems import held_out_certificate_covers as theorem

GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("samples", "risk", "delta"), [(80, 6, 5), (20, 30, 10), (5, 50, 1), (3, 1, 5)])
def test_predicted_rate_needs_no_inversion_and_agrees_with_it(samples: int, risk: int, delta: int) -> None:
    case = theorem.Case(samples, Fraction(risk, 100), Fraction(delta, 100), draws=1000)
    # The other way round: invert every k, add up the probabilities of those whose bound lies below the risk.
    p = risk / 100
    slow = sum(
        stats.binom.pmf(k, samples, p) for k in range(samples + 1) if binomial_tail_inverse(k, samples, delta / 100) < p
    )
    assert theorem.predict(case, GENERATOR).value == pytest.approx(slow, abs=1e-12)


def test_the_tolerance_ends_at_delta() -> None:
    predicted = theorem.predict(theorem.holds_on(), GENERATOR)
    assert predicted.value + predicted.tolerance == pytest.approx(0.05)
    assert predicted.value == pytest.approx(0.94**80 + 80 * 0.06 * 0.94**79)  # at most one mistake


def test_paying_for_every_candidate_restores_coverage() -> None:
    """Twenty candidates at delta / 20 each: the exact rate is 1 - (1 - P(K <= k*))^20, again at most delta."""
    case = theorem.Case(80, Fraction(15, 100), Fraction(5, 100), draws=20_000, candidates=20, paid=20)
    found = check(theorem.claim, case, generator=torch.Generator().manual_seed(0))
    assert found.measured.high <= 0.05
    assert abs(found.measured.value - found.predicted.value) <= 0.006  # four standard errors at rate 0.04
    assert found.verdict is not Verdict.VIOLATED


def test_doubling_delta_is_found_out() -> None:
    def loose(errors: int, samples: int, delta: float) -> float:
        return binomial_tail_inverse(errors, samples, 3 * delta)

    case = theorem.Case(80, Fraction(6, 100), Fraction(5, 100), draws=20_000, bound=loose)
    assert check(theorem.claim, case).verdict is Verdict.VIOLATED
