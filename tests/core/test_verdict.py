"""The judge, over its whole table, and the margin."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from whydeep.core import Assumption, Measurement, Outcome, Prediction, Status, Verdict, judge
from whydeep.core.verdict import Relation, margin

HOLDS, VIOLATED, INCONCLUSIVE = Verdict.HOLDS, Verdict.VIOLATED, Verdict.INCONCLUSIVE


def interval(low: float, high: float) -> Measurement:
    value = low if math.isfinite(low) else high if math.isfinite(high) else 0.0
    return Measurement("x", value, low, high)


TABLE = [
    ("at most", 0.0, (0.2, 0.5), HOLDS),
    ("at most", 0.0, (0.2, 1.0), HOLDS),  # high <= v
    ("at most", 0.0, (0.5, 1.5), INCONCLUSIVE),
    ("at most", 0.0, (1.0, 1.5), INCONCLUSIVE),  # low > v is needed
    ("at most", 0.0, (1.1, 1.5), VIOLATED),
    ("at least", 0.0, (1.5, 2.0), HOLDS),
    ("at least", 0.0, (1.0, 2.0), HOLDS),
    ("at least", 0.0, (0.5, 1.5), INCONCLUSIVE),
    ("at least", 0.0, (0.5, 1.0), INCONCLUSIVE),
    ("at least", 0.0, (0.5, 0.9), VIOLATED),
    ("equals", 0.25, (0.75, 1.25), HOLDS),
    ("equals", 0.25, (0.9, 1.1), HOLDS),
    ("equals", 0.25, (0.5, 1.1), INCONCLUSIVE),
    ("equals", 0.25, (0.9, 1.5), INCONCLUSIVE),
    ("equals", 0.25, (0.0, 9.0), INCONCLUSIVE),  # too few samples
    ("equals", 0.25, (1.25, 1.5), INCONCLUSIVE),
    ("equals", 0.25, (1.3, 1.5), VIOLATED),
    ("equals", 0.25, (0.1, 0.7), VIOLATED),
    ("equals", 0.0, (1.0, 1.0), HOLDS),
    ("equals", 0.0, (1.5, 1.5), VIOLATED),
]


@pytest.mark.parametrize(("relation", "tolerance", "ends", "verdict"), TABLE)
def test_the_table(relation: Relation, tolerance: float, ends: tuple[float, float], verdict: Verdict) -> None:
    assert judge(Prediction(relation, 1.0, tolerance), interval(*ends)) is verdict
    if relation == "equals":  # the fitted exponent is judged as a number is
        assert judge(Prediction("grows like", 1.0, tolerance), interval(*ends)) is verdict


@pytest.mark.parametrize(("relation", "tolerance", "ends", "verdict"), TABLE)
def test_assumptions_and_divergence_come_first(
    relation: Relation, tolerance: float, ends: tuple[float, float], verdict: Verdict
) -> None:
    prediction, measured = Prediction(relation, 1.0, tolerance), interval(*ends)
    broken = {"a": Assumption.CHECKED, "b": Assumption.BROKEN}
    diverged = Outcome(Status.DIVERGED, "too large a step")
    assert judge(prediction, measured, broken, diverged) is Verdict.INAPPLICABLE
    assert judge(prediction, measured, {"a": Assumption.ON_TRUST}, diverged) is INCONCLUSIVE
    for status in set(Status) - {Status.DIVERGED}:
        assert judge(prediction, measured, {"a": Assumption.CHECKED}, Outcome(status)) is verdict


def test_vacuous_is_what_holds_and_says_nothing() -> None:
    assert judge(Prediction("at most", 1.0, trivial=1.0), interval(0.1, 0.2)) is Verdict.VACUOUS
    assert judge(Prediction("at most", 0.9, trivial=1.0), interval(0.1, 0.2)) is HOLDS
    assert judge(Prediction("at least", 0.0, trivial=0.0), interval(0.1, 0.2)) is Verdict.VACUOUS
    assert judge(Prediction("at least", 0.05, trivial=0.0), interval(0.1, 0.2)) is HOLDS
    assert judge(Prediction("equals", 0.15, 0.1, trivial=0.15), interval(0.1, 0.2)) is HOLDS


def test_violation_comes_before_vacuity() -> None:
    assert judge(Prediction("at most", 2.0, trivial=1.0), interval(3.0, 4.0)) is VIOLATED
    assert judge(Prediction("at most", 2.0, trivial=1.0), interval(1.0, 4.0)) is INCONCLUSIVE
    assert judge(Prediction("at least", -1.0, trivial=0.0), interval(-3.0, -2.0)) is VIOLATED


def test_infinite_ends() -> None:
    assert judge(Prediction("at most", math.inf), interval(5.0, math.inf)) is HOLDS
    assert judge(Prediction("at most", 3.0), interval(5.0, math.inf)) is VIOLATED
    assert judge(Prediction("at most", 3.0), interval(-math.inf, math.inf)) is INCONCLUSIVE
    assert judge(Prediction("equals", 3.0, 1.0), interval(-math.inf, math.inf)) is INCONCLUSIVE


numbers = some.floats(-1e6, 1e6)


@given(
    relation=some.sampled_from(["at most", "at least", "equals"]),
    value=numbers,
    tolerance=some.floats(0, 1e6),
    ends=some.tuples(numbers, numbers).map(sorted),
)
def test_the_margin_has_the_sign_of_the_verdict(
    relation: Relation, value: float, tolerance: float, ends: list[float]
) -> None:
    prediction, measured = Prediction(relation, value, tolerance), interval(*ends)
    assert (judge(prediction, measured) is HOLDS) == (margin(prediction, measured) >= 0)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [(Prediction("at most", 3.0), 1.0), (Prediction("at least", 0.5), 0.5), (Prediction("equals", 1.2, 1.0), 0.2)],
)
def test_the_margin_by_hand(prediction: Prediction, expected: float) -> None:
    assert margin(prediction, interval(1.0, 2.0)) == pytest.approx(expected)


def test_a_prediction_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="is NaN"):
        Prediction("at most", math.nan)
    for tolerance in (-1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            Prediction("equals", 1.0, tolerance)
