"""The judge: does what was measured agree with what was predicted?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from .measurement import Measurement
from .training import Outcome


class Verdict(Enum):
    """The words on the page; HOLDS reads "consistent with", never "proved"."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"
    INAPPLICABLE = "inapplicable"
    VACUOUS = "vacuous"


class Assumption(Enum):
    """What is known of an assumption of a claim."""

    CHECKED = "checked"
    BROKEN = "broken"
    ON_TRUST = "on trust"


Relation = Literal["at most", "at least", "equals", "grows like"]


@dataclass(frozen=True)
class Prediction:
    """What a theorem says of a number.

    relation: the number is "at most" or "at least" `value`, "equals" it within `tolerance`, or "grows like" a power
    whose exponent is `value` within `tolerance`.
    trivial: the value that holds without any theory (1 for an error rate); no better than that is VACUOUS.
    constants: the named constants that went in, for the page.
    """

    relation: Relation
    value: float
    tolerance: float = 0.0
    trivial: float | None = None
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError("the predicted value is NaN; a claim that cannot predict is not applicable")
        if not self.tolerance >= 0:
            raise ValueError(f"the tolerance is {self.tolerance}; give a number >= 0")

    @property
    def trivially_true(self) -> bool:
        """Whether the statement is no better than the trivial value."""
        if self.trivial is None:
            return False
        if self.relation == "at most":
            return self.value >= self.trivial
        if self.relation == "at least":
            return self.value <= self.trivial
        return False


def margin(prediction: Prediction, measurement: Measurement) -> float:
    """Return how far inside the prediction the whole interval lies; negative when some of it lies outside.

    at most v: v - high. at least v: low - v. equals or grows like v within t: t - max |end - v|.
    """
    v = prediction.value
    if prediction.relation == "at most":
        return v - measurement.high
    if prediction.relation == "at least":
        return measurement.low - v
    return prediction.tolerance - max(abs(measurement.low - v), abs(measurement.high - v))


def judge(
    prediction: Prediction,
    measurement: Measurement,
    assumptions: Mapping[str, Assumption] | None = None,
    outcome: Outcome | None = None,
) -> Verdict:
    """Compare a prediction with a measurement.

    First: a broken assumption is INAPPLICABLE, a diverged training INCONCLUSIVE. Then by the interval:
    HOLDS when all of it satisfies the relation, VIOLATED when none of it does, else INCONCLUSIVE.
    Last: what HOLDS but is no better than the trivial value is VACUOUS. Violation is tested before vacuity.

    >>> judge(Prediction("at most", 0.1), Measurement("error", 0.05, 0.02, 0.08))
    <Verdict.HOLDS: 'holds'>
    >>> judge(Prediction("at most", 7.0, trivial=1.0), Measurement("error", 0.05, 0.02, 0.08))
    <Verdict.VACUOUS: 'vacuous'>
    """
    if Assumption.BROKEN in (assumptions or {}).values():
        return Verdict.INAPPLICABLE
    if outcome is not None and outcome.diverged:
        return Verdict.INCONCLUSIVE
    if margin(prediction, measurement) < 0:
        return Verdict.VIOLATED if _outside(prediction, measurement) else Verdict.INCONCLUSIVE
    return Verdict.VACUOUS if prediction.trivially_true else Verdict.HOLDS


def _outside(prediction: Prediction, measurement: Measurement) -> bool:
    v, t = prediction.value, prediction.tolerance
    if prediction.relation == "at most":
        return measurement.low > v
    if prediction.relation == "at least":
        return measurement.high < v
    return measurement.low > v + t or measurement.high < v - t
