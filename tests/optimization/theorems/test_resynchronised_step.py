"""Which of its assumptions the identity with a gradient step needs."""

from __future__ import annotations

import pytest
import torch

from whydeep.core import check, registry
from whydeep.core.verdict import Assumption, Verdict

CLAIM = registry.claims()["a_resynchronised_admm_sweep_is_a_preconditioned_gradient_step"]


def found(bypass: bool = False, **changes: object):  # type: ignore[no-untyped-def]
    case = type(CLAIM.holds_on())(**changes)
    return check(CLAIM, case, generator=torch.Generator().manual_seed(2), bypass_assumptions=bypass)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("beta", [1e-2, 1.0, 1e2])
def test_it_holds_for_every_penalty_and_loss(loss: str, beta: float) -> None:
    assert found(loss=loss, beta=beta).verdict is Verdict.HOLDS


def test_it_needs_feasible_states() -> None:
    finding = found(drift=1e-3)
    assert finding.assumptions["states are the forward pass"] is Assumption.BROKEN
    assert found(drift=1e-3, bypass=True).verdict is Verdict.VIOLATED


def test_it_needs_the_whole_gradient_as_multiplier() -> None:
    finding = found(dual=1.001)
    assert finding.assumptions["multipliers are back-propagated gradients"] is Assumption.BROKEN
    assert finding.assumptions["states are the forward pass"] is Assumption.CHECKED
    assert found(dual=1.001, bypass=True).verdict is Verdict.VIOLATED
