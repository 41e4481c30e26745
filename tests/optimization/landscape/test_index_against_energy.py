"""Index against energy on real networks: its parts by hand, and critical points inherited from smaller networks."""

from __future__ import annotations

import pytest
import torch
from problems import small_problem
from torch import Tensor

from whydeep.core import Data, InputError, Problem
from whydeep.networks import linear, mlp
from whydeep.optimization.landscape.dense_hessian import dense_hessian
from whydeep.optimization.landscape.index_against_energy import gauss_newton, index_against_energy
from whydeep.optimization.landscape.solvable import linear_networks


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_first_part_of_a_linear_model_is_the_whole_hessian() -> None:
    # f = W x + b: J_i^T J_i = I (x) [x; 1][x; 1]^T, in the order of W by rows, then b.
    x, y = draw(12, 3), draw(12, 2, seed=1)
    problem = Problem(linear(3, 2).double(), Data(x, y), loss="squared")
    moment, mean = x.T @ x / 12, x.mean(0)
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for k in range(2):
        rows = slice(3 * k, 3 * k + 3)
        expected[rows, rows], expected[rows, 6 + k], expected[6 + k, rows] = moment, mean, mean
        expected[6 + k, 6 + k] = 1
    torch.testing.assert_close(gauss_newton(problem), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense_hessian(problem), expected, rtol=1e-12, atol=1e-12)


def test_a_linear_model_agrees_with_no_second_part() -> None:
    x, y = draw(12, 3), draw(12, 2, seed=1)
    problem = Problem(linear(3, 2).double(), Data(x, y), loss="squared")
    seen = index_against_energy(problem, [draw(8, seed=s) for s in range(5)])
    assert len(seen.points) == 5
    assert all(point.index == point.foretold == 0 for point in seen.points)
    assert all(point.eps < 1e-20 for point in seen.points)
    assert seen.phi == pytest.approx(8 / 24)
    assert seen.verdict == "agrees"
    assert "5 of 5" in seen.sentence


def test_on_a_linear_network_it_meets_every_known_critical_point() -> None:
    x = draw(40, 4, seed=1)
    y = x @ draw(4, 3, seed=2) + 0.3 * draw(40, 3, seed=3)
    known = linear_networks.critical_points(x, y, 2)
    model = mlp((4, 2, 3), activation="identity", init="xavier").double()
    model[1].bias = model[3].bias = None
    starts = [torch.cat([weight.reshape(-1) for weight in point.weights]) for point in known]
    starts = [start + 1e-3 * draw(14, seed=number) for number, start in enumerate(starts)]
    seen = index_against_energy(Problem(model, Data(x, y), loss="squared"), starts)
    assert len(seen.points) == len(known) == 7, seen.sentence
    assert [point.energy for point in seen.points] == pytest.approx([point.risk for point in known], abs=1e-7)
    assert [point.index for point in seen.points] == pytest.approx([point.index / 14 for point in known])
    # At the zero network H0 vanishes, and what is left is symmetric about zero: one half is foretold; it is 6/14, since
    # two curvatures are zero.
    assert seen.points[-1].foretold == pytest.approx(0.5, abs=1e-3)
    assert seen.verdict == "differs"
    curve = seen.curve()
    assert [line.label for line in curve.lines] == ["measured", "random matrices"]
    assert curve.lines[0].y == tuple(point.index for point in seen.points)
    curve.plot()


def test_without_critical_points_it_is_not_testable() -> None:
    problem = Problem(
        mlp((3, 4, 2), activation="tanh", init="xavier", generator=torch.Generator().manual_seed(1)).double(),
        Data(draw(40, 3), draw(40, 2, seed=1)),
        loss="squared",
    )
    seen = index_against_energy(problem, [problem.vector()], most=2)
    assert seen.points == ()
    assert seen.difference is None
    assert seen.verdict == "not testable here"
    assert "nothing to compare" in seen.sentence


def test_other_losses_and_too_many_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="squared"):
        index_against_energy(small_problem(), [])
    few = Problem(linear(3, 2).double(), Data(draw(2, 3), draw(2, 2)), loss="squared")
    with pytest.raises(InputError, match="8 parameters for 4 residuals"):
        index_against_energy(few, [])
