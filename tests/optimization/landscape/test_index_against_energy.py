"""Index against energy on real networks: its parts by hand, and critical points inherited from smaller networks."""

from __future__ import annotations

import pytest
import torch
from problems import small_problem
from torch import Tensor

from whydeep.core import Data, InputError, Problem
from whydeep.networks import linear, mlp
from whydeep.optimization.landscape.dense_hessian import dense_hessian
from whydeep.optimization.landscape.index_against_energy import (
    CriticalPointSeen,
    IndexAgainstEnergy,
    gauss_newton,
    index_against_energy,
)
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
    assert len(seen.plot().get_lines()) == 2


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


def seen_at(*points: tuple[float, float]) -> IndexAgainstEnergy:
    """What searches would have brought that ended at points of these energies and indices, as the theory foretells."""
    rows = tuple(CriticalPointSeen(energy, index, index, 1.0) for energy, index in points)
    return IndexAgainstEnergy(rows, (), 0.5)


def test_an_index_that_rises_with_the_energy_is_said_to_grow() -> None:
    # One of 5! orders: the chance is 1/120 < 1 %.
    seen = seen_at((1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3), (5, 0.4))
    assert seen.correlation == pytest.approx((1, 1 / 120))
    assert seen.grows is True
    assert "grows with the energy (rank correlation 1.00 over 5 points)" in seen.sentence


def test_an_index_that_falls_or_is_shuffled_is_not_said_to_grow() -> None:
    falls = seen_at((1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1), (5, 0.0))
    assert falls.correlation == pytest.approx((-1, 1))
    assert falls.grows is False
    assert "is not seen to grow" in falls.sentence
    # 3 1 4 2 5: 3 of 10 pairs fall, tau = (7 - 3)/10; 1 + 4 + 9 + 15 = 29 of 120 orders have no more of them.
    shuffled = seen_at((1, 0.3), (2, 0.1), (3, 0.4), (4, 0.2), (5, 0.5))
    assert shuffled.correlation == pytest.approx((0.4, 29 / 120))
    assert shuffled.grows is False


def test_ties_make_growth_harder_to_see() -> None:
    # 0 0 1 1 2 2 in order: 12 of 15 pairs rise, none falls: tau-b = 12/sqrt(15 * 12), and 1 of 6!/2!^3 = 90 orders does
    # so, more than 1 %. The normal approximation would say .0085 and see growth.
    pairs = seen_at((1, 0.0), (2, 0.0), (3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2))
    assert pairs.correlation == pytest.approx((12 / 180**0.5, 1 / 90))
    assert pairs.grows is False
    assert seen_at((1, 0.0), (2, 0.0), (3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)).grows is True  # 1 of 630


def test_growth_is_not_testable_from_few_points_or_of_one_index() -> None:
    few = seen_at((1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3))
    # The same point met again, to within 1e-7, is no fifth one.
    again = seen_at((1, 0.0), (1 + 1e-9, 0.0), (2, 0.1), (3, 0.2), (4, 0.3))
    one = seen_at((1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0), (5, 0.0), (6, 0.0))
    for seen in (few, again, one):
        assert seen.correlation is None
        assert seen.grows is None
        assert "grow" not in seen.sentence
    assert len(again.distinct) == 4


def test_points_of_one_energy_and_two_indices_count_as_falling() -> None:
    # In the order of the energy 0 .2 | .1 at the same energy: whichever comes first in the tuple, the pair falls.
    one = seen_at((1, 0.0), (2, 0.1), (2, 0.2), (3, 0.3), (4, 0.4))
    other = seen_at((1, 0.0), (2, 0.2), (2, 0.1), (3, 0.3), (4, 0.4))
    assert one.correlation == other.correlation
    assert one.correlation is not None
    assert one.correlation[1] == pytest.approx(5 / 120)  # at most one pair out of order: 1 + 4 orders
    assert one.grows is False
