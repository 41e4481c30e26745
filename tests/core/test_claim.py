"""Checking a claim: assumptions, verdicts, outcomes, and the generator it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from whydeep.core import (
    Assumption,
    Claim,
    Measurement,
    OnDraw,
    Outcome,
    Prediction,
    Status,
    Verdict,
    check,
    exact,
    judged,
)


def test_the_good_case(claim: Claim) -> None:
    finding = check(claim)
    assert finding.verdict is Verdict.HOLDS
    assert finding.assumptions == {"below one": Assumption.CHECKED, "a number at all": Assumption.ON_TRUST}
    assert finding.margin == pytest.approx(0.5, abs=1e-8)
    assert (finding.id, finding.question) == (claim.id, "optimization")
    assert (finding.statement, finding.source, finding.reason) == (claim.statement, claim.source, "")
    assert finding.predicted.value == 1.0
    assert finding.seconds >= 0


def test_a_broken_assumption_makes_it_inapplicable_and_is_named(claim: Claim) -> None:
    finding = check(claim, claim.fails_on())
    assert finding.verdict is Verdict.INAPPLICABLE
    assert finding.assumptions["below one"] is Assumption.BROKEN
    assert finding.reason == "not met: below one"


def test_without_its_assumptions_the_statement_fails(claim: Claim) -> None:
    finding = check(claim, claim.fails_on(), bypass_assumptions=True)
    assert finding.verdict is Verdict.VIOLATED
    assert set(finding.assumptions.values()) == {Assumption.ON_TRUST}
    assert finding.margin == pytest.approx(-1.0, abs=1e-8)


def test_an_assumption_on_the_draw_sees_the_seed_of_the_run_and_shifts_no_draw(claim: Claim) -> None:
    def drawn(case: float, generator: torch.Generator) -> float:
        return case + float(torch.rand((), generator=generator))

    def measure(case: float, generator: torch.Generator) -> Measurement:
        return Measurement("x", value := drawn(case, generator), value, value)

    drawing = replace(
        claim, assumptions={"below one": OnDraw(lambda case, generator: drawn(case, generator) < 1)}, measure=measure
    )
    verdicts = set()
    for seed in range(20):
        finding = check(drawing, generator=torch.Generator().manual_seed(seed))
        # The assumption is here the statement itself: it is met when, and only when, the number measured is at most 1.
        met = finding.measured.value < 1
        assert finding.verdict is (Verdict.HOLDS if met else Verdict.INAPPLICABLE)
        assert finding.measured.value == drawn(0.5, torch.Generator().manual_seed(seed))
        verdicts.add(finding.verdict)
    assert len(verdicts) == 2
    bypassed = check(drawing, 2.0, bypass_assumptions=True)
    assert (bypassed.verdict, bypassed.assumptions) == (Verdict.VIOLATED, {"below one": Assumption.ON_TRUST})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(lambda: exact("risk", float("nan")), "risk is not a number"), (lambda: 1 / 0, "division by zero")],
)
def test_what_cannot_be_computed_decides_nothing(claim: Claim, fault: Callable[[], Any], reason: str) -> None:
    undecided = replace(claim, measure=lambda case, generator: fault())
    finding = check(undecided)
    assert (finding.verdict, finding.reason) == (Verdict.INCONCLUSIVE, reason)
    assert (finding.measured.low, finding.measured.high) == (-math.inf, math.inf)
    assert check(undecided, claim.fails_on()).verdict is Verdict.INAPPLICABLE


@pytest.mark.parametrize("case", [0.0, 0])
def test_a_case_of_zero_is_a_case(claim: Claim, case: float) -> None:
    assert check(claim, case).measured.value < 1e-8


@pytest.mark.parametrize(
    ("status", "verdict"), [(Status.DIVERGED, Verdict.INCONCLUSIVE), (Status.BUDGET_SPENT, Verdict.HOLDS)]
)
def test_a_training_that_ended_badly_is_said(claim: Claim, status: Status, verdict: Verdict) -> None:
    def trained(case: float, generator: torch.Generator) -> tuple[Measurement, Outcome]:
        return Measurement("x", case, case, case), Outcome(status, "as it went")

    finding = check(replace(claim, measure=trained))
    assert finding.verdict is verdict
    assert finding.reason == "as it went"


def test_the_same_seed_gives_the_same_finding(claim: Claim) -> None:
    def finding(seed: int) -> Any:
        return replace(check(claim, generator=torch.Generator().manual_seed(seed)), seconds=0.0)

    assert finding(1) == finding(1)
    assert finding(1).measured != finding(2).measured
    assert replace(check(claim), seconds=0.0) == finding(0)  # no generator is seed 0


def test_judged_alone() -> None:
    measured = Measurement("x", 2.0, 2.0, 2.0)
    finding = judged(
        "a", question="optimization", statement="b", source="c", predicted=Prediction("at most", 1.0), measured=measured
    )
    assert finding.verdict is Verdict.VIOLATED
    assert finding.assumptions == {}


@pytest.mark.parametrize(
    ("change", "message"), [({"question": "depth"}, "give one of repr"), ({"source": ""}, "source")]
)
def test_what_a_claim_needs(claim: Claim, change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(claim, **change)  # type: ignore[arg-type]
