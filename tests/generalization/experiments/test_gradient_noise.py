from __future__ import annotations

import math

import pytest
import torch
from problems import small_problem
from torch import nn

from whydeep.core import Data, Problem
from whydeep.generalization.experiments.gradient_noise import GradientNoise, gradient_noise, per_sample_gradients


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_their_mean_is_the_gradient_and_the_model_keeps_no_trace() -> None:
    problem = small_problem(dtype=torch.float64)
    rows = per_sample_gradients(problem, problem.train)
    torch.testing.assert_close(rows.mean(0), problem.gradient())
    assert all(value.grad is None for value in problem.model.parameters())


def test_eigenvalues_are_those_of_the_dense_covariance() -> None:
    problem = small_problem(dtype=torch.float64)
    found = gradient_noise(problem, samples=len(problem.train), generator=seeded())
    dense = torch.cov(per_sample_gradients(problem, problem.train).T)
    slow = torch.linalg.eigvalsh(dense).flip(0)
    count = min(len(slow), found.samples)
    torch.testing.assert_close(found.eigenvalues[:count], slow[:count].clamp(min=0), rtol=1e-9, atol=1e-14)
    assert found.trace == pytest.approx(float(dense.trace()))


def test_a_linear_model_worked_by_hand() -> None:
    """f = w x, squared loss, targets 0, w = 1: g_i = x_i^2 = 1, 4, so g = 2.5, C = 4.5, ||g||^2 - C/2 = 4."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data = torch.ones(1, 1).double()
    data = Data(torch.tensor([[1.0], [2.0]]).double(), torch.zeros(2, 1).double())
    found = gradient_noise(Problem(model, data, loss="squared"), samples=2, generator=seeded())
    assert (found.trace, found.squared_gradient, found.effective_rank) == pytest.approx((4.5, 4.0, 1.0))
    assert found.noise_scale == pytest.approx(4.5 / 4)


def test_equal_eigenvalues_count_in_full() -> None:
    noise = GradientNoise(torch.tensor([2.0, 2.0, 2.0, 0.0]).double(), -1.0, 5)
    assert noise.effective_rank == pytest.approx(3)
    assert noise.noise_scale == math.inf
    assert GradientNoise(torch.zeros(3).double(), 0.0, 4).effective_rank == 0


def test_one_sample_has_no_spread() -> None:
    problem = small_problem()
    one = Problem(problem.model, problem.train.take(torch.tensor([0])))
    with pytest.raises(ValueError, match="at least 2"):
        gradient_noise(one, generator=seeded())
