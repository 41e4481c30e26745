"""Entropy-SGD on a quadratic, where the mean of its chain and its fixed point are known."""

from __future__ import annotations

import math

import pytest
import torch
from problems import small_problem

from whydeep.optimization import Backprop
from whydeep.optimization.entropy_sgd import EntropySGD


def run(steps: int, *, curvature: float = 2.0, size: int = 1, start: float = 1.0, **options: float) -> torch.Tensor:
    w = torch.nn.Parameter(torch.full((size,), start, dtype=torch.float64))
    optimizer = EntropySGD([w], generator=torch.Generator().manual_seed(0), **options)  # type: ignore[arg-type]

    def closure() -> torch.Tensor:
        w.grad = curvature * w.detach()
        return (curvature / 2 * w.detach().square()).sum()

    for _ in range(steps):
        optimizer.step(closure)
    return w.detach()


def transcribed(x: float, a: float, lr: float, gamma: float, inner: int, inner_lr: float, average: float) -> float:
    """Algorithm 1 without noise, on a x^2 / 2."""
    y = mu = x
    for _ in range(inner):
        y = y - inner_lr * (a * y - gamma * (x - y))
        mu = average * mu + (1 - average) * y
    return x - lr * gamma * (x - mu)


def test_a_step_is_that_of_the_algorithm() -> None:
    x = 1.0
    for step in range(3):
        x = transcribed(x, 2.0, 0.4, 0.5 * 1.1**step, 5, 0.1, 0.75)
    options = {"lr": 0.4, "gamma": 0.5, "scoping": 0.1, "inner": 5, "inner_lr": 0.1, "average": 0.75, "noise": 0.0}
    assert float(run(3, **options)) == pytest.approx(x, rel=1e-12)  # type: ignore[arg-type]


def test_a_long_chain_takes_the_gradient_of_the_local_entropy() -> None:
    # On a x^2 / 2 the window's mean is gamma x / (a + gamma), so with lr gamma = 1 a step sets x to that.
    options = {"lr": 1.0, "gamma": 1.0, "inner": 400, "inner_lr": 0.05, "average": 0.9, "noise": 0.0}
    assert float(run(1, **options)) == pytest.approx(1.0 / 3.0, abs=1e-9)  # type: ignore[arg-type]


def test_the_noise_has_the_papers_variance() -> None:
    # One inner step from x = 0, no gradient: y = sqrt(inner_lr) noise z, mu = y, x = lr gamma y.
    size = 20_000
    moved = run(
        1, curvature=0.0, size=size, start=0.0, lr=1.0, gamma=1.0, inner=1, inner_lr=0.25, average=0.0, noise=0.4
    )
    variance = float(moved.square().mean())
    # The mean of 20,000 squared Gaussians has a relative deviation of 1 %; the published code's noise is twice this.
    assert variance == pytest.approx(0.25 * 0.4**2, rel=4 * math.sqrt(2 / size))
    assert abs(float(moved.mean())) < 4 * math.sqrt(variance / size)


def test_its_state_restores_noise_and_scope() -> None:
    def make() -> tuple[torch.nn.Parameter, EntropySGD]:
        w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        return w, EntropySGD([w], lr=0.5, scoping=0.5, inner=3, noise=0.1, generator=torch.Generator().manual_seed(3))

    def step(w: torch.nn.Parameter, optimizer: EntropySGD) -> None:
        def closure() -> torch.Tensor:
            w.grad = w.detach().clone()
            return w.detach().square().sum()

        optimizer.step(closure)

    one, first = make()
    step(one, first)
    other, second = make()
    other.data.copy_(one.data)
    second.load_state_dict(first.state_dict())
    step(one, first)
    step(other, second)
    assert torch.equal(one, other)


def test_it_trains_a_network_by_back_propagation() -> None:
    problem = small_problem(dtype=torch.float64)
    solver = Backprop(EntropySGD, lr=1.0, epochs=10, batch_size=20, options={"inner": 5, "gamma": 1.0})
    training = solver.train(problem)
    assert training.history["loss"][-1] < 0.7 * training.history["loss"][0]
    again = solver.train(problem)
    assert torch.equal(training.history["loss"], again.history["loss"])


def test_what_it_refuses() -> None:
    w = torch.nn.Parameter(torch.ones(1))
    for options, message in (
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": 1.0, "gamma": -1.0}, "gamma is -1.0"),
        ({"lr": 1.0, "average": 1.0}, "average is 1.0"),
        ({"lr": 1.0, "inner": 0}, "inner=0"),
    ):
        with pytest.raises(ValueError, match=message):
            EntropySGD([w], **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give a closure"):
        EntropySGD([w], lr=1.0).step()
