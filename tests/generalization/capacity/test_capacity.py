from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from whydeep.core import Data, InputError
from whydeep.generalization.capacity.chain import read_chain
from whydeep.generalization.capacity.table import capacity_table
from whydeep.networks import cnn, mlp


def line(n: int) -> tuple[nn.Module, Data]:
    """Two classes at -1 and 1 with one in ten labels wrong, and the obvious classifier."""
    x = torch.where(torch.arange(n) % 2 == 0, -1.0, 1.0).double()[:, None]
    y = (x[:, 0] > 0).long()
    y[::10] = 1 - y[::10]
    model = nn.Sequential(nn.Linear(1, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[-1.0], [1.0]]).double()
    return model, Data(x, y, classes=2)


def test_a_small_network_on_many_samples_gets_a_bound_that_says_something() -> None:
    model, data = line(20_000)
    table = capacity_table(model, data)
    best = table.smallest
    assert best.value < 0.5
    assert best.value > 0.1  # never below the risk, which is 0.1
    assert best.value == pytest.approx(best.margin_loss + best.complexity + best.confidence_term)
    assert best.margin_loss >= 0.1
    assert best.name == "VC, growth function"  # two parameters, and no margin
    assert table["covering, counting parameters"].margin in (0.5, 1.0, 2.0)
    assert best.samples_needed < 20_000


def test_samples_needed_is_where_the_bound_crosses_one() -> None:
    model, data = line(20)
    table = capacity_table(model, data)
    for bound in table:
        assert bound.value > 1
        assert bound.vacuous
        needed = round(bound.samples_needed)
        assert table.value_at(bound.name, needed) < 1
        assert table.value_at(bound.name, int(needed * 0.97) - 1) >= 1
        assert bound.dominated_by in ("complexity", "confidence term")


def test_no_number_of_samples_helps_a_network_that_is_always_wrong() -> None:
    model, data = line(50)
    wrong = replace(data, y=(data.x[:, 0] < 0).long())
    assert capacity_table(model, wrong).smallest.samples_needed == math.inf


def test_an_untrained_network_has_no_distance_to_its_start() -> None:
    _, data = line(50)
    model = mlp((1, 4, 2)).double()
    near, far = capacity_table(model, data, start=model), capacity_table(model, data)
    complexity = {b.name: b.complexity for b in near}
    assert complexity["covering, spectral norms"] == 0.0
    assert (
        complexity["covering, counting parameters"]
        == {b.name: b.complexity for b in far}["covering, counting parameters"]
    )


def test_one_sample_and_width_one() -> None:
    data = Data(torch.ones(1, 1), torch.tensor([0]), classes=2)
    table = capacity_table(mlp((1, 1, 2)), data)
    assert all(math.isfinite(bound.value) and bound.value > 1 for bound in table)


def test_zero_weights() -> None:
    model, data = line(10)
    model[0].weight.data.zero_()
    table = capacity_table(model, data)
    assert all(bound.margin_loss == 1.0 for bound in table)
    assert read_chain(model, data).product == 0.0


def test_delta_is_a_probability() -> None:
    model, data = line(10)
    with pytest.raises(ValueError, match="delta=0"):
        capacity_table(model, data, delta=0)


NAMES = {
    "VC, growth function",
    "covering, counting parameters",
    "covering, spectral norms",
    "Rademacher, Frobenius norms, 2^L",
    "Rademacher, Frobenius norms, sqrt L",
    "Rademacher, l1 norms",
    "PAC-Bayes, spectral norms",
}


def images(n: int = 30) -> Data:
    x = torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(n) % 3, classes=3)


def test_every_row_is_there_with_its_source_or_left_out_with_a_reason() -> None:
    data = images()
    relu, tanh = mlp((64, 7, 3)).double(), mlp((64, 7, 3), activation="tanh").double()
    pooled = cnn((1, 8, 8), 3, channels=(2, 3)).double()
    assert {row.name for row in capacity_table(relu, data)} == NAMES
    for model in (relu, tanh, pooled):
        table = capacity_table(model, data)
        assert {row.name for row in table} | set(table.left_out) == NAMES
        assert not {row.name for row in table} & set(table.left_out)
        for row in table:
            assert row.value == pytest.approx(row.margin_loss + row.complexity + row.confidence_term)
            assert "derived" in row.source or "recalled, not checked" in row.source
            assert table[row.name] is row
    assert "Tanh" in capacity_table(tanh, data).left_out["VC, growth function"]
    assert set(capacity_table(pooled, data).left_out) == {name for name in NAMES if "Frobenius" in name}
    assert "MaxPool" in capacity_table(pooled, data).left_out["Rademacher, Frobenius norms, 2^L"]


def test_rows_are_found_by_number_and_name_only() -> None:
    table = capacity_table(mlp((64, 7, 3)).double(), images())
    assert table[0] is table.rows[0]
    assert len(table) == 7
    assert table.edges == 64 * 7 + 7 + 7 * 3 + 3
    with pytest.raises(KeyError, match="no row 'spectral'"):
        table["spectral"]


@pytest.mark.parametrize("name", sorted(NAMES - {"covering, spectral norms", "PAC-Bayes, spectral norms"}))
def test_scores_that_are_doubled_with_the_margins_change_nothing(name: str) -> None:
    """gamma has a grid of powers of two, so twice the scores have twice the best margin; no biases."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    doubled = nn.Sequential(*model[:3], nn.Linear(5, 3, bias=False)).double()
    doubled[3].weight.data = 2 * model[3].weight.data
    one, two = (capacity_table(each, images())[name] for each in (model, doubled))
    if one.margin is None or two.margin is None:
        assert one.value == pytest.approx(two.value)
        return
    assert two.margin == 2 * one.margin
    assert two.margin_loss == pytest.approx(one.margin_loss)
    # The norms' grids have other points at twice the norm for L = 2 layers: ratio 3/2.
    assert two.complexity == pytest.approx(one.complexity, rel=0.3)


def test_takes_a_pair_of_tensors() -> None:
    model, x, y = mlp((3, 4, 2)), torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 2
    values = [[row.value for row in capacity_table(model, data)] for data in ((x, y), Data(x, y, classes=2))]
    assert values[0] == values[1]


def test_regression_and_unknown_networks_are_refused() -> None:
    with pytest.raises(InputError, match="no classes"):
        capacity_table(mlp((3, 2)), Data(torch.zeros(4, 3), torch.zeros(4, 2)))
    with pytest.raises(InputError, match="GRU"):
        capacity_table(nn.Sequential(nn.GRU(3, 2)), Data(torch.zeros(4, 3), torch.zeros(4).long(), classes=2))
