"""Intervals against SciPy, by hand, and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from whydeep.core import Measurement, exact, mean, proportion


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 20), (6, 360), (499, 1000)])
def test_clopper_pearson_is_scipys(hits: int, trials: int, confidence: float) -> None:
    oracle = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
    measured = proportion("error", hits, trials, confidence=confidence)
    assert measured.value == hits / trials
    # SciPy finds the ends by root search to 1e-12 or so.
    assert (measured.low, measured.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    assert measured.confidence == confidence
    assert measured.unit == "fraction"


def test_the_ends_have_the_tails_they_promise() -> None:
    measured = proportion("error", 7, 50, confidence=0.9)
    assert stats.binom.sf(6, 50, measured.low) == pytest.approx(0.05, rel=1e-9)  # 7 or more
    assert stats.binom.cdf(7, 50, measured.high) == pytest.approx(0.05, rel=1e-9)  # 7 or fewer


def test_the_interval_covers_for_every_true_value() -> None:
    # The probability, summed over all outcomes of 12 trials, that the interval holds p: at least the confidence.
    intervals = [proportion("error", hits, 12, confidence=0.8) for hits in range(13)]
    for p in np.linspace(0.01, 0.99, 25):
        covered = sum(stats.binom.pmf(k, 12, p) for k, m in enumerate(intervals) if m.low <= p <= m.high)
        assert covered >= 0.8


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="give 0 <= hits <= trials"):
        proportion("error", hits, trials)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_students_interval_is_scipys(confidence: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, size=9)
    oracle = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    measured = mean("loss", values, confidence=confidence)
    assert (measured.low, measured.high) == pytest.approx((oracle.low, oracle.high), rel=1e-12)


def test_students_interval_by_hand() -> None:
    # 1 and 3: mean 2, s = sqrt(2), half = t(0.975, 1) s / sqrt(2) = 12.7062.
    measured = mean("loss", [1.0, 3.0])
    assert measured.value == 2
    assert measured.high - 2 == pytest.approx(12.7062, abs=1e-4)
    assert 2 - measured.low == pytest.approx(12.7062, abs=1e-4)


def test_one_value_says_nothing_of_the_spread() -> None:
    measured = mean("loss", [4.0])
    assert (measured.value, measured.low, measured.high) == (4.0, -math.inf, math.inf)


def test_equal_values_have_no_spread() -> None:
    measured = mean("loss", [0.1] * 7)
    # 7 times 0.1 is rounded when it is summed.
    assert measured.high - measured.low == pytest.approx(0, abs=1e-15)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="loss"):
        mean("loss", [])


def test_exact_numbers_have_no_width() -> None:
    measured = exact("norm", 2.5, unit="nats", evaluations=3)
    assert (measured.low, measured.value, measured.high, measured.confidence) == (2.5, 2.5, 2.5, 1.0)
    assert (measured.unit, measured.evaluations) == ("nats", 3)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((math.nan, 0.0, 1.0), "is NaN"),
        ((0.5, math.nan, 1.0), "is NaN"),
        ((0.5, 0.0, math.nan), "is NaN"),
        ((2.0, 0.0, 1.0), "does not hold 2.0"),
        ((0.5, 1.0, 0.0), "does not hold"),
    ],
)
def test_bad_numbers_are_refused(numbers: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measurement("x", *numbers)


@pytest.mark.parametrize("confidence", [0.0, -1.0, 1.1, math.nan])
def test_bad_confidences_are_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Measurement("x", 0.5, 0.0, 1.0, confidence=confidence)
