from dataclasses import replace

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.networks import mlp
from whydeep.optimization.admm_sweep import output_step, pull, state_step, sweep, weight_step
from whydeep.optimization.chain import Chain
from whydeep.optimization.lagrangian import Lagrangian, State
from whydeep.optimization.majoriser import CONSTANTS, exact_constant, published_constant
from whydeep.optimization.proximal import LOSSES, SQUARED, target_rows

LAYERS = range(4)  # sigmoid, tanh, linear, linear (output)


def case(loss="squared", n=9):
    """A random state, far from feasible, of a network with all kinds of layers and other constants in each."""
    generator = torch.Generator().manual_seed(4)

    def draw(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    network = nn.Sequential(
        nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 3)
    )
    data, chain = blobs(n, dtype=torch.float64), Chain.of(network)
    start = State.feasible(chain, chain.weights(), data.x)
    state = State(
        tuple(map(draw, start.weights)), (data.x, *map(draw, start.states[1:])), tuple(map(draw, start.multipliers))
    )
    targets = target_rows(data.targets, 3)
    return Lagrangian(chain, LOSSES[loss], targets, ridges=(0.1, 0.2, 0.3, 0.4), betas=(1.5, 0.7, 2.0, 1.1)), state


def assert_stationary(value, variable, scale):
    (gradient,) = torch.autograd.grad(value, variable)
    # The equations are solved by Cholesky in float64: 1e-11 relative to the terms of the gradient.
    assert float(gradient.abs().max()) <= 1e-11 * max(1.0, scale)


@pytest.mark.parametrize("constant", sorted(CONSTANTS))
@pytest.mark.parametrize("index", LAYERS)
def test_weight_step_minimises_its_model(index, constant):
    lagrangian, state = case()
    layer, old, below = lagrangian.chain.layers[index], state.weights[index], state.states[index]
    beta, ridge = lagrangian.betas[index], lagrangian.ridges[index]
    wanted = state.states[index + 1] - state.multipliers[index] / beta
    gap, curvature = pull(layer, old, below, wanted, CONSTANTS[constant])
    new = weight_step(lagrangian, state, index, CONSTANTS[constant]).requires_grad_()
    change = layer.preactivation(new, below) - layer.preactivation(old, below)
    model = ridge / 2 * new.square().sum()
    model = model + beta * ((gap * change).sum() + curvature / 2 * change.square().sum())
    assert_stationary(model, new, float(beta * gap.norm() * below.norm()))


@pytest.mark.parametrize("constant", sorted(CONSTANTS))
@pytest.mark.parametrize("index", LAYERS[:-1])
def test_state_step_minimises_its_model(index, constant):
    lagrangian, state = case()
    above, old, weight = lagrangian.chain.layers[index + 1], state.states[index + 1], state.weights[index + 1]
    beta, beta_above = lagrangian.betas[index], lagrangian.betas[index + 1]
    wanted = state.states[index + 2] - state.multipliers[index + 1] / beta_above
    gap, curvature = pull(above, weight, old, wanted, CONSTANTS[constant])
    activated = torch.tanh(old.flip(0))  # any value that differs from the old state
    new = state_step(lagrangian, state, index, activated, weight, CONSTANTS[constant]).requires_grad_()
    change = above.preactivation(weight, new) - above.preactivation(weight, old)
    model = (state.multipliers[index] * (activated - new)).sum() + beta / 2 * (activated - new).square().sum()
    model = model + beta_above * ((gap * change).sum() + curvature / 2 * change.square().sum())
    assert_stationary(model, new, float(beta_above * gap.norm() * weight.norm()))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_output_step_minimises_the_augmented_lagrangian(loss):
    lagrangian, state = case(loss)
    outputs = lagrangian.chain.layers[-1].preactivation(state.weights[-1], state.states[-2])
    new = output_step(lagrangian, state, outputs).requires_grad_()
    value = lagrangian.value(replace(state, states=(*state.states[:-1], new)))
    (gradient,) = torch.autograd.grad(value, new)
    assert float(gradient.abs().max()) <= 1e-9  # the Newton tolerance 1e-10, times terms of about ten


@pytest.mark.parametrize("index", LAYERS)
def test_pull_is_the_gradient_of_the_misfit(index):
    lagrangian, state = case()
    layer, wanted = lagrangian.chain.layers[index], state.states[index + 1]
    preactivation = layer.preactivation(state.weights[index], state.states[index]).requires_grad_()
    value = (layer.activation.value_and_slope(preactivation)[0] - wanted).square().sum() / 2
    gap, _ = pull(layer, state.weights[index], state.states[index], wanted, exact_constant)
    torch.testing.assert_close(gap, torch.autograd.grad(value, preactivation)[0])


@pytest.mark.parametrize("constant", sorted(CONSTANTS))
@pytest.mark.parametrize("index", LAYERS)
def test_weight_and_state_steps_lower_the_augmented_lagrangian(index, constant):
    lagrangian, state = case("cross_entropy")
    before = float(lagrangian.value(state))
    weights = list(state.weights)
    weights[index] = weight_step(lagrangian, state, index, CONSTANTS[constant])
    assert float(lagrangian.value(replace(state, weights=tuple(weights)))) < before
    if index < LAYERS[-1]:
        layer, states = lagrangian.chain.layers[index], list(state.states)
        activated, _ = layer.activation.value_and_slope(layer.preactivation(state.weights[index], states[index]))
        states[index + 1] = state_step(
            lagrangian, state, index, activated, state.weights[index + 1], CONSTANTS[constant]
        )
        assert float(lagrangian.value(replace(state, states=tuple(states)))) < before


def test_output_weight_and_last_hidden_state_are_exact_minimisers():
    lagrangian, state = case()
    weight = weight_step(lagrangian, state, 3, exact_constant).requires_grad_()
    value = lagrangian.value(replace(state, weights=(*state.weights[:-1], weight)))
    assert_stationary(value, weight, float(value.detach()))
    layer, states = lagrangian.chain.layers[2], state.states
    activated, _ = layer.activation.value_and_slope(layer.preactivation(state.weights[2], states[2]))
    hidden = state_step(lagrangian, state, 2, activated, state.weights[3], exact_constant).requires_grad_()
    value = lagrangian.value(replace(state, states=(*states[:3], hidden, states[4])))
    assert_stationary(value, hidden, float(value.detach()))


def published_sweep(lagrangian: Lagrangian, state: State) -> State:
    """The published formulas written out directly (samples as columns, ones as the last row, sigmoid throughout)."""
    ridge, beta = lagrangian.ridges[0], lagrangian.betas[0]
    last = len(state.weights)
    W = [None, *state.weights]
    V = [v.T for v in state.states]
    A = [None, *(m.T for m in state.multipliers)]
    Y = lagrangian.targets.T

    def ones(v):
        return torch.cat([v, torch.ones_like(v[:1])])

    def slope(u):
        return torch.sigmoid(u) * (1 - torch.sigmoid(u))

    def eye(size):
        return torch.eye(size, dtype=torch.float64)

    inverse = torch.linalg.inv
    new = [None] * (last + 1)
    P = ones(V[last - 1])
    new[last] = (beta * V[last] - A[last]) @ P.T @ inverse(ridge * eye(len(P)) + beta * P @ P.T)
    for i in range(last - 1, 0, -1):
        P, B = ones(V[i - 1]), V[i] - A[i] / beta
        U, half = W[i] @ P, float(B.abs().max()) / 2
        G = (torch.sigmoid(U) - B) * slope(U)
        new[i] = beta * (half * U - G) @ P.T @ inverse(ridge * eye(len(P)) + beta * half * P @ P.T)
    states = [V[0]]
    for j in range(1, last - 1):
        C, B = torch.sigmoid(new[j] @ ones(states[j - 1])) + A[j] / beta, V[j + 1] - A[j + 1] / beta
        U, half, M = new[j + 1] @ ones(V[j]), float(B.abs().max()) / 2, new[j + 1][:, :-1]
        G = (torch.sigmoid(U) - B) * slope(U)
        right = beta * C + beta * M.T @ (half * M @ V[j] - G)
        states.append(inverse(beta * eye(len(V[j])) + beta * half * M.T @ M) @ right)
    M, bias = new[last][:, :-1], new[last][:, -1:]
    right = (
        beta * torch.sigmoid(new[last - 1] @ ones(states[-1])) + A[last - 1] - M.T @ (A[last] - beta * (V[last] - bias))
    )
    states.append(inverse(beta * eye(M.shape[1]) + beta * M.T @ M) @ right)
    outputs = new[last] @ ones(states[-1])
    states.append((Y + A[last] + beta * outputs) / (1 + beta))
    multipliers = [A[i] + beta * (torch.sigmoid(new[i] @ ones(states[i - 1])) - states[i]) for i in range(1, last)]
    multipliers.append(A[last] + beta * (outputs - states[last]))
    return State(tuple(new[1:]), tuple(v.T for v in states), tuple(m.T for m in multipliers))


def test_sweeps_equal_the_published_formulas_written_out_directly():
    data = blobs(20, dtype=torch.float64)
    start = torch.Generator().manual_seed(2)
    chain = Chain.of(mlp((3, 6, 5, 4, 3), activation="sigmoid", init="xavier", gain=4.0, generator=start).double())
    lagrangian = Lagrangian(chain, SQUARED, target_rows(data.targets, 3), ridges=(1e-2,) * 4, betas=(1.3,) * 4)
    ours = theirs = State.feasible(chain, chain.weights(), data.x)
    for _ in range(6):
        ours, theirs = sweep(lagrangian, ours, published_constant), published_sweep(lagrangian, theirs)
        for one, other in zip(
            (*ours.weights, *ours.states, *ours.multipliers),
            (*theirs.weights, *theirs.states, *theirs.multipliers),
            strict=True,
        ):
            # The Gram matrices have condition numbers of about 1e5: rounding of 1e-16 grows to 1e-11 a sweep.
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert float((ours.weights[0] - chain.weights()[0]).abs().max()) > 0.01  # something has moved


def test_a_state_that_is_not_finite_is_an_arithmetic_error():
    lagrangian, state = case()
    broken = replace(state, multipliers=(state.multipliers[0] * torch.nan, *state.multipliers[1:]))
    with pytest.raises(ArithmeticError, match="not finite"):
        sweep(lagrangian, broken, exact_constant)


def test_a_singular_gram_matrix_without_ridge_is_an_arithmetic_error():
    lagrangian, state = case(n=1)  # one sample: the Gram matrices have rank one
    with pytest.raises(ArithmeticError, match="larger ridge"):
        sweep(replace(lagrangian, ridges=(0.0,) * 4), state, exact_constant)
