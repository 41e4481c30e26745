from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from whydeep.core import Data
from whydeep.generalization.capacity.chain import Chain, read_chain
from whydeep.generalization.capacity.growth_function import (
    log_growth,
    log_patterns,
    recalled_vc_dimension,
    vc_dimension,
    why_not_counted,
)
from whydeep.networks import cnn, mlp


def chain(model: nn.Module, *shape: int) -> Chain:
    return read_chain(model.double(), Data(torch.rand(4, *shape).double(), torch.arange(4) % 2, classes=2))


def test_layers_multiply_by_hand() -> None:
    # 3-4-2: 16 parameters and 4 ReLUs, then 26 parameters and one comparison; the powers are W_l.
    n = 1000
    first = math.log(2) + 16 * math.log(2 * math.e * n * 4 * 1 / 16)
    last = math.log(2) + 26 * math.log(2 * math.e * n * 1 * 2 / 26)
    assert log_growth(chain(mlp((3, 4, 2)), 3), n) == pytest.approx(first + last)
    # Five classes: ten comparisons of scores, (3 + 1) 4 + (4 + 1) 5 = 41 parameters.
    last = math.log(2) + 41 * math.log(2 * math.e * n * 10 * 2 / 41)
    assert log_growth(chain(mlp((3, 4, 5)), 3), n) == pytest.approx(first + last)


@pytest.mark.parametrize(("n", "d"), [(5, 2), (50, 2), (40, 6)])
def test_no_fewer_than_the_dichotomies_of_hyperplanes(n: int, d: int) -> None:
    """n points in general position in d dimensions: 2 sum_{k<=d} C(n-1, k) affine dichotomies (Cover 1965)."""
    exact = 2 * sum(math.comb(n - 1, k) for k in range(d + 1))
    assert log_growth(chain(mlp((d, 2)), d), n) >= math.log(exact)


def test_no_fewer_than_the_patterns_that_networks_show() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 2, generator=generator)
    found = set()
    for _ in range(20_000):
        hidden = torch.relu(x @ torch.randn(2, 3, generator=generator) + torch.randn(3, generator=generator))
        scores = hidden @ torch.randn(3, 2, generator=generator) + torch.randn(2, generator=generator)
        found.add(tuple((scores[:, 0] > scores[:, 1]).tolist()))
    assert len(found) > 150  # of 512: enough that a bound of the wrong size would show
    assert log_growth(chain(mlp((2, 3, 2)), 2), 9) >= math.log(len(found))


def test_the_vc_dimension_is_above_that_of_hyperplanes_and_cannot_be_shattered_above() -> None:
    linear = chain(mlp((6, 2)), 6)
    found = vc_dimension(linear)
    assert found >= 7  # the truth: d + 1
    assert log_growth(linear, found + 1, classes=2) < (found + 1) * math.log(2)


def test_the_derived_dimension_agrees_with_the_recalled_formula() -> None:
    """Both bound the same number by the same proof; the formula rounds a little and counts units otherwise."""
    deep = chain(mlp((64, 64, 64, 2)), 64)
    assert 0.7 < vc_dimension(deep) / recalled_vc_dimension(deep) < 1.3


def test_shared_weights_are_counted_once() -> None:
    seen = chain(cnn((1, 8, 8), 2, channels=(2, 3)), 1, 8, 8)
    assert sum(link.parameters for link in seen.links) == sum(
        v.numel() for v in cnn((1, 8, 8), 2, channels=(2, 3)).parameters()
    )
    # Every unit of the convolution decides on its own, and every pair in a window of four pixels.
    relu, pool = seen.links[0].maps
    assert (relu.comparisons, pool.comparisons) == (2 * 64, 2 * 16 * 6)


def test_patterns_are_never_more_than_all() -> None:
    assert log_patterns(10, 3, 9) == 10 * math.log(2)
    assert log_patterns(10**6, 1, 9) < 10**6 * math.log(2)


def test_sigmoids_are_refused() -> None:
    assert "Sigmoid" in (why_not_counted(chain(mlp((3, 4, 2), activation="sigmoid"), 3)) or "")
    assert why_not_counted(chain(mlp((3, 4, 2)), 3)) is None
