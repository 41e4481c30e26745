import math

import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Data, Problem, Status
from whydeep.networks import mlp
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.dladmm import DLADMM, DLADMMIteration, fista_proximal
from whydeep.optimization.alternating.proximal import LOSSES, cross_entropy_proximal, target_rows

RHO = 0.7


def iteration(activation=nn.ReLU, loss="squared", sweeps=3, **options):
    layers = [nn.Linear(3, 6), activation(), nn.Linear(6, 4, bias=False), activation(), nn.Linear(4, 3)]
    network = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    chain = Chain.of(network, solver="DLADMM")
    data, solver = blobs(30, dtype=torch.float64), DLADMM(rho=RHO, **options)
    found = DLADMMIteration(solver, chain, LOSSES[loss], x=data.x, targets=target_rows(data.targets, 3))
    for _ in range(sweeps):
        found.sweep()
    return found


def function(model, weights, z, a):
    """The function as it is printed, from the blocks alone."""
    total, below = model.loss.total(z[-1], model.targets), model.x
    for index, (layer, w) in enumerate(zip(model.chain.layers, weights, strict=True)):
        residual = z[index] - layer.preactivation(w, below)
        total = total + RHO / 2 * residual.square().sum()
        if index < len(a):
            total = total + RHO / 2 * (a[index] - layer.activation.value_and_slope(z[index])[0]).square().sum()
            below = a[index]
    return total + (model.multiplier * residual).sum()


def blocks_of(model):
    return list(model.weights()), [z.clone() for z in model.preactivations], [a.clone() for a in model.states]


def value(model):
    return float(function(model, *blocks_of(model)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_weights_take_the_gradient_step_that_is_best_for_each_unit(index):
    model = iteration()
    weights, z, a = blocks_of(model)
    old = weights[index].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(model, [*weights[:index], old, *weights[index + 1 :]], z, a), old)
    model._weight_step(index)
    new = model.weights()[index]
    inputs = old.shape[1] - model.chain.layers[index].bias
    step, slope = (new - old.detach())[:, :inputs], gradient[:, :inputs]
    lengths = -step.norm(dim=1) / slope.norm(dim=1)
    torch.testing.assert_close(step, lengths[:, None] * slope, rtol=1e-9, atol=1e-12)  # downhill along the gradient
    # No factor of any unit's step does better: the derivative along it vanishes at its end.
    end = new.clone().requires_grad_()
    (there,) = torch.autograd.grad(function(model, [*weights[:index], end, *weights[index + 1 :]], z, a), end)
    assert float((there[:, :inputs] * step).sum(1).abs().max()) < 1e-10 * float((slope * step).sum(1).abs().max())


@pytest.mark.parametrize("index", [0, 1])
def test_states_take_the_gradient_step_that_is_best_for_each_sample(index):
    model = iteration()
    weights, z, a = blocks_of(model)
    old = a[index].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(model, weights, z, [*a[:index], old, *a[index + 1 :]]), old)
    model._state_step(index)
    end = model.states[index].clone().requires_grad_()
    step = (end - old).detach()
    lengths = -step.norm(dim=1) / gradient.norm(dim=1)
    torch.testing.assert_close(step, lengths[:, None] * gradient, rtol=1e-9, atol=1e-12)
    (there,) = torch.autograd.grad(function(model, weights, z, [*a[:index], end, *a[index + 1 :]]), end)
    assert float((there * step).sum(1).abs().max()) < 1e-10 * float((gradient * step).sum(1).abs().max())


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.LeakyReLU])
def test_every_block_lowers_the_function_and_the_residuals_stay_true(activation, loss):
    model = iteration(activation, loss)
    for index in (2, 1, 0):
        for step in (model._state_step, model._preactivation_step, model._bias_step, model._weight_step):
            before = value(model)
            step(index)
            assert value(model) <= before + 1e-12 * abs(before)  # rounding
    below = [model.x, *model.states]
    for index, layer in enumerate(model.chain.layers):
        residual = model.preactivations[index] - layer.preactivation(model.weights()[index], below[index])
        torch.testing.assert_close(model.residuals[index], residual, rtol=0, atol=1e-12)  # kept, not computed


def test_biases_minimise():
    model = iteration()
    model._bias_step(2)
    weights, z, a = blocks_of(model)
    last = weights[2].requires_grad_()
    (gradient,) = torch.autograd.grad(function(model, weights, z, a), last)
    assert float(gradient[:, -1].abs().max()) < 1e-12
    before = model.weights()[1]
    model._bias_step(1)  # a layer without one
    assert torch.equal(model.weights()[1], before)


def test_hidden_preactivations_are_the_cheaper_of_two_candidates():
    model = iteration()
    model._preactivation_step(0)
    m, a = model.chain.layers[0].preactivation(model.weights()[0], model.x), model.states[0]
    right, left = ((m + a) / 2).clamp(min=0), m.clamp(max=0)

    def cost(u):
        return (a - u.relu()).square() + (u - m).square()

    expected = torch.minimum(cost(right), cost(left))
    torch.testing.assert_close(cost(model.preactivations[0]), expected, rtol=1e-12, atol=1e-12)


def test_the_multiplier_grows_by_the_residual():
    model = iteration()
    before = model.multiplier.clone()
    model.sweep()
    torch.testing.assert_close(model.multiplier - before, RHO * model.residuals[-1], rtol=1e-9, atol=1e-12)
    # After the output step the stationarity of Z_N says that the multiplier is minus the gradient of the loss.
    converged = iteration(nn.Tanh, sweeps=150)
    gradient = converged.loss.gradient(converged.preactivations[-1], converged.targets)
    gap = (converged.multiplier + gradient).norm()
    assert float(gap) < 0.05 * float(gradient.norm())


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_fista_agrees_with_newton(beta):
    centre = 2 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = target_rows(torch.arange(20) % 4, 4)
    exact = cross_entropy_proximal(centre, target, beta)
    # The function is beta-strongly convex: a gradient of 1e-3 an entry is within sqrt(4) 1e-3/beta.
    assert float((fista_proximal(centre, target, beta) - exact).abs().max()) <= 2e-3 / beta
    fine = fista_proximal(centre, target, beta, tolerance=1e-9, iterations=5000)
    torch.testing.assert_close(fine, exact, rtol=0, atol=2e-9 / beta + 1e-9)


def test_five_hundred_steps_of_fista_are_too_few_for_the_published_penalty():
    centre = torch.zeros(1, 10, dtype=torch.float64)
    target = target_rows(torch.tensor([3]), 10)
    exact, rough = (step(centre, target, 1e-6) for step in (cross_entropy_proximal, fista_proximal))
    # The tolerance of 1e-3 on the gradient is met long before the minimum, where the margin is 11 and more.
    assert float(exact[0, 3] - exact[0, 0]) > 11
    assert float(rough[0, 3] - rough[0, 0]) < 10


@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu", "sigmoid", "silu", "softplus", "tanh"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_network_learns(activation, loss):
    network = mlp((3, 20, 3), activation=activation, init="xavier", generator=torch.Generator().manual_seed(0)).double()
    training = DLADMM(sweeps=60).train(Problem(network, blobs(dtype=torch.float64), loss=loss))
    assert training.outcome.status is Status.BUDGET_SPENT
    assert float(training.history["error"][-1]) <= 0.15  # guessing errs by two thirds
    assert float(training.history["feasibility"][0]) == 0
    assert {len(values) for values in training.history.values()} == {61}


def test_digits_with_either_output_step():
    train, _ = digits(600)
    network = mlp((64, 50, 50, 10), init="he", generator=torch.Generator().manual_seed(0))
    problem = Problem(network, train)
    exact, fista = (DLADMM(sweeps=40, output=output, rho=0.1).train(problem) for output in ("exact", "fista"))
    assert float(exact.history["error"][-1]) < 0.1
    assert float(fista.history["error"][-1]) < 0.1


def test_a_restart_has_a_larger_penalty():
    model = iteration()
    assert model.restart(model.weights())
    assert model.rho == pytest.approx(10 * RHO)
    assert model.monitor()["feasibility"] == 0


@pytest.mark.parametrize("n", [1, 2])
def test_few_samples_and_width_one(n):
    data = Data(torch.eye(n, 3, dtype=torch.float64), torch.arange(n), classes=2)
    training = DLADMM(sweeps=5).train(Problem(mlp((3, 1, 1, 2), activation="relu").double(), data))
    assert not training.outcome.diverged
    assert bool(torch.isfinite(training.history["objective"]).all())


def test_a_gradient_of_zero_asks_for_no_step():
    x = torch.zeros(4, 3, dtype=torch.float64)
    network = mlp((3, 2, 2), activation="relu", init="he", generator=torch.Generator().manual_seed(0)).double()
    training = DLADMM(sweeps=2).train(Problem(network, Data(x, torch.tensor([0, 1, 0, 1]), classes=2)))
    assert torch.equal(training.model[1].weight, network[1].weight)
    assert not training.outcome.diverged


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sweeps": 0}, "sweeps=0"), ({"rho": 0.0}, "rho=0"), ({"rho": math.inf}, "rho=inf"), ({"output": "x"}, "fista")],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DLADMM(**options)
