"""Parle against its equations on a quadratic, and what ties its replicas together."""

from __future__ import annotations

import math

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import nn

from whydeep.core import Data, Problem
from whydeep.networks import cnn
from whydeep.optimization.parle import Parle


def scalar(start: float = 1.0) -> Problem:
    """R(w) = (w - 0)^2 / 2 for one weight: one sample x = 1, y = 0."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, start)
    return Problem(model, Data(torch.ones(1, 1).double(), torch.zeros(1, 1).double()), loss="squared")


def transcribed(starts: list[float], steps: int, solver: Parle) -> float:
    """The equations of the class, one replica a number."""
    xs, ys, zs = list(starts), list(starts), list(starts)
    gamma, rho = solver.gamma, solver.rho
    for step in range(1, steps + 1):
        ys = [y - solver.inner_lr * (y + gamma * (y - x)) for y, x in zip(ys, xs, strict=True)]
        zs = [solver.average * z + (1 - solver.average) * y for z, y in zip(zs, ys, strict=True)]
        if step % solver.inner == 0:
            middle = sum(xs) / len(xs)
            xs = [x - solver.lr * gamma * (x - z) - solver.lr * rho * (x - middle) for x, z in zip(xs, zs, strict=True)]
            ys, zs = list(xs), list(xs)
            gamma, rho = gamma * (1 + solver.gamma_scoping), rho * (1 + solver.rho_scoping)
    return sum(zs) / len(zs)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_it_is_its_equations(steps: int) -> None:
    solver = Parle(
        replicas=1, epochs=steps, inner=3, inner_lr=0.2, lr=0.7, gamma=0.5, gamma_scoping=0.3, rho=0.4, average=0.6
    )
    training = solver.train(scalar())
    assert float(training.model.weight.detach()) == pytest.approx(transcribed([1.0], steps, solver), rel=1e-12)
    assert training.history["spread"].max() == 0


def test_several_replicas_are_pulled_to_their_mean() -> None:
    solver = Parle(replicas=3, epochs=7, inner=2, rho=0.5, rho_scoping=0.2, spread=0.3)
    problem = scalar()
    training = solver.train(problem, generator=torch.Generator().manual_seed(0))
    spread = training.history["spread"]
    assert float(spread[0]) > 0.05
    assert float(spread[-1]) < 0.2 * float(spread[0])
    free = Parle(replicas=3, epochs=7, inner=2, rho=0.0, lr=0.0, spread=0.3)
    still = free.train(problem, generator=torch.Generator().manual_seed(0)).history["spread"]
    assert float(still[-1]) == pytest.approx(float(still[0]), rel=1e-12)  # lr = 0: no centre moves


def test_it_learns_and_says_how_far_apart_its_replicas_are() -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    training = Parle(replicas=3, epochs=30, batch_size=20, inner_lr=0.3).train(problem)
    assert training.history["loss"][-1] < 0.3 * training.history["loss"][0]
    assert 0 < float(training.history["spread"][-1]) < 0.2
    assert len(training.history["loss"]) == 31
    again = Parle(replicas=3, epochs=30, batch_size=20, inner_lr=0.3).train(problem)
    assert torch.equal(again.history["loss"], training.history["loss"])


def test_batch_norm_and_a_lone_last_sample() -> None:
    train, _ = digits(33)
    problem = Problem(cnn((1, 8, 8), 10, channels=(4,), batch_norm=True), train)
    training = Parle(replicas=2, epochs=2, batch_size=16).train(problem)
    assert math.isfinite(float(training.history["loss"][-1]))
    assert float(training.model[1].running_mean.abs().max()) > 0


def test_divergence_is_an_outcome_and_settings_are_checked() -> None:
    training = Parle(replicas=2, epochs=3, inner_lr=1e300).train(small_problem("relu", dtype=torch.float64))
    assert training.outcome.diverged
    assert all(torch.isfinite(value).all() for value in training.model.parameters())
    for options, message in (
        ({"replicas": 0}, "replicas=0"),
        ({"rho": -1.0}, "rho=-1.0"),
        ({"average": 1.0}, "average=1.0"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(ValueError, match=message):
            Parle(**options)  # type: ignore[arg-type]
    assert Parle(epochs=1).train(Problem(nn.Linear(3, 3), blobs())).history["loss"].shape == (2,)
