"""Per-sample gradients against one backward pass a sample, and the heat of batches against all batches."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from problems import blobs, small_problem
from torch import nn

from whydeep.core import InputError, Problem
from whydeep.core.loss import Loss
from whydeep.networks import mlp
from whydeep.optimization.langevin.clipped_gradients import batch_heat, clipped_gradients, per_sample_gradients


def one_by_one(problem: Problem) -> torch.Tensor:
    n = len(problem.train)
    return torch.stack([problem.gradient(problem.train.take(torch.tensor([i]))) for i in range(n)])


def test_they_are_those_of_single_samples() -> None:
    problem = small_problem(dtype=torch.float64)
    found = per_sample_gradients(problem.model, problem.per_sample, problem.train.x, problem.train.targets)
    torch.testing.assert_close(found, one_by_one(problem), rtol=1e-11, atol=1e-14)


def test_a_frozen_weight_and_a_scalar_are_handled() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3).double()
            self.scale = nn.Parameter(torch.tensor(2.0).double())
            self.linear.bias.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * self.linear(x)

    problem = Problem(Scaled(), blobs(dtype=torch.float64))
    found = per_sample_gradients(problem.model, problem.per_sample, problem.train.x, problem.train.targets)
    torch.testing.assert_close(found, one_by_one(problem), rtol=1e-11, atol=1e-14)
    clipped_gradients(problem.model, problem.per_sample, problem.train.x, problem.train.targets, clip=1e9)
    assert problem.model.linear.bias.grad is None
    mean = torch.cat([v.grad.reshape(-1) for v in problem.model.parameters() if v.grad is not None])
    torch.testing.assert_close(mean, problem.gradient(), rtol=1e-11, atol=1e-14)


def test_every_sample_is_clipped_before_the_mean() -> None:
    problem = small_problem(dtype=torch.float64)
    single = one_by_one(problem)
    clip = float(single.norm(dim=1).median())
    fraction = clipped_gradients(problem.model, problem.per_sample, problem.train.x, problem.train.targets, clip=clip)
    expected = torch.stack([g * min(1.0, clip / float(g.norm())) for g in single]).mean(0)
    found = torch.cat([value.grad.reshape(-1) for value in problem.model.parameters() if value.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)
    assert fraction == pytest.approx(float((single.norm(dim=1) > clip).double().mean()))
    assert 0.4 < fraction < 0.6


def test_a_zero_gradient_stays_zero() -> None:
    model = nn.Linear(2, 1).double()
    x = torch.zeros(3, 2).double()
    target = model(x).detach()
    assert clipped_gradients(model, Loss.of("squared"), x, target, clip=1.0) == 0.0
    assert all(float(value.grad.abs().max()) == 0.0 for value in model.parameters() if value.grad is not None)


def test_batch_normalisation_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    data = blobs()
    with pytest.raises(InputError, match="batch normalisation"):
        per_sample_gradients(model.train(), Loss.of("cross_entropy"), data.x, data.targets)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_clip_is_refused(clip: float) -> None:
    problem = small_problem()
    with pytest.raises(ValueError, match="give a finite number > 0"):
        clipped_gradients(problem.model, problem.per_sample, problem.train.x, problem.train.targets, clip=clip)


def test_the_variance_is_that_over_all_batches() -> None:
    model = mlp((3, 2, 3), activation="tanh", init="xavier", generator=torch.Generator().manual_seed(0)).double()
    problem = Problem(model, blobs(7, dtype=torch.float64))
    single, b = one_by_one(problem), 3
    means = torch.stack([single[list(chosen)].mean(0) for chosen in combinations(range(7), b)])
    variance = float((means - single.mean(0)).square().mean())  # over all 35 batches and p coordinates
    heat = batch_heat(problem, lr=0.3, beta=50.0, batch_size=b)
    assert heat.variance == pytest.approx(variance, rel=1e-10)
    assert 1 / heat.effective == pytest.approx(1 / 50 + 0.3 * variance / 2, rel=1e-12)
    assert heat.effective < heat.beta


def test_full_batches_heat_nothing_and_no_noise_leaves_that_of_the_batches() -> None:
    problem = small_problem(dtype=torch.float64)
    assert batch_heat(problem, lr=0.1, beta=7.0, batch_size=None).effective == pytest.approx(7.0)
    cold = batch_heat(problem, lr=0.1, beta=float("inf"), batch_size=1)
    assert cold.effective == pytest.approx(2 / (0.1 * cold.variance))
    with pytest.raises(ValueError, match="batch_size=0"):
        batch_heat(problem, lr=0.1, beta=1.0, batch_size=0)
