from __future__ import annotations

import pytest
import torch

from whydeep.core import Verdict, check
from whydeep.representation.theorems.linear_models_break_at_margin_over_dual_norm import Case, claim, predict


def test_it_says_yes_and_no() -> None:
    assert check(claim).verdict is Verdict.HOLDS
    assert check(claim, claim.fails_on()).verdict is Verdict.INAPPLICABLE
    assert check(claim, claim.fails_on(), bypass_assumptions=True).verdict is Verdict.VIOLATED
    # Half of the entries held: the dual norm halves, the radius doubles.
    damaged = check(claim, claim.corrupted())
    assert damaged.verdict is Verdict.VIOLATED
    assert damaged.measured.value > 1.5 * damaged.predicted.value


def test_the_prediction_in_one_dimension_by_hand() -> None:
    case = Case(samples=1, dimension=1, classes=2)
    model, data = case.model(), case.data()
    slope = float((model.weight[0, 0] - model.weight[1, 0]).detach())
    crossing = -float((model.bias[0] - model.bias[1]).detach()) / slope  # where both scores are equal
    expected = abs(float(data.x[torch.tensor([0])]) - crossing)
    assert predict(case, torch.Generator()).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_it_holds_on_a_hundred_images() -> None:
    assert claim.convincing is not None
    assert check(claim, claim.convincing()).verdict is Verdict.HOLDS
