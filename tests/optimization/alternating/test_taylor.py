import math

import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Data, Problem, Status
from whydeep.networks import mlp
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import LOSSES, target_rows
from whydeep.optimization.alternating.taylor import TaylorADMM, TaylorIteration

BETA, GAMMA = 0.7, 3.0


def iteration(activation=nn.ReLU, loss="squared", sweeps=3, **options):
    network = nn.Sequential(
        nn.Linear(3, 6), activation(), nn.Linear(6, 4, bias=False), activation(), nn.Linear(4, 3)
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    solver = TaylorADMM(beta=BETA, gamma=GAMMA, warm_start=1, **options)
    chain = Chain.of(network, solver="TaylorADMM")
    data = blobs(30, dtype=torch.float64)
    found = TaylorIteration(
        solver, chain, LOSSES[loss], x=data.x, targets=target_rows(data.targets, 3), generator=generator
    )
    for _ in range(sweeps):
        found.sweep()
    return found


def ones(v):
    return torch.cat([v, torch.ones_like(v[:, :1])], 1)


def value(model, weights, z, a, loss=True):
    """The function as it is printed, from the blocks alone."""
    total, below = model.loss.total(z[-1], model.targets) + (z[-1] * model.multiplier).sum(), model.x
    for index, (layer, w) in enumerate(zip(model.chain.layers, weights, strict=True)):
        inputs = ones(below) if layer.bias else below
        total = total + BETA * (z[index] - inputs @ w.T).square().sum()
        if index < len(a):
            total = total + GAMMA * (a[index] - layer.activation.value_and_slope(z[index])[0]).square().sum()
            below = a[index]
    return total


def blocks_of(model):
    return list(model.weights()), [z.clone() for z in model.preactivations], [a.clone() for a in model.states]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_weights_minimise_with_their_guard(index):
    model = iteration()
    old = model.weights()[index]
    model._weight_step(index)
    weights, z, a = blocks_of(model)
    new = weights[index].requires_grad_()
    below = a[index - 1] if index else model.x
    inputs = ones(below) if model.chain.layers[index].bias else below
    # The guard is 1e-6 of the mean diagonal of A'A, where the fit itself counts A'A.
    guard = 1e-6 * float(inputs.square().sum()) / inputs.shape[1]
    total = value(model, weights, z, a) / BETA + guard * (new - old).square().sum()
    (gradient,) = torch.autograd.grad(total, new)
    assert float(gradient.abs().max()) < 1e-9  # terms of size 1e3, condition number at most 1e6


@pytest.mark.parametrize("index", [0, 1])
def test_states_and_preactivations_minimise(index):
    model = iteration()
    model._weight_step(index)
    weights, z, _ = blocks_of(model)
    model._hidden_step(index)
    _, new_z, a = blocks_of(model)
    state = a[index].requires_grad_()
    (gradient,) = torch.autograd.grad(value(model, weights, z, a), state)
    assert float(gradient.abs().max()) < 1e-11  # terms of size 100
    # z: the published two candidates, the cheaper of which is taken.
    below = a[index - 1] if index else model.x
    m, state = model.chain.layers[index].preactivation(weights[index], below), state.detach()
    right, left = ((GAMMA * state + BETA * m) / (GAMMA + BETA)).clamp(min=0), m.clamp(max=0)

    def cost(u):
        return GAMMA * (state - u.relu()).square() + BETA * (u - m).square()

    torch.testing.assert_close(cost(new_z[index]), torch.minimum(cost(right), cost(left)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_output_minimises_and_the_multiplier_follows(loss):
    model = iteration(loss=loss)
    before = model.multiplier.clone()
    assert float(before.abs().max()) > 0
    model.sweep()
    moved = model.multiplier - before
    torch.testing.assert_close(moved, BETA * (model.preactivations[-1] - model._forward(2)), rtol=1e-12, atol=1e-12)
    model.multiplier = before
    weights, z, a = blocks_of(model)
    least = float(value(model, weights, z, a))
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1e-1, 1.0):  # the function is convex in Z_N: no point around it is lower
        for _ in range(20):
            other = z[-1] + scale * torch.randn(z[-1].shape, generator=generator, dtype=torch.float64)
            assert float(value(model, weights, [*z[:-1], other], a)) >= least - 1e-10


def test_monitor_is_the_function():
    model = iteration(nn.Tanh, "cross_entropy")
    values = model.monitor()
    assert values["objective"] == pytest.approx(float(value(model, *blocks_of(model))), rel=1e-12)
    assert values["feasibility"] > 0


def test_the_multiplier_waits_for_the_warm_start():
    assert float(iteration(sweeps=1).multiplier.abs().max()) == 0
    assert float(iteration(sweeps=2).multiplier.abs().max()) > 0


@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu", "sigmoid", "silu", "softplus", "tanh"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_network_learns(activation, loss):
    network = mlp((3, 20, 3), activation=activation, init="xavier", generator=torch.Generator().manual_seed(0)).double()
    problem = Problem(network, blobs(dtype=torch.float64), loss=loss)
    training = TaylorADMM(sweeps=40).train(problem, generator=torch.Generator().manual_seed(0))
    assert training.outcome.status is Status.BUDGET_SPENT
    assert float(training.history["error"][-1]) <= 0.15  # guessing errs by two thirds
    assert {len(values) for values in training.history.values()} == {41}


def test_digits_from_the_random_start():
    train, _ = digits(600)
    network = mlp((64, 50, 10), activation="relu", init="he", generator=torch.Generator().manual_seed(0))
    problem = Problem(network, train, loss="cross_entropy")
    random, forward = (
        TaylorADMM(sweeps=30, start=start).train(problem, generator=torch.Generator().manual_seed(0)).history["error"]
        for start in ("random", "forward")
    )
    assert float(random[-1]) < 0.1
    assert float(forward[-1]) > 1.3 * float(random[-1])  # the documented reason for the default


def test_a_restart_keeps_more_to_the_old_weights():
    model = iteration()
    assert model.restart(model.weights())
    assert model.guard == pytest.approx(1e-5)
    assert model.monitor()["feasibility"] == 0
    assert model.done == 0


@pytest.mark.parametrize("n", [1, 2])
def test_few_samples_and_width_one(n):
    data = Data(torch.eye(n, 3, dtype=torch.float64), torch.arange(n), classes=2)
    training = TaylorADMM(sweeps=5).train(Problem(mlp((3, 1, 1, 2), activation="relu").double(), data))
    assert not training.outcome.diverged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweeps": 0}, "sweeps=0"),
        ({"beta": 0.0}, "beta=0"),
        ({"gamma": math.inf}, "gamma=inf"),
        ({"warm_start": -1}, "warm_start=-1"),
        ({"start": "zero"}, "forward, random"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaylorADMM(**options)
