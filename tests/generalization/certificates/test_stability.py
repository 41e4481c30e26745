"""Stability bounds: closed forms, the divergence of one step by quadrature, and twin runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from whydeep.generalization.certificates.stability import (
    _step_divergence,
    convex_stability,
    langevin_stability,
    nonconvex_stability,
    strongly_convex_stability,
)


def test_each_symbol_of_the_noiseless_bounds_counts() -> None:
    assert convex_stability([0.1, 0.3], n=50, lipschitz=3.0, smoothness=4.0) == pytest.approx(2 * 9 / 50 * 0.4)
    found = strongly_convex_stability(0.25, n=50, lipschitz=3.0, smoothness=4.0, convexity=0.5)
    assert found == pytest.approx(2 * 9 / (0.5 * 50))
    # c = 0.5, B = 4: power 1 / 3.
    found = nonconvex_stability(1000, decay=0.5, n=51, lipschitz=3.0, smoothness=4.0)
    assert found == pytest.approx((1 + 1 / 2) / 50 * 9 ** (1 / 3) * 1000 ** (2 / 3))


def test_twin_runs_on_a_strongly_convex_loss_stay_within_it() -> None:
    # f_i(w) = (w - x_i)^2 / 2 with x_i in [-1, 1]: B = gamma = 1, |w - x| <= L = 2 while |w| <= 1. Exact distance of
    # the means: with probability 1 - 1/n it shrinks by 1 - eta, else eta 2 is added on top.
    n, eta, steps = 10, 0.3, 200
    distance = 0.0
    for _ in range(steps):
        distance = (1 - eta) * distance + eta * 2 / n  # x_0 = 1 against x_0' = -1
    bound = strongly_convex_stability(eta, n=n, lipschitz=2.0, smoothness=1.0, convexity=1.0)
    assert 2 * distance <= bound  # L times the distance
    assert 2 * distance > 0.4 * bound


def kernel_divergence(b: int, n: int, s: float) -> float:
    """KL of the worst one-dimensional step kernels in batches of one (b = 1): centres 0 (n-1 times) and +-a or 0."""
    assert b == 1
    a = math.sqrt(s)
    worst = 0.0
    for one, other in ((a, 0.0), (0.0, a), (a / 2, -a / 2)):

        def density(x: float, centre: float) -> float:
            return (1 - 1 / n) * stats.norm.pdf(x) + stats.norm.pdf(x, loc=centre) / n

        def integrand(x: float, one: float = one, other: float = other) -> float:
            p, q = density(x, one), density(x, other)
            return p * math.log(p / q)

        worst = max(worst, integrate.quad(integrand, -12, 12, limit=200)[0])
    return worst


@pytest.mark.parametrize("s", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("n", [3, 20])
def test_one_step_diverges_by_no_more_than_the_bound(n: int, s: float) -> None:
    # s = 2 eta beta L^2: the largest squared distance of centres in standard deviations.
    exact, bound = kernel_divergence(1, n, s), _step_divergence(s / 2, n, 1.0, 1)
    assert exact <= bound
    # KL is about half of chi2 for close kernels, which ln(1 + chi2) loses; (1 + s) e^s and leaving the replaced sample
    # out of the mixture, n / (n - 1), lose the rest.
    if s < 0.1:
        assert bound < 2.3 * n / (n - 1) * exact


def test_full_batches_are_two_gaussians() -> None:
    # Centres 2 eta L / n apart, variance 2 eta / beta: KL = (2 eta L / n)^2 / (2 * 2 eta / beta).
    eta, beta, lipschitz, n = 0.1, 5.0, 3.0, 7
    kl = (2 * eta * lipschitz / n) ** 2 / (2 * 2 * eta / beta)
    assert _step_divergence(eta * beta, n, lipschitz, n) == pytest.approx(kl, rel=1e-13)


def naive(heat: list[float], n: int, lipschitz: float, b: int) -> tuple[float, int]:
    best = (math.inf, 0)
    for k0 in range(len(heat) + 1):
        total = 0.0
        for value in heat[k0:]:
            s = 2 * value * lipschitz**2 / b**2
            total += math.log(1 + b**2 / (n * (n - b)) * s * (1 + s) * math.exp(s))
        best = min(best, (min(1.0, k0 * b / n) + math.sqrt(total / 2), k0))
    return best


@pytest.mark.parametrize("b", [1, 4])
def test_the_best_k0_is_found(b: int) -> None:
    rates = [(0.5, 20.0, 3), (0.2, 20.0, 5), (0.01, 20.0, 40)]
    heat = [eta * beta for eta, beta, count in rates for _ in range(count)]
    bound = langevin_stability(rates, n=100, lipschitz=0.9, batch_size=b, loss_range=2.0)
    value, k0 = naive(heat, 100, 0.9, b)
    assert bound.value == pytest.approx(2 * value, rel=1e-12)
    assert bound.k0 == k0
    assert bound.value == pytest.approx(bound.coupling + bound.divergence)
    assert bound.steps == 48
    if b == 1:
        assert bound.k0 > 0  # the hot first steps are paid by coupling
        # eta beta L^2 = 8.1, 3.24, 0.162: the slide's k0 is 8.
        assert bound.slide_k0 == 8
        assert bound.slide == pytest.approx(2 * (8 + 0.9 * math.sqrt(40 * 0.2)) / 100)


def test_for_small_steps_it_is_the_slides_form_with_constant_one() -> None:
    bound = langevin_stability([(1e-6, 1.0, 1000)], n=1000, lipschitz=1.0)
    # M L / n sqrt(beta sum eta), up to s = 2e-6 and 1/n.
    assert bound.value == pytest.approx(math.sqrt(1e-3) / 1000, rel=2e-3)
    assert bound.slide_k0 == 0
    assert bound.value == pytest.approx(bound.slide, rel=2e-3)


def test_extremes() -> None:
    frozen = langevin_stability([(0.1, math.inf, 5)], n=100, lipschitz=1.0)  # no noise: only coupling is left
    assert (frozen.k0, frozen.value) == (5, pytest.approx(0.05))
    assert not frozen.vacuous
    full = langevin_stability([(0.1, math.inf, 5)], n=100, lipschitz=1.0, batch_size=100)
    assert full.value == 1.0  # the replaced sample is drawn at once
    assert full.vacuous
    assert langevin_stability([], n=10, lipschitz=1.0).value == 0.0
    assert math.isfinite(langevin_stability([(1.0, 1e6, 3)], n=10, lipschitz=1.0).value)
    assert np.isfinite(_step_divergence(1e6, 10, 1.0, 1))


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="exceeds 2/B"):
        convex_stability([1.0], n=5, lipschitz=1.0, smoothness=3.0)
    with pytest.raises(ValueError, match="exceeds 1/B"):
        strongly_convex_stability(1.0, n=5, lipschitz=1.0, smoothness=3.0, convexity=1.0)
    with pytest.raises(ValueError, match="convexity=4"):
        strongly_convex_stability(0.1, n=5, lipschitz=1.0, smoothness=3.0, convexity=4.0)
    with pytest.raises(ValueError, match="two samples"):
        langevin_stability([(0.1, 1.0, 1)], n=1, lipschitz=1.0)
    with pytest.raises(ValueError, match="batch_size=11 of 10"):
        langevin_stability([(0.1, 1.0, 1)], n=10, lipschitz=1.0, batch_size=11)
    with pytest.raises(ValueError, match="loss_range=inf; the bound needs a loss between 0 and a finite range"):
        langevin_stability([(0.1, 1.0, 1)], n=10, lipschitz=1.0, loss_range=math.inf)
    with pytest.raises(ValueError, match="finite numbers > 0"):
        langevin_stability([(0.1, 1.0, 1)], n=10, lipschitz=math.inf)
