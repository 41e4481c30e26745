"""What the two claims on Pontryagin's method take for granted: the written-out network, the constants of the proof."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from whydeep.core import Verdict, check
from whydeep.optimization.hamiltonian import extended_hamiltonian, layers_of, trajectory
from whydeep.optimization.theorems import emsa_lowers_the_risk_where_msa_raises_it as emsa
from whydeep.optimization.theorems import the_linearised_msa_step_is_a_gradient_step as linearised


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_network_written_out_is_the_network(seed: int) -> None:
    case = emsa.Case(seed=seed, rho=12.0)
    problem = emsa._problem(case)
    hand = emsa._ByHand(case, problem.vector())
    layers = layers_of(problem.model)
    assert isinstance(problem.train.x, torch.Tensor)
    path = trajectory(layers, problem.per_sample, problem.train.x, problem.train.targets)
    assert hand.risk == pytest.approx(problem.risk(), rel=1e-13)
    for index in range(1, case.depth + 1):
        np.testing.assert_allclose(hand.costates[index], path.costates[index - 1].numpy(), rtol=1e-11, atol=1e-15)
    moved = emsa._ByHand.split(case, 1.3 * problem.vector())
    with torch.no_grad():
        for value in problem.model.parameters():
            value *= 1.3
    for index, control in enumerate(moved):
        other = float(extended_hamiltonian(layers, path, index, rho=12.0).detach())
        assert hand.extended(index, control) == pytest.approx(other, rel=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_for_any_step_whatever_moved_the_controls(seed: int) -> None:
    # The proof does not ask for a maximum: random steps of many sizes. The constant falls as rho rises, so that of
    # rho = 1, above 1 itself, is a rho that is at least its own constant.
    problem = emsa._problem(emsa.Case(seed=seed))
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        start = problem.vector()
        other = start + size * torch.randn(start.shape, dtype=start.dtype, generator=generator)
        case = emsa.Case(seed=seed, rho=1.0)
        following = emsa._ByHand.split(case, other)
        rho = emsa._ByHand(case, start).constant(following)
        assert rho > 1
        case = replace(case, rho=rho)
        hand = emsa._ByHand(case, start)
        assert hand.constant(following) <= rho
        assert emsa._ByHand(case, other).risk <= hand.risk - hand.gain(following) + 1e-15


@pytest.mark.parametrize("seed", range(4))
def test_emsa_holds_and_its_damage_shows_on_other_draws(seed: int) -> None:
    assert check(emsa.claim, emsa.Case(seed=seed)).verdict is Verdict.HOLDS
    assert check(emsa.claim, emsa.Case(seed=seed, terminal=3.0)).verdict is Verdict.VIOLATED
    assert check(emsa.claim, emsa.Case(seed=seed, rho=0.0), bypass_assumptions=True).verdict is Verdict.VIOLATED


def test_msa_itself_raises_the_risk_of_that_problem() -> None:
    case = emsa.Case(rho=0.0)
    risks = [emsa._ByHand(case, iterate).risk for iterate in emsa._iterates(case)]
    assert min(risks[1:]) > 5 * risks[0]
    case = emsa.Case()
    risks = [emsa._ByHand(case, iterate).risk for iterate in emsa._iterates(case)]
    assert all(later < earlier for earlier, later in pairwise(risks))


def test_a_rho_below_the_constant_is_not_covered() -> None:
    assert check(emsa.claim, emsa.Case(rho=3.0)).verdict is Verdict.INAPPLICABLE


@pytest.mark.parametrize("case", [linearised.Case(depth=1), linearised.Case(width=1), linearised.Case(samples=1)])
def test_the_linearised_step_at_the_edges(case: linearised.Case) -> None:
    assert check(linearised.claim, case).verdict is Verdict.HOLDS
