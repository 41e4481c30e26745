from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError, global_seed
from whydeep.generalization.capacity.rademacher_average import rademacher_average
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop

SOLVER = Backprop(torch.optim.Adam, lr=1e-2, epochs=150, batch_size=None)


def fresh(generator: torch.Generator) -> nn.Module:
    with global_seed(generator):
        return mlp((3, 100, 3))


def test_a_network_that_can_memorise_follows_all_signs() -> None:
    found = rademacher_average(blobs(8), SOLVER, fresh=fresh, draws=2)
    assert found.value == 1
    assert "lower bound" in found.method


def test_equal_samples_can_only_be_followed_by_the_majority() -> None:
    """n equal points: the best function of them reaches |sum e_i| / n, in the mean about sqrt(2 / (pi n)) (n = 9:
    E |sum| / 9 = 9 C(8, 4) / 2^8 / 9 = 70/256)."""
    data = Data(torch.zeros(9, 3), torch.zeros(9).long(), classes=3)
    found = rademacher_average(data, Backprop(torch.optim.Adam, lr=0.1, epochs=20), fresh=fresh, draws=12)
    exact = 70 / 256
    # |sum e_i| / 9 is at most 1 and has standard deviation 0.2: of twelve draws 0.058.
    assert abs(found.value - exact) < 4 * 0.06
    assert 1 / 9 <= found.value < 1


@pytest.mark.parametrize(("samples", "draws"), [(3, 1), (3, 4), (9, 2)])
def test_the_interval_begins_where_mcdiarmid_says(samples: int, draws: int) -> None:
    data = Data(torch.zeros(samples, 3), torch.zeros(samples).long(), classes=3)
    found = rademacher_average(data, Backprop(torch.optim.Adam, lr=0.1, epochs=20), fresh=fresh, draws=draws)
    # exp(-2 t^2 / sum of squared changes) = .05, the m = n draws signs changing the mean by 2 / m each.
    signs = samples * draws
    assert math.exp(-2 * (found.value - found.low) ** 2 / (signs * (2 / signs) ** 2)) == pytest.approx(0.05)
    assert found.high == 1


def test_labels_are_not_looked_at() -> None:
    data = blobs(12)
    other = replace(data, y=torch.zeros(12).long())
    one, two = (
        rademacher_average(d, SOLVER, fresh=fresh, draws=1, generator=torch.Generator().manual_seed(5))
        for d in (data, other)
    )
    assert one.value == two.value


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="draws=0"):
        rademacher_average(blobs(8), SOLVER, fresh=fresh, draws=0)
    with pytest.raises(InputError, match="fewer than two classes"):
        rademacher_average(Data(torch.zeros(3, 3), torch.zeros(3, 1)), SOLVER, fresh=fresh)
    assert math.isfinite(rademacher_average(blobs(3), SOLVER, fresh=fresh, draws=1).value)
