"""A theorem that can be checked: what it predicts, how it is measured, where it holds and where it breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .measurement import Measurement, NotANumber, unknown
from .randomness import or_default
from .training import Outcome, Status
from .verdict import Assumption, Prediction, Verdict, judge, margin

QUESTIONS = ("representation", "approximation", "generalization", "optimization")
"""The lecture's four questions, in its order."""


@dataclass(frozen=True)
class Finding:
    """The verdict on a statement in one case, with both numbers; `judged` makes one."""

    id: str
    question: str
    statement: str
    source: str
    verdict: Verdict
    predicted: Prediction
    measured: Measurement
    margin: float
    assumptions: Mapping[str, Assumption] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0


def judged(
    id: str,
    *,
    question: str,
    statement: str,
    source: str,
    predicted: Prediction,
    measured: Measurement,
    assumptions: Mapping[str, Assumption] | None = None,
    outcome: Outcome | None = None,
    seconds: float = 0.0,
) -> Finding:
    """Return the finding with the verdict of `judge`; its reason names broken assumptions or how a training ended."""
    assumptions = assumptions or {}
    broken = [name for name, state in assumptions.items() if state is Assumption.BROKEN]
    reason = f"not met: {', '.join(broken)}" if broken else outcome.reason if outcome is not None else ""
    return Finding(
        id=id,
        question=question,
        statement=statement,
        source=source,
        verdict=judge(predicted, measured, assumptions, outcome),
        predicted=predicted,
        measured=measured,
        margin=margin(predicted, measured),
        assumptions=assumptions,
        reason=reason,
        seconds=seconds,
    )


@dataclass(frozen=True)
class OnDraw:
    """An assumption on what the case draws, so that it is met for some seeds only: a function of (case, generator).

    It is given a copy of the generator as `predict` gets it, to draw (or to read the seed of) what the routes draw.
    """

    test: Callable[[Any, torch.Generator], bool]


@dataclass(frozen=True)
class Claim:
    """A statement of the lecture with two separate routes to a number, predicted and measured.

    id: the name of the claim's file, which is the statement as a short sentence.
    assumptions: name -> a function of the case that says whether it is met, `OnDraw` of a function of (case, generator)
    where that depends on what is drawn, or None where it is taken on trust.
    predict, measure: functions of (case, generator); neither calls the other, and they share no shortcut.
    measure may return (measurement, outcome) where a training is part of it. A measurement that is not a number
    (`NotANumber`), or for which a step could not be taken (`ArithmeticError`), decides nothing: INCONCLUSIVE.
    holds_on: the case in which the theorem applies. fails_on: a case with a broken assumption.
    corrupted: a case whose assumptions are met but whose mechanism is damaged (a wrong factor, a dropped term): it
    must be found VIOLATED, or the check could not say no.
    falsifiable: whether the broken case, with the assumption checks bypassed, must be measured VIOLATED.
    expected: HOLDS, or VACUOUS where the theorem says nothing at any size that can be run.
    convincing: the same as holds_on at the size that convinces; run with the slow tests.
    """

    id: str
    question: str
    statement: str
    source: str
    assumptions: Mapping[str, Callable[[Any], bool] | OnDraw | None]
    predict: Callable[[Any, torch.Generator], Prediction]
    measure: Callable[[Any, torch.Generator], Measurement | tuple[Measurement, Outcome]]
    holds_on: Callable[[], Any]
    fails_on: Callable[[], Any]
    corrupted: Callable[[], Any]
    falsifiable: bool = True
    expected: Verdict = Verdict.HOLDS
    convincing: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if self.question not in QUESTIONS:
            raise ValueError(f"claim {self.id}: question {self.question!r}; give one of {', '.join(QUESTIONS)}")
        if not self.source:
            raise ValueError(f"claim {self.id} has no source; name the paper or the slide")


def check(
    claim: Claim,
    case: Any = None,
    *,
    generator: torch.Generator | None = None,
    bypass_assumptions: bool = False,
) -> Finding:
    """Check `claim` on `case` (its own good case when None) and return the finding.

    bypass_assumptions judges as if every assumption were taken on trust: to see the statement fail where it should.
    """
    began = time.perf_counter()
    generator = or_default(generator)
    case = claim.holds_on() if case is None else case
    assumptions = {
        name: Assumption.ON_TRUST if bypass_assumptions else _state(test, case, generator)
        for name, test in claim.assumptions.items()
    }
    predicted = claim.predict(case, generator)
    measured, outcome = _measured(claim, case, generator)
    return judged(
        claim.id,
        question=claim.question,
        statement=claim.statement,
        source=claim.source,
        predicted=predicted,
        measured=measured,
        assumptions=assumptions,
        outcome=outcome,
        seconds=time.perf_counter() - began,
    )


def _state(test: Callable[[Any], bool] | OnDraw | None, case: Any, generator: torch.Generator) -> Assumption:
    if test is None:
        return Assumption.ON_TRUST
    # A copy: what the assumption draws shifts no draw of the routes.
    met = test.test(case, generator.clone_state()) if isinstance(test, OnDraw) else test(case)
    return Assumption.CHECKED if met else Assumption.BROKEN


def _measured(claim: Claim, case: Any, generator: torch.Generator) -> tuple[Measurement, Outcome | None]:
    try:
        result = claim.measure(case, generator)
    except NotANumber as fault:
        return unknown(fault.name), Outcome(Status.DIVERGED, f"{fault.name} is not a number")
    except ArithmeticError as fault:  # a step that could not be taken
        return unknown("what was to be measured"), Outcome(Status.DIVERGED, str(fault))
    return result if isinstance(result, tuple) else (result, None)
