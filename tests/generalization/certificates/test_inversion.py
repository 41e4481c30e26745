from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whydeep.generalization import binary_kl, binomial_tail_inverse, kl_inverse


def tail(errors: int, samples: int, p: Fraction) -> Fraction:
    """P(Binomial(samples, p) <= errors), exactly."""
    return sum((math.comb(samples, k) * p**k * (1 - p) ** (samples - k) for k in range(errors + 1)), Fraction(0))


@pytest.mark.parametrize("samples", [1, 2, 20, 1000])
@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-6])
def test_binomial_tail_inverse_without_and_with_all_mistakes(samples: int, delta: float) -> None:
    # No mistake has probability (1 - p)^n, which is delta at p = 1 - delta^(1/n).
    assert binomial_tail_inverse(0, samples, delta) == pytest.approx(1 - delta ** (1 / samples), rel=1e-9)
    assert binomial_tail_inverse(samples, samples, delta) == 1.0


def test_binomial_tail_inverse_worked_by_hand() -> None:
    # One mistake or none of two: P = 1 - p^2 = delta, so p = sqrt(1 - delta); delta = 0.19 gives 0.9.
    # Rounding up adds 1e-11 of delta.
    assert binomial_tail_inverse(1, 2, 0.19) == pytest.approx(0.9, rel=1e-11)


@given(st.integers(1, 30), st.data(), st.sampled_from([0.5, 0.1, 0.05, 0.001]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_binomial_tail_inverse_is_outside_and_tight_in_exact_arithmetic(
    samples: int, data: st.DataObject, delta: float
) -> None:
    errors = data.draw(st.integers(0, samples - 1))
    bound = binomial_tail_inverse(errors, samples, delta)
    assert tail(errors, samples, Fraction(bound)) <= Fraction(delta)
    assert tail(errors, samples, Fraction(bound * (1 - 1e-9))) > Fraction(delta)


def test_kl_inverse_is_an_inverse_from_above() -> None:
    for q in (0.0, 1e-6, 0.02, 0.3, 0.97):
        for c in (0.0, 1e-6, 0.01, 0.5):
            p = kl_inverse(q, c)
            assert p >= q
            assert binary_kl(q, p) >= c or p == 1.0
            # Just below, kl is below c again: 1e-6 c of slack covers the 1e-13 by which the result is rounded up.
            assert binary_kl(q, max(q, p * (1 - 1e-9))) <= c * (1 + 1e-6) + 1e-9
    assert kl_inverse(0.0, 0.1) == pytest.approx(1 - math.exp(-0.1), rel=1e-9)
    assert kl_inverse(1.0, 0.1) == 1.0
    assert binary_kl(0.5, 1.0) == math.inf


def slow_kl(q: float, p: float) -> Decimal:
    """The binary kl to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        one, two = Decimal(q), Decimal(p)
        total = Decimal(0) if q == 0 else one * (one / two).ln()
        return total if q == 1 else total + (1 - one) * ((1 - one) / (1 - two)).ln()


@pytest.mark.parametrize("q", [0.0, 1e-12, 1e-6, 0.02, 0.3, 0.5, 0.9, 1 - 1e-12])
@pytest.mark.parametrize("c", [1e-20, 1e-12, 1e-6, 1e-3, 0.5, 3.0])
def test_kl_inverse_is_rounded_up_in_fifty_digits(q: float, c: float) -> None:
    p = kl_inverse(q, c)
    assert p == 1.0 or slow_kl(q, p) >= Decimal(c)
    # And tight: four floating-point numbers lower the kl is within c.
    lower = p
    for _ in range(4):
        lower = math.nextafter(lower, 0)
    # 3e-12 of the step towards p: the 1e-12 of c by which the result is rounded up, with room.
    lower = min(lower, q + (p - q) * (1 - 3e-12))
    assert lower <= q or slow_kl(q, lower) <= Decimal(c)


def test_binary_kl_keeps_its_digits_next_to_the_diagonal() -> None:
    for q, p in [(0.3, 0.3 + 1e-9), (0.3, 0.3 - 1e-9), (0.1, 0.9), (0.0, 0.4), (1.0, 0.4), (1e-9, 1e-8)]:
        assert binary_kl(q, p) == pytest.approx(float(slow_kl(q, p)), rel=1e-14)


def test_kl_inverse_at_its_ends() -> None:
    assert kl_inverse(0.25, 0.0) == 0.25
    assert kl_inverse(0.0, 0.0) == 0.0
    assert kl_inverse(0.25, math.inf) == 1.0
    assert kl_inverse(0.0, math.inf) == 1.0
    assert kl_inverse(1.0, 0.0) == 1.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 5), st.floats(0, 5))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_kl_inverse_is_monotone(q: float, r: float, c: float, d: float) -> None:
    # 1e-11: each is rounded up by a few 1e-12 of its distance from q.
    assert kl_inverse(min(q, r), c) <= kl_inverse(max(q, r), c) + 1e-11
    assert kl_inverse(q, min(c, d)) <= kl_inverse(q, max(c, d)) + 1e-11


def test_binomial_tail_inverse_keeps_its_digits_at_tiny_deltas() -> None:
    # A union bound over a code of many bits asks for such deltas; (1 - p)^n = delta without a mistake.
    for delta in (1e-12, 1e-100, 1e-300):
        assert binomial_tail_inverse(0, 1000, delta) == pytest.approx(-math.expm1(math.log(delta) / 1000), rel=1e-9)


@pytest.mark.parametrize(
    "bad", [(3, 2, 0.1), (-1, 2, 0.1), (0, 0, 0.1), (0.5, 2, 0.1), (1, 2, 0.0), (1, 2, 1.0), (1, 2, math.nan)]
)
def test_refuses_counts_and_deltas_that_are_none(bad: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        binomial_tail_inverse(*bad)


@pytest.mark.parametrize("bad", [(-0.1, 1.0), (1.1, 1.0), (0.5, -1.0), (math.nan, 1.0), (0.5, math.nan)])
def test_refuses_what_is_no_probability(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        kl_inverse(*bad)
