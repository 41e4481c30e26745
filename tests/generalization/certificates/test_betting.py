from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from whydeep.generalization.certificates.betting import betting_bound


def violation(p: float, n: int, delta: float, bound: object = betting_bound) -> float:
    """The exact probability that the bound on the mean of n coin flips lies below p: all 2^n sequences."""
    total = 0.0
    for flips in itertools.product((0.0, 1.0), repeat=n):
        if bound(flips, delta) < p:
            heads = sum(flips)
            total += p**heads * (1 - p) ** (n - heads)
    return total


@pytest.mark.parametrize("p", [0.02, 0.2, 0.5, 0.8])
def test_covers_by_enumeration(p: float) -> None:
    assert violation(p, 9, 0.3) <= 0.3


def test_the_enumeration_can_fail() -> None:
    # The mean itself as a "bound" is violated with probability P(Binomial(9, 0.5) <= 4) = 1/2.
    assert violation(0.5, 9, 0.3, lambda flips, delta: float(np.mean(flips))) == pytest.approx(0.5)


def test_covers_draws_that_are_no_coins() -> None:
    # A skewed law with mean 0.1: Beta(0.2, 1.8). 400 bounds at delta 0.2; 0.2 + 4 sqrt(0.2 0.8 / 400) = 0.28.
    random = np.random.default_rng(0)
    missed = sum(betting_bound(random.beta(0.2, 1.8, 40), 0.2) < 0.1 for _ in range(400))
    assert missed / 400 <= 0.28


def test_constant_draws_pay_the_logarithm_over_n() -> None:
    # Every bet is at its limit once the variance seen is small: n ln(1 + 0.99 (m - x)/(1 - m)) = ln(1/delta).
    n, x, delta = 2000, 0.04, 0.025
    m = betting_bound([x] * n, delta)
    exact = math.log(1 / delta) / (0.99 * n)
    # The first draws bet less, as one draw of variance 1/4 is assumed: some 10 % at this n.
    assert exact * (1 - x) * 0.9 <= m - x <= 1.25 * exact
    hoeffding = math.sqrt(math.log(1 / delta) / (2 * n))
    assert m - x < hoeffding / 10


def test_is_rounded_up_and_monotone_in_delta() -> None:
    drawn = np.random.default_rng(1).uniform(0, 0.1, 50)
    loose, tight = betting_bound(drawn, 0.3), betting_bound(drawn, 0.001)
    assert drawn.mean() < loose < tight <= 1


def test_edges() -> None:
    assert betting_bound([1.0], 0.05) == 1.0
    assert betting_bound([1.0] * 100, 0.05) == 1.0
    # One draw of 0: 1 + l m = 1/delta with l = min(sqrt(2 ln(1/delta)/(1/4)), 0.99/(1-m)).
    m = betting_bound([0.0], 0.5)
    bet = min(math.sqrt(8 * math.log(2)), 0.99 / (1 - m))
    assert 1 + bet * m == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "delta", "message"),
    [([], 0.1, "no values"), ([1.1], 0.1, "outside"), ([math.nan], 0.1, "outside"), ([0.5], 0.0, "delta=0")],
)
def test_refuses(values: list[float], delta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        betting_bound(values, delta)
