"""Quadratic units: the convex problem behind them, and descent with enough and with too few."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.optimization.landscape.solvable.quadratic_networks import descend, enough_units, least_risk, misfit, risk


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signs(positive: int, negative: int) -> Tensor:
    return torch.cat([torch.ones(positive), -torch.ones(negative)]).double()


def test_the_risk_is_that_of_the_quadratic_form() -> None:
    weights, x, y = draw(5, 3, seed=1), draw(8, 3, seed=2), draw(8, seed=3)
    v = draw(5, seed=4)
    form = weights.T @ torch.diag(v) @ weights
    expected = sum((float(xi @ form @ xi) - float(yi)) ** 2 for xi, yi in zip(x, y, strict=True)) / 16
    assert float(risk(weights, v, x, y)) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_twice_the_units_times_the_misfit() -> None:
    weights, x, y, v = draw(4, 3, seed=1).requires_grad_(), draw(9, 3, seed=2), draw(9, seed=3), signs(2, 2)
    (slope,) = torch.autograd.grad(risk(weights, v, x, y), weights)
    values = weights.detach()
    torch.testing.assert_close(slope, 2 * v[:, None] * (values @ misfit(values, v, x, y)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("samples", [5, 10, 30])
def test_enough_units_reach_the_convex_optimum_for_any_data(samples: int) -> None:
    # d = 4: 10 products; 5 samples are fitted exactly, 30 noisy ones are not.
    x, y, v = draw(samples, 4, seed=5), draw(samples, seed=6), signs(4, 4)
    best = least_risk(x, y)
    if samples <= 10:
        assert best == pytest.approx(0, abs=1e-18)
    for seed in range(5):
        ended = descend(draw(8, 4, seed=10 + seed), v, x, y)
        assert float(risk(ended, v, x, y)) == pytest.approx(best, abs=1e-8)
        assert float(misfit(ended, v, x, y).norm()) < 1e-4  # the square root of what is left of the risk


def test_one_unit_is_caught_where_more_are_not() -> None:
    x, y = draw(30, 4, seed=5), draw(30, seed=6)
    ended = descend(draw(1, 4, seed=1), signs(1, 0), x, y)
    assert float(risk(ended, signs(1, 0), x, y)) > least_risk(x, y) + 0.01
    assert float(misfit(ended, signs(1, 0), x, y).norm()) > 0.01  # the certificate says so, too


def test_the_zero_network_is_a_saddle_with_its_way_down_in_the_misfit() -> None:
    x, y, v = draw(30, 4, seed=5), draw(30, seed=6), signs(4, 4)
    zero = torch.zeros(8, 4, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(misfit(zero, v, x, y))
    for unit, eigen in ((0, 0), (7, -1)):  # v > 0 with g < 0, and v < 0 with g > 0
        assert float(v[unit] * values[eigen]) < 0
        moved = zero.clone()
        moved[unit] = 0.05 * vectors[:, eigen]
        assert float(risk(moved, v, x, y)) < float(risk(zero, v, x, y))


def test_repeated_samples_and_one_input() -> None:
    # One input, x = 1 twice, targets 1 and 3: best form 2, risk 1/2 mean(1, 1).
    x, y = torch.ones(2, 1).double(), torch.tensor([1.0, 3.0]).double()
    assert least_risk(x, y) == pytest.approx(0.5, rel=1e-12)
    ended = descend(torch.tensor([[0.3], [0.2]]).double(), signs(1, 1), x, y)
    assert float(risk(ended, signs(1, 1), x, y)) == pytest.approx(0.5, abs=1e-10)


def test_enough_means_both_signs() -> None:
    assert enough_units(signs(4, 4), 4)
    assert not enough_units(signs(8, 0), 4)
    assert not enough_units(signs(4, 3), 4)
