"""Factorised problems: global minima in closed form, dual certificates, and slices that are zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.optimization.landscape.solvable.factorization import (
    concentrate,
    descend,
    dual_certificate,
    global_minimum,
    objective,
    zero_slices,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rank_three() -> Tensor:
    """Singular values 4, 2.5, 1.5, and a little noise."""
    left, _ = torch.linalg.qr(draw(7, 3, seed=1))
    right, _ = torch.linalg.qr(draw(5, 3, seed=2))
    return (left * torch.tensor([4.0, 2.5, 1.5]).double()) @ right.T + 0.02 * draw(7, 5, seed=3)


def test_the_global_minimum_is_attained_by_soft_thresholding() -> None:
    y = rank_three()
    left, strengths, right = torch.linalg.svd(y, full_matrices=False)
    root = (strengths - 1.0).clamp_min(0).sqrt()
    u, v = left * root, right.T * root
    assert float(objective(u, v, y, penalty=1.0)) == pytest.approx(global_minimum(y, penalty=1.0), rel=1e-12)
    certificate = dual_certificate(u, v, y, penalty=1.0)
    assert certificate.polar == pytest.approx(1, rel=1e-12)
    assert certificate.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_descent_with_spare_slices_ends_global_with_a_zero_slice(seed: int) -> None:
    y = rank_three()
    u, v = descend(draw(7, 5, seed=seed), draw(5, 5, seed=seed + 50), y, penalty=1.0)
    assert not bool(zero_slices([u, v]).any())  # hidden by a rotation of the slices
    turned = concentrate(u, v)
    torch.testing.assert_close(turned[0] @ turned[1].T, u @ v.T, rtol=1e-10, atol=1e-12)
    assert float(objective(*turned, y, penalty=1.0)) == pytest.approx(float(objective(u, v, y, penalty=1.0)), rel=1e-12)
    assert int(zero_slices(turned).sum()) == 2  # three singular values exceed the penalty
    certificate = dual_certificate(u, v, y, penalty=1.0)
    assert 0 <= certificate.gap + 1e-10 < 1e-8
    assert certificate.polar < 1 + 1e-8
    assert float(objective(u, v, y, penalty=1.0)) == pytest.approx(global_minimum(y, penalty=1.0), abs=1e-9)


def test_too_few_slices_leave_a_gap_that_the_certificate_sees() -> None:
    y = rank_three()
    u, v = descend(draw(7, 1, seed=1), draw(5, 1, seed=2), y, penalty=1.0)
    assert not bool(zero_slices(concentrate(u, v)).any())
    gap = float(objective(u, v, y, penalty=1.0)) - global_minimum(y, penalty=1.0)
    assert gap > 0.5
    certificate = dual_certificate(u, v, y, penalty=1.0)
    assert certificate.polar > 1.1
    assert certificate.gap >= gap  # a lower bound of the optimum leaves an upper bound of the gap
    assert float(objective(u, v, y, penalty=1.0)) == pytest.approx(global_minimum(y, penalty=1.0, slices=1), abs=1e-9)


def test_a_zero_slice_at_a_saddle_proves_nothing() -> None:
    y = rank_three()
    u, v = torch.zeros(7, 4).double(), torch.zeros(5, 4).double()
    assert bool(zero_slices([u, v]).all())
    assert dual_certificate(u, v, y, penalty=1.0).polar > 1


def test_the_certificate_bounds_the_gap_anywhere() -> None:
    y = rank_three()
    best = global_minimum(y, penalty=0.7)
    for seed in range(20):
        u, v = draw(7, 3, seed=seed), draw(5, 3, seed=seed + 30)
        gap = float(objective(u, v, y, penalty=0.7)) - best
        assert dual_certificate(u, v, y, penalty=0.7).gap >= gap - 1e-12


def test_a_large_penalty_makes_zero_the_minimum() -> None:
    y = rank_three()
    assert global_minimum(y, penalty=5.0) == pytest.approx(0.5 * float(y.square().sum()), rel=1e-12)
    u, v = torch.zeros(7, 1).double(), torch.zeros(5, 1).double()
    assert dual_certificate(u, v, y, penalty=5.0).gap == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="above zero"):
        dual_certificate(u, v, y, penalty=0.0)


def test_slices_of_a_relu_network() -> None:
    first, second = draw(4, 6, seed=1), draw(2, 4, seed=2)
    first[2], second[:, 2] = 0, 0
    assert zero_slices([first.T, second]).tolist() == [False, False, True, False]
    first[1] = 0  # one factor alone is no zero slice
    assert zero_slices([first.T, second]).tolist() == [False, False, True, False]
