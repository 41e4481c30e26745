from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import blobs
from scipy.optimize import minimize
from threaded_group import together
from torch import nn

from whydeep.networks import mlp
from whydeep.optimization.alternating.admm.parts import Options, curvature, misfit_gradient, parts_of
from whydeep.optimization.alternating.admm.states import response, state_step, update_part
from whydeep.optimization.alternating.admm.sweep import sweep, sweep_parts, weight_step
from whydeep.optimization.alternating.admm.weights import weight_steps
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.majoriser import CONSTANTS, exact_constant, published_constant
from whydeep.optimization.alternating.proximal import LOSSES, SQUARED, target_rows
from whydeep.optimization.lagrangian.kkt import Lagrangian, State

LAYERS = range(4)  # sigmoid, tanh, linear, linear (output)


def case(loss="squared", n=9, first=nn.Sigmoid, second=nn.Tanh):
    """A random state, far from feasible, of a network with all kinds of layers and other constants in each."""
    generator = torch.Generator().manual_seed(4)

    def draw(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    network = nn.Sequential(
        nn.Linear(3, 5), first(), nn.Linear(5, 4, bias=False), second(), nn.Linear(4, 2), nn.Linear(2, 3)
    )
    data, chain = blobs(n, dtype=torch.float64), Chain.of(network)
    start = State.feasible(chain, chain.weights(), data.x)
    state = State(
        tuple(map(draw, start.weights)), (data.x, *map(draw, start.states[1:])), tuple(map(draw, start.multipliers))
    )
    targets = target_rows(data.targets, 3)
    return Lagrangian(chain, LOSSES[loss], targets, ridges=(0.1, 0.2, 0.3, 0.4), betas=(1.5, 0.7, 2.0, 1.1)), state


def whole(lagrangian, state):
    """The samples of the state in one part, in memory of its own."""
    fresh = replace(state, states=tuple(v.clone() for v in state.states))
    fresh = replace(fresh, multipliers=tuple(m.clone() for m in state.multipliers))
    return parts_of(fresh, lagrangian.targets, len(state.states[0]))


def pull(lagrangian, state, index, weight, below, constant):
    """The gradient of the layer's misfit by its pre-activations, and the curvature above it."""
    layer = lagrangian.chain.layers[index]
    (part,) = whole(lagrangian, state)
    wanted = part.wanted(index, lagrangian.betas[index])
    gap = misfit_gradient(layer, layer.preactivation(weight, below), wanted)
    return gap, curvature(layer, float(wanted.min()), float(wanted.max()), constant)


def state_after(lagrangian, state, index, *, activated, weight, constant=exact_constant, exact=False):
    """The new V_{index+1}."""
    (part,) = whole(lagrangian, state)
    _, h = pull(lagrangian, state, index + 1, weight, state.states[index + 1], constant)
    centre = activated + state.multipliers[index] / lagrangian.betas[index]
    pulled = response(lagrangian, index, weight, h)
    v, u = state_step(lagrangian, part, index, centre=centre, weight_above=weight, response=pulled, exact=exact)
    torch.testing.assert_close(u, lagrangian.chain.layers[index + 1].preactivation(weight, v), rtol=1e-11, atol=1e-11)
    return v


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
    gap, h = pull(lagrangian, state, index, old, below, CONSTANTS[constant])
    new = weight_step(lagrangian, state, index, CONSTANTS[constant]).requires_grad_()
    change = layer.preactivation(new, below) - layer.preactivation(old, below)
    model = ridge / 2 * new.square().sum()
    model = model + beta * ((gap * change).sum() + h / 2 * change.square().sum())
    assert_stationary(model, new, float(beta * gap.norm() * below.norm()))


@pytest.mark.parametrize("constant", sorted(CONSTANTS))
@pytest.mark.parametrize("index", LAYERS[:-1])
def test_state_step_minimises_its_model(index, constant):
    lagrangian, state = case()
    above, old, weight = lagrangian.chain.layers[index + 1], state.states[index + 1], state.weights[index + 1]
    beta, beta_above = lagrangian.betas[index], lagrangian.betas[index + 1]
    gap, h = pull(lagrangian, state, index + 1, weight, old, CONSTANTS[constant])
    activated = torch.tanh(old.flip(0))  # any value that differs from the old state
    new = state_after(lagrangian, state, index, activated=activated, weight=weight, constant=CONSTANTS[constant])
    new = new.requires_grad_()
    change = above.preactivation(weight, new) - above.preactivation(weight, old)
    model = (state.multipliers[index] * (activated - new)).sum() + beta / 2 * (activated - new).square().sum()
    model = model + beta_above * ((gap * change).sum() + h / 2 * change.square().sum())
    assert_stationary(model, new, float(beta_above * gap.norm() * weight.norm()))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_new_outputs_minimise_the_augmented_lagrangian(loss):
    lagrangian, state = case(loss)
    after = sweep(lagrangian, state, exact_constant)
    new = after.states[-1].clone().requires_grad_()
    value = lagrangian.value(State(after.weights, (*after.states[:-1], new), state.multipliers))
    (gradient,) = torch.autograd.grad(value, new)
    assert float(gradient.abs().max()) <= 1e-9  # the Newton tolerance 1e-10, times terms of about ten


@pytest.mark.parametrize("index", LAYERS)
def test_the_gradient_of_the_misfit_is_that_of_autograd(index):
    lagrangian, state = case()
    (part,) = whole(lagrangian, state)
    layer, wanted = lagrangian.chain.layers[index], part.wanted(index, lagrangian.betas[index])
    preactivation = layer.preactivation(state.weights[index], state.states[index]).requires_grad_()
    value = (layer.activation.value_and_slope(preactivation)[0] - wanted).square().sum() / 2
    gap, _ = pull(lagrangian, state, index, state.weights[index], state.states[index], exact_constant)
    torch.testing.assert_close(gap, torch.autograd.grad(value, preactivation)[0])


def leaky():
    return nn.LeakyReLU(0.3)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("first", [nn.Sigmoid, nn.ReLU, leaky])
@pytest.mark.parametrize("second", [nn.Tanh, nn.ReLU, leaky])
@pytest.mark.parametrize("index", LAYERS)
def test_weight_and_state_steps_lower_the_augmented_lagrangian(index, first, second, exact):
    lagrangian, state = case("cross_entropy", first=first, second=second)
    before = float(lagrangian.value(state))
    weights = list(state.weights)
    stepped, _ = weight_steps(lagrangian, whole(lagrangian, state), weights, Options(exact=exact))
    weights[index] = stepped[index]
    assert float(lagrangian.value(replace(state, weights=tuple(weights)))) < before
    if index < LAYERS[-1]:
        layer, states = lagrangian.chain.layers[index], list(state.states)
        activated, _ = layer.activation.value_and_slope(layer.preactivation(state.weights[index], states[index]))
        above = state.weights[index + 1]
        states[index + 1] = state_after(lagrangian, state, index, activated=activated, weight=above, exact=exact)
        assert float(lagrangian.value(replace(state, states=tuple(states)))) < before


def test_a_step_across_a_kink_is_shortened_unit_by_unit():
    # Samples 1 and -3, no bias, no ridge: A'A = 10. Unit 1: w = 1, wanted (-29, -29). Only the first sample is on the
    # right of the kink, so the step is (1 + 29)/10 = 3. At w = -2 the values are (0, 6), and 29^2 + 35^2 > 30^2 + 29^2;
    # at w = -1/2 they are (0, 1.5), still too much (29^2 + 30.5^2); at w = 1/4 it is 29.25^2 + 29^2: a quarter.
    # Unit 2: w = 1, wanted (2, 0): the step (1 - 2)/10 is taken whole.
    network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)).double()
    chain, x = Chain.of(network), torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    state = State(
        (torch.ones(2, 1, dtype=torch.float64), chain.weights()[1]),
        (x, torch.tensor([[-29.0, 2.0], [-29.0, 0.0]], dtype=torch.float64), x),
        (torch.zeros(2, 2, dtype=torch.float64), 0 * x),
    )
    lagrangian = Lagrangian(chain, SQUARED, x, ridges=(0.0, 1.0), betas=(1.0, 1.0))
    new = weight_step(lagrangian, state, 0, exact_constant)
    torch.testing.assert_close(new, torch.tensor([[0.25], [1.1]], dtype=torch.float64))


def least_weight(lagrangian, state, index):
    """A local minimum over W_{index+1} of the written-out sub-problem by L-BFGS, and its value."""
    layer, shape = lagrangian.chain.layers[index], state.weights[index].shape
    wanted = state.states[index + 1] - state.multipliers[index] / lagrangian.betas[index]

    def value_and_gradient(flat):
        weight = torch.tensor(flat, dtype=torch.float64).view(shape).requires_grad_()
        value, _ = layer.activation.value_and_slope(layer.preactivation(weight, state.states[index]))
        total = lagrangian.ridges[index] / 2 * weight.square().sum()
        total = total + lagrangian.betas[index] / 2 * (value - wanted).square().sum()
        return float(total.detach()), torch.autograd.grad(total, weight)[0].flatten().numpy()

    start = state.weights[index].flatten().numpy()
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15})
    return found.x, found.fun, value_and_gradient


@pytest.mark.parametrize("index", LAYERS)
def test_the_exact_weight_step_reaches_the_minimum_of_the_sub_problem(index):
    lagrangian, state = case(n=30)
    # From small weights, where the problem has one minimum nearby; from large ones each method falls into its own.
    state = replace(state, weights=tuple(weight / 10 for weight in state.weights))
    stepped, _ = weight_steps(lagrangian, whole(lagrangian, state), state.weights, Options(exact=True))
    _, least, evaluate = least_weight(lagrangian, state, index)
    value, gradient = evaluate(stepped[index].flatten().numpy())
    start, first = evaluate(state.weights[index].flatten().numpy())
    assert value < start
    assert value == pytest.approx(least, rel=1e-3)
    assert np.linalg.norm(gradient) <= 1e-2 * np.linalg.norm(first)


@pytest.mark.parametrize("index", LAYERS[:-1])
def test_the_exact_state_step_is_a_stationary_point_of_the_sub_problem(index):
    lagrangian, state = case()
    layer, states = lagrangian.chain.layers[index], state.states
    activated, _ = layer.activation.value_and_slope(layer.preactivation(state.weights[index], states[index]))
    new = state_after(
        lagrangian, state, index, activated=activated, weight=state.weights[index + 1], exact=True
    ).requires_grad_()
    value = lagrangian.value(replace(state, states=(*states[: index + 1], new, *states[index + 2 :])))
    (gradient,) = torch.autograd.grad(value, new)
    # Each step is the gradient through a Hessian of size ten or so; the last one was below 1e-7 of V.
    assert float(gradient.abs().max()) <= 1e-4


def test_output_weight_and_last_hidden_state_are_exact_minimisers():
    lagrangian, state = case()
    weight = weight_step(lagrangian, state, 3, exact_constant).requires_grad_()
    value = lagrangian.value(replace(state, weights=(*state.weights[:-1], weight)))
    assert_stationary(value, weight, float(value.detach()))
    layer, states = lagrangian.chain.layers[2], state.states
    activated, _ = layer.activation.value_and_slope(layer.preactivation(state.weights[2], states[2]))
    hidden = state_after(lagrangian, state, 2, activated=activated, weight=state.weights[3]).requires_grad_()
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


def assert_close(one, other, tolerance=1e-10):
    for left, right in zip(
        (*one.weights, *one.states, *one.multipliers), (*other.weights, *other.states, *other.multipliers), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def test_a_singular_gram_matrix_without_ridge_is_stepped_over():
    lagrangian, state = case(n=1)  # one sample: the Gram matrices have rank one
    after = sweep(replace(lagrangian, ridges=(0.0,) * 4), state, exact_constant)
    assert after.finite
    # One sample and no ridge: the linear output layer fits what it is asked for.
    wanted = state.states[4] - state.multipliers[3] / lagrangian.betas[3]
    found = lagrangian.chain.layers[3].preactivation(after.weights[3], state.states[3])
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("second", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_the_parts_of_the_samples_do_not_matter(rows, second):
    lagrangian, state = case("cross_entropy", second=second)
    expected = state
    for _ in range(3):
        expected = sweep(lagrangian, expected, exact_constant)
    fresh = replace(state, states=(state.states[0], *(v.clone() for v in state.states[1:])))
    fresh = replace(fresh, multipliers=tuple(m.clone() for m in state.multipliers))
    parts, weights, grams = parts_of(fresh, lagrangian.targets, rows), state.weights, {}
    assert len(parts) == -(-9 // rows)
    for _ in range(3):
        weights = sweep_parts(lagrangian, parts, weights, Options(), grams=grams)
    assert list(grams) == [0]
    assert_close(replace(fresh, weights=weights), expected)


@pytest.mark.parametrize("second", [nn.Tanh, nn.ReLU])
def test_two_holders_of_samples_get_the_result_of_one_by_the_sums_alone(second):
    lagrangian, state = case("cross_entropy", second=second)
    fresh = replace(state, states=(state.states[0], *(v.clone() for v in state.states[1:])))
    fresh = replace(fresh, multipliers=tuple(m.clone() for m in state.multipliers))
    parts = parts_of(fresh, lagrangian.targets, 5)

    def holder(group):
        weights = sweep_parts(lagrangian, [parts[group.rank]], state.weights, Options(group=group))
        return weights, group.calls

    (first, calls), (second_found, _) = together(2, holder)
    assert_close(replace(fresh, weights=first), sweep(lagrangian, state, exact_constant))
    assert all(torch.equal(one, other) for one, other in zip(first, second_found, strict=True))
    if second is nn.Tanh:
        # Sums and bounds, then the solves, dealt out. Behind a kink the shortened steps need sums of their own.
        assert calls == ["add", "maximum", "hand out", "hand out"]


def test_over_relaxation_moves_the_target_of_states_and_multipliers():
    lagrangian, state = case()
    (part,) = whole(lagrangian, state)
    weights, curvatures = weight_steps(lagrangian, [part], state.weights, Options())
    responses = [response(lagrangian, index, weights[index + 1], curvatures[index + 1]) for index in range(3)]
    update_part(lagrangian, part, weights, responses, Options(relaxation=1.6))
    layer = lagrangian.chain.layers[0]
    activated = layer.activation.value_and_slope(layer.preactivation(weights[0], state.states[0]))[0]
    relaxed = 1.6 * activated - 0.6 * state.states[1]
    expected = state_after(lagrangian, state, 0, activated=relaxed, weight=weights[1])
    torch.testing.assert_close(part.states[1], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(part.multipliers[0], state.multipliers[0] + 1.5 * (relaxed - expected))


@pytest.mark.parametrize("relaxation", [1.0, 1.5])
def test_a_state_that_meets_the_conditions_stays(relaxation):
    # Zero weights, one output: V is the forward pass 0 (tanh), the targets are the outputs, so the multipliers are 0.
    chain = Chain.of(mlp((3, 4, 2, 1), activation="tanh").double())
    x = blobs(7, dtype=torch.float64).x
    weights = tuple(torch.zeros_like(weight) for weight in chain.weights())
    state = State.feasible(chain, weights, x)
    lagrangian = Lagrangian(chain, SQUARED, torch.zeros(7, 1, dtype=torch.float64), ridges=(0.1,) * 3, betas=(1.0,) * 3)
    assert lagrangian.residuals(state).norm == 0
    assert_close(sweep(lagrangian, state, Options(relaxation=relaxation)), state)


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_kept_behind_a_kink_changes_nothing(exact):
    lagrangian, state = case(n=40, first=nn.ReLU, second=lambda: nn.LeakyReLU(0.3))
    options, found = Options(exact=exact), []
    for keep in (True, False):
        fresh = State(
            state.weights, tuple(v.clone() for v in state.states), tuple(m.clone() for m in state.multipliers)
        )
        parts, weights = parts_of(fresh, lagrangian.targets, 16, keep=keep), state.weights
        for _ in range(3):
            weights = sweep_parts(lagrangian, parts, weights, options)
            assert not any(part.kept for part in parts)  # nothing is left for the next sweep
        found.append((*weights, *fresh.states, *fresh.multipliers))
    # U - t dU against (W - t dW) A: the same but for rounding, which three sweeps enlarge a little.
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    _, start = case(n=40, first=nn.ReLU, second=lambda: nn.LeakyReLU(0.3))
    assert not torch.allclose(found[0][0], start.weights[0])
