"""The rise of the risk along a line, and the scale on which it is large."""

from __future__ import annotations

import pytest
import torch
from problems import blobs, small_problem

from whydeep.core import Problem
from whydeep.networks import linear
from whydeep.optimization.landscape.hessian import Hessian
from whydeep.optimization.landscape.learned import learned
from whydeep.optimization.landscape.slices import rise


def test_a_small_step_rises_by_slope_and_curvature() -> None:
    problem = small_problem(dtype=torch.float64)
    v = torch.randn(len(problem.vector()), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit, step = v / v.norm(), 1e-3
    slope, curvature = float(problem.gradient() @ unit), float(unit @ Hessian(problem)(unit))
    both = [float(rise(problem, v, sign * step).mean()) for sign in (1, -1)]
    # Third derivatives leave errors of order step^3 in the odd and step^4 in the even part.
    assert (both[0] - both[1]) / 2 == pytest.approx(slope * step, rel=1e-5)
    assert (both[0] + both[1]) / 2 == pytest.approx(curvature * step**2 / 2, rel=1e-4)


def test_a_direction_of_length_zero_is_refused() -> None:
    problem = small_problem()
    with pytest.raises(ValueError, match="length 0"):
        rise(problem, torch.zeros(len(problem.vector())), 1.0)


def test_a_constant_network_has_learned_nothing() -> None:
    problem = Problem(linear(3, 3).double(), blobs(dtype=torch.float64))
    assert learned(problem.at(torch.zeros(12, dtype=torch.float64))) == 0


def test_with_squared_loss_the_least_squares_network_has_learned_the_explained_variance() -> None:
    data = blobs(dtype=torch.float64)
    x = torch.cat([data.x, torch.ones(len(data), 1)], 1).double()
    y = torch.nn.functional.one_hot(data.targets).double()
    solution = torch.linalg.lstsq(x, y).solution  # (4, 3)
    problem = Problem(linear(3, 3).double(), data, loss="squared")
    problem = problem.at(torch.cat([solution[:3].T.reshape(-1), solution[3]]))
    fitted = x @ solution
    explained = 0.5 * float((fitted - fitted.mean(0)).square().sum(1).mean())
    assert learned(problem) == pytest.approx(explained, rel=1e-10)
