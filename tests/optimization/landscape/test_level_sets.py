"""Components of sublevel sets against flood fill, and the layer-cake identity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.core import InputError
from whydeep.optimization.landscape.level_sets import layer_cake, sublevel_sets


def flooded(inside: Tensor) -> int:
    """The number of components of a set of grid points, by flood fill along edges and one diagonal."""
    left = {tuple(place) for place in inside.nonzero().tolist()}
    count = 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            row, column = stack.pop()
            for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)):
                if (row + i, column + j) in left:
                    left.remove((row + i, column + j))
                    stack.append((row + i, column + j))
    return count


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_merge_tree_counts_what_flood_fill_counts_at_every_level(seed: int) -> None:
    values = torch.randn(9, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = sublevel_sets(values)
    for level in values.reshape(-1).tolist():
        assert found.components(level) == flooded(values <= level)
        assert found.components(level - 1e-9) == flooded(values <= level - 1e-9)
    assert found.components(float(values.min()) - 1) == 0
    assert found.components(float(values.max())) == 1


def test_ties_and_plateaus_are_counted_alike() -> None:
    # Few different values: every level is reached by many points at once.
    values = torch.randint(4, (10, 10), generator=torch.Generator().manual_seed(3)).double()
    found = sublevel_sets(values)
    for level in (0.0, 1.0, 2.0, 3.0):
        assert found.components(level) == flooded(values <= level)
    assert sublevel_sets(torch.ones(4, 4)).simple


def test_two_wells_by_hand() -> None:
    # E = (x^2 - 1)^2 + x/4: two wells, the left lower; they meet at the maximum near x = 0 of height about 1.
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    e = (x * x - 1).square() + x / 4
    found = sublevel_sets(e)
    deep, shallow = found.basins
    assert float(x[deep.place[0]]) == pytest.approx(-1.03, abs=0.01)
    assert float(x[shallow.place[0]]) == pytest.approx(0.967, abs=0.01)
    # The derivative 4 x (x^2 - 1) + 1/4 vanishes near x = 1/16: E = (1 - 1/256)^2 + 1/64 = 1.0078.
    assert shallow.death == pytest.approx(1.0078, abs=1e-3)
    assert found.components(0.5) == 2
    assert found.poor_minima == (shallow,)
    assert not found.simple
    axes = found.plot()
    assert axes.get_xlabel() == "level u"


def test_no_poor_minimum_and_yet_two_components() -> None:
    # The converse of the proposition fails: two minima of equal height.
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    found = sublevel_sets((x * x - 1).square())
    assert found.components(0.5) == 2
    assert found.poor_minima == ()


def test_the_diagonal_of_the_triangles_joins_and_the_other_does_not() -> None:
    assert sublevel_sets(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).components(0.5) == 1
    assert sublevel_sets(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).components(0.5) == 2


def test_the_layer_cake_gives_the_landscape_back_and_the_printed_integrand_does_not() -> None:
    values = torch.rand(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(layer_cake(values), values, rtol=1e-13, atol=1e-14)
    # What the slide prints, theta IN Omega_u, integrated up to the largest value U: U - E instead of E.
    levels = torch.linspace(0, float(values.max()), 20001, dtype=torch.float64)
    printed = torch.stack([(value <= levels).double().mean() * levels[-1] for value in values.reshape(-1)])
    torch.testing.assert_close(printed, values.max() - values.reshape(-1), rtol=0, atol=1e-4)
    assert float((printed - values.reshape(-1)).abs().max()) > 0.5


def test_one_point_and_what_cannot_be_sampled() -> None:
    only = sublevel_sets(torch.tensor([3.0]))
    assert only.simple
    assert only.components(3.0) == 1
    with pytest.raises(InputError, match=r"shape \(2, 2, 2\)"):
        sublevel_sets(torch.zeros(2, 2, 2))
    with pytest.raises(InputError, match="NaN or inf"):
        sublevel_sets(torch.tensor([0.0, float("nan")]))
    with pytest.raises(InputError, match="nowhere below zero"):
        layer_cake(torch.tensor([-1.0, 0.0]))
