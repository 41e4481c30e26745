"""States, co-states and Hamiltonians against autograd on the whole model, and against a layer written out in NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from layered_problems import convolutional_problem, residual_problem, samples, seeded
from problems import small_problem
from scipy.optimize import minimize
from torch import Tensor, nn

from whydeep.core import InputError, Problem
from whydeep.networks.residual import residual_mlp
from whydeep.optimization.hamiltonian import (
    Layer,
    extended_hamiltonian,
    hamiltonian,
    layers_of,
    maximise,
    trajectory,
)

PROBLEMS = {
    "residual": residual_problem,
    "convolutional": convolutional_problem,
    "mlp": lambda: small_problem("tanh", dtype=torch.float64),
    "relu": lambda: small_problem("relu", dtype=torch.float64),
}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]()


def test_layers_are_children_with_parameters_and_what_follows_them() -> None:
    kinds = [[type(module).__name__ for module in layer.modules] for layer in layers_of(convolutional_problem().model)]
    assert kinds == [
        ["Conv2d"],
        ["BatchNorm2d", "ReLU"],
        ["Residual", "MaxPool2d", "Dropout", "Flatten"],
        ["Linear"],
    ]
    model = small_problem().model
    assert [len(layer.modules) for layer in layers_of(model)] == [
        3,
        2,
        1,
    ]  # Flatten, Linear, Tanh; Linear, Tanh; Linear
    assert sum(len(layer.control) for layer in layers_of(model)) == len(list(model.parameters()))


def test_a_frozen_child_has_no_control() -> None:
    model = small_problem().model
    model[1].requires_grad_(False)  # type: ignore[index]
    assert [len(layer.control) for layer in layers_of(model)] == [2, 2]


def test_costates_are_minus_the_gradient_by_the_states(problem: Problem) -> None:
    x, targets = samples(problem)
    layers = layers_of(problem.model)
    path = trajectory(layers, problem.per_sample, x, targets)
    assert torch.equal(path.states[0], x)
    assert len(path.states) == 1 + len(layers) == 1 + len(path.costates)
    for index in range(1, len(path.states)):
        state = path.states[index].clone().requires_grad_()
        rest = nn.Sequential(*(module for layer in layers[index:] for module in layer.modules))
        losses = problem.per_sample(rest(state), targets)
        torch.testing.assert_close(losses.detach(), path.losses, rtol=1e-12, atol=1e-14)
        (slope,) = torch.autograd.grad(losses.sum(), state)
        torch.testing.assert_close(path.costates[index - 1], -slope, rtol=1e-12, atol=1e-14)


def test_the_hamiltonians_slope_is_minus_the_risks(problem: Problem) -> None:
    x, targets = samples(problem)
    layers = layers_of(problem.model)
    path = trajectory(layers, problem.per_sample, x, targets)
    slopes: list[Tensor] = []
    for index, layer in enumerate(layers):
        plain = torch.autograd.grad(hamiltonian(layer, path.states[index], path.costates[index]), layer.control)
        # On the trajectory both misfits are zero, so the extended Hamiltonian has the same slope.
        extended = torch.autograd.grad(extended_hamiltonian(layers, path, index, rho=5.0), layer.control)
        torch.testing.assert_close(plain, extended, rtol=1e-9, atol=1e-13)
        slopes += [slope.reshape(-1) for slope in plain]
    torch.testing.assert_close(-torch.cat(slopes), problem.gradient(), rtol=1e-10, atol=1e-14)


def test_a_gradient_step_of_every_layer_is_a_step_of_sgd(problem: Problem) -> None:
    ridge, step = 0.3, 0.05
    x, targets = samples(problem)
    other = problem.copy()
    layers = layers_of(other)
    path = trajectory(layers, problem.per_sample, x, targets)
    for index, layer in enumerate(layers):
        rise = torch.autograd.grad(extended_hamiltonian(layers, path, index, ridge=ridge), layer.control)
        with torch.no_grad():
            for value, slope in zip(layer.control, rise, strict=True):
                value += step * slope
    model = problem.copy()
    sgd = torch.optim.SGD(model.parameters(), lr=step, weight_decay=ridge)
    problem.per_sample(model(x), targets).mean().backward()
    sgd.step()
    for one, two in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def written_out(
    theta: np.ndarray, x: np.ndarray, following: np.ndarray, p: np.ndarray, before: np.ndarray, rho: float
) -> float:
    """The extended Hamiltonian of x + 0.5 tanh(W x + b), as in the docstring, by hand."""
    width = x.shape[1]
    weight, bias = theta[:-width].reshape(width, width), theta[-width:]
    active = np.tanh(x @ weight.T + bias)
    result = x + 0.5 * active
    slope = p + 0.5 * (p * (1 - active**2)) @ weight
    values = [
        p[i] @ result[i]
        - rho / 2 * np.sum((following[i] - result[i]) ** 2)
        - rho / 2 * np.sum((before[i] - slope[i]) ** 2)
        for i in range(len(x))
    ]
    return float(np.mean(values))


def test_the_extended_hamiltonian_and_its_maximum_against_scipy() -> None:
    problem = residual_problem(width=2)
    ridge, rho = 0.01, 0.8
    layers = layers_of(problem.model)
    path = trajectory(layers, problem.per_sample, *samples(problem))
    arrays = [one.numpy() for one in (path.states[2], path.states[3], path.costates[2], path.costates[1])]

    def flat() -> np.ndarray:
        return np.concatenate([value.detach().numpy().reshape(-1) for value in layers[2].control])

    def value(theta: np.ndarray) -> float:
        return written_out(theta, *arrays, rho) - ridge / 2 * float(theta @ theta)

    start = flat()
    ours = float(extended_hamiltonian(layers, path, 2, rho=rho, ridge=ridge).detach())
    assert ours == pytest.approx(value(start), rel=1e-13)
    found = minimize(lambda theta: -value(theta), start, method="BFGS", options={"gtol": 1e-9})
    rise = maximise(layers, path, 2, rho=rho, ridge=ridge, inner=200)
    # SciPy's slopes are differences, good to 1e-8; a maximum is flat, so its value is known to the square of that.
    assert rise == pytest.approx(-found.fun - value(start), rel=1e-9)
    assert rise > 1e-4
    np.testing.assert_allclose(flat(), found.x, atol=1e-5)
    assert rise == pytest.approx(value(flat()) - value(start), rel=1e-10)


def test_the_first_layer_holds_its_states_only() -> None:
    problem = residual_problem()
    layers = layers_of(problem.model)
    path = trajectory(layers, problem.per_sample, *samples(problem))
    layer = layers_of(residual_problem().model)[0]
    with torch.no_grad():
        layer.control[0].add_(0.1)
    moved = layer(path.states[0]).detach()
    wanted = (path.costates[0] * moved).sum(1) - 3.0 / 2 * (path.states[1] - moved).square().sum(1)
    got = extended_hamiltonian([layer, *layers[1:]], path, 0, rho=3.0)
    assert float(got.detach()) == pytest.approx(float(wanted.mean()), rel=1e-13)


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_layers_may_be_taken_in_any_order(problem: Problem, rho: float) -> None:
    results = []
    for order in (1, -1):
        model = problem.copy()
        layers = layers_of(model)
        path = trajectory(layers, problem.per_sample, *samples(problem))
        for index in range(len(layers))[::order]:
            maximise(layers, path, index, rho=rho, ridge=0.1, inner=4)
        results.append(model.state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
    assert any(not torch.equal(value, results[0][name]) for name, value in problem.model.state_dict().items())


def test_the_optimum_and_a_broken_search_leave_the_control_alone() -> None:
    problem = residual_problem()
    layers = layers_of(problem.model)
    path = trajectory(layers, problem.per_sample, *samples(problem))
    before = copy.deepcopy(problem.model.state_dict())
    flat = trajectory(layers, lambda output, target: 0 * output.sum(1), *samples(problem))
    assert maximise(layers, flat, 1, rho=1.0) == 0  # co-states zero: the present control is the best
    infinite = type(path)(path.states, tuple(float("nan") * one for one in path.costates), path.losses)
    assert maximise(layers, infinite, 1) == 0
    assert maximise([Layer((nn.Tanh(),)), *layers[1:]], path, 0) == 0  # nothing to choose
    torch.testing.assert_close(problem.model.state_dict(), before, rtol=0, atol=0)
    assert all(value.grad is None for value in problem.model.parameters())


def test_it_works_where_gradients_are_off() -> None:
    problem = residual_problem()
    layers = layers_of(problem.model)
    with torch.no_grad():
        path = trajectory(layers, problem.per_sample, *samples(problem))
        assert maximise(layers, path, 1, rho=1.0) > 0


class Skipping(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + super().forward(x)
        return result


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.only(x)
        return result


def test_what_is_no_sequence_of_separate_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"EMSA trains an nn.Sequential.*Bare"):
        layers_of(Bare(), solver="EMSA")
    # Its children one after another are not what it computes.
    with pytest.raises(InputError, match=r"EMSA trains an nn.Sequential.*Skipping"):
        layers_of(Skipping(nn.Linear(3, 3), nn.Tanh()), solver="EMSA")
    assert len(layers_of(nn.Sequential(nn.Linear(3, 3), Skipping(nn.Linear(3, 3), nn.Tanh())))) == 2
    with pytest.raises(InputError, match="no trainable parameter"):
        layers_of(nn.Sequential(nn.Tanh()))
    shared = nn.Linear(3, 3)
    with pytest.raises(InputError, match="layers 0 and 1 share a parameter"):
        layers_of(nn.Sequential(shared, nn.Tanh(), shared))


def test_a_residual_block_is_one_step_of_euler() -> None:
    generator = seeded()
    model = residual_mlp(4, 3, delta=0.25, generator=generator, scale=2.0).double()
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    expected = x
    for block in model:
        linear = block.f[0]
        expected = expected + 0.25 * torch.tanh(expected @ linear.weight.T + linear.bias)
    torch.testing.assert_close(model(x), expected, rtol=1e-14, atol=1e-15)
