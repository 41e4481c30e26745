from dataclasses import replace

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import LOSSES, target_rows
from whydeep.optimization.lagrangian.kkt import Lagrangian, State


def random_state(chain, x):
    """A state far from feasible, so that no term of the Lagrangian vanishes."""
    generator = torch.Generator().manual_seed(4)

    def draw(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    start = State.feasible(chain, chain.weights(), x)
    return State(
        tuple(map(draw, start.weights)),
        (x, *map(draw, start.states[1:])),
        tuple(map(draw, start.multipliers)),
    )


def case(loss="squared", n=9):
    """Mixed activations, with and without a bias, other constants in every layer."""
    network = nn.Sequential(
        nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 3)
    )
    data, chain = blobs(n, dtype=torch.float64), Chain.of(network)
    targets = target_rows(data.targets, 3)
    lagrangian = Lagrangian(chain, LOSSES[loss], targets, ridges=(0.1, 0.2, 0.3, 0.4), betas=(1.5, 0.7, 2.0, 1.1))
    return lagrangian, random_state(chain, data.x)


def gradients(lagrangian, state, **options):
    """Autograd's route: derivatives of the value by weights, states (V_0 is data) and multipliers."""
    leaves = [
        [t.clone().requires_grad_() for t in block] for block in (state.weights, state.states[1:], state.multipliers)
    ]
    value = lagrangian.value(State(tuple(leaves[0]), (state.states[0], *leaves[1]), tuple(leaves[2])), **options)
    found = iter(torch.autograd.grad(value, [t for block in leaves for t in block]))
    return [tuple(next(found) for _ in block) for block in leaves]


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)  # rounding of sums over some ten terms


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("n", [1, 9])
def test_residuals_are_the_gradients_of_the_ordinary_lagrangian(loss, n):
    lagrangian, state = case(loss, n)
    residuals = lagrangian.residuals(state)
    by_weight, by_state, by_multiplier = gradients(lagrangian, state, augmented=False)
    assert_same(residuals.weights, by_weight)
    assert_same(residuals.states, by_state)
    assert_same(residuals.feasibility, by_multiplier)
    everything = torch.cat([t.reshape(-1) for t in (*by_weight, *by_state, *by_multiplier)])
    assert residuals.norm == pytest.approx(float(everything.norm()), rel=1e-12)
    assert residuals.infeasibility == pytest.approx(
        float(torch.cat([t.reshape(-1) for t in by_multiplier]).norm()), rel=1e-12
    )


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_gradient_of_the_augmented_lagrangian_is_the_ordinary_one_at_the_next_multipliers(loss):
    # d/dW, d/dV of beta/2 ||gap||^2 is that of <beta gap, gap'> : L_aug at Lambda moves as L at Lambda + beta gap.
    lagrangian, state = case(loss)
    gaps = lagrangian.residuals(state).feasibility
    shifted = tuple(m + b * gap for m, b, gap in zip(state.multipliers, lagrangian.betas, gaps, strict=True))
    by_weight, by_state, _ = gradients(lagrangian, state)
    residuals = lagrangian.residuals(replace(state, multipliers=shifted))
    assert_same(residuals.weights, by_weight)
    assert_same(residuals.states, by_state)


def test_value_written_out_for_one_unit():
    # W = [2, 1] (weight, bias), x = 3: U = 7; V = 5, Y = 4, Lambda = 0.5, ridge 0.1, beta 2.
    # 1/2 (5 - 4)^2 + 0.1/2 (4 + 1) + 0.5 * 2 + 2/2 * 2^2 = 0.5 + 0.25 + 1 + 4.
    chain = Chain.of(nn.Sequential(nn.Linear(1, 1)))

    def one(*numbers):
        return torch.tensor([numbers], dtype=torch.float64)

    lagrangian = Lagrangian(chain, LOSSES["squared"], one(4.0), (0.1,), (2.0,))
    state = State((one(2.0, 1.0),), (one(3.0), one(5.0)), (one(0.5),))
    assert float(lagrangian.value(state)) == pytest.approx(5.75)
    assert float(lagrangian.value(state, augmented=False)) == pytest.approx(1.75)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_back_propagated_gradients_satisfy_the_conditions_on_the_states(loss):
    lagrangian, state = case(loss)
    start = State.feasible(lagrangian.chain, state.weights, state.states[0])
    x = state.states[0].requires_grad_()
    states = lagrangian.chain.states(state.weights, x)
    multipliers = torch.autograd.grad(lagrangian.loss.total(states[-1], lagrangian.targets), states[1:])
    residuals = lagrangian.residuals(replace(start, multipliers=multipliers))
    for residual in (*residuals.states, *residuals.feasibility):
        torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-12)  # rounding
    wrong = lagrangian.residuals(replace(start, multipliers=tuple(-m for m in multipliers)))
    assert max(float(residual.abs().max()) for residual in wrong.states) > 0.1
