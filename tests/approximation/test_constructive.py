import math

import pytest
import torch

from whydeep.approximation.constructive import DEEPEST, sawtooth, squaring, tooth


def interpolant(x: torch.Tensor, m: int) -> torch.Tensor:
    """The piecewise linear interpolant of x^2 on the grid k 2^-m, straight from its definition."""
    left = torch.floor(x * 2**m).clamp(max=2**m - 1) / 2**m
    right = left + 2.0**-m
    return left**2 + (x - left) * (left + right)  # slope of the chord of x^2: left + right


@pytest.mark.parametrize("m", range(14))
def test_the_error_at_odd_multiples_is_exactly_the_stated_one(m: int) -> None:
    odd = (2 * torch.arange(2**m, dtype=torch.float64) + 1) / 2 ** (m + 1)
    error = squaring(m)(odd[:, None])[:, 0] - odd**2
    assert torch.equal(error, torch.full_like(error, 4.0 ** -(m + 1)))  # bitwise: all numbers are dyadic


@pytest.mark.parametrize("m", [0, 1, 2, 5, 9])
def test_the_network_is_the_interpolant_and_errs_on_one_side(m: int) -> None:
    x = torch.rand(2000, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    f = squaring(m)(x[:, None])[:, 0]
    # Random doubles have 53 bits: sums round by 2^-53, amplified by slopes of the teeth 2^m / 4^s < 1.
    assert torch.allclose(f, interpolant(x, m), rtol=0, atol=1e-15)
    error = f - x**2
    assert error.min() > -1e-15
    assert error.max() <= 4.0 ** -(m + 1) + 1e-15


def test_the_deepest_network_is_exact_and_one_more_layer_is_refused() -> None:
    for numerator in (1, 12345677, 2 ** (DEEPEST + 1) - 1):
        x = torch.tensor([[numerator / 2 ** (DEEPEST + 1)]], dtype=torch.float64)
        assert (squaring(DEEPEST)(x) - x**2).item() == 4.0 ** -(DEEPEST + 1)
    for depth in (-1, DEEPEST + 1):
        with pytest.raises(ValueError, match="53 bits"):
            squaring(depth)


@pytest.mark.parametrize("m", [1, 2, 7])
def test_parameters_are_20_m_minus_7(m: int) -> None:
    assert sum(p.numel() for p in squaring(m).parameters()) == 20 * m - 7


def test_another_coefficient_breaks_it() -> None:
    x = torch.linspace(0, 1, 4097, dtype=torch.float64)[:, None]
    assert (squaring(6, coefficients=(2.0, -3.9, 2.0))(x) - x**2).abs().max() > 10 * 4.0**-7


def test_the_sawtooth_is_the_tooth_composed() -> None:
    x = torch.linspace(0, 1, 1025, dtype=torch.float64)
    composed = x
    for k in range(1, 7):
        composed = tooth(composed)
        assert torch.equal(sawtooth(k)(x[:, None])[:, 0], composed)
        assert sum(p.numel() for p in sawtooth(k).parameters()) == 4 + 6 * (k - 1) + 3


def test_the_sawtooth_hits_alternating_points() -> None:
    k = 8
    x = torch.arange(2**k + 1, dtype=torch.float64) / 2**k
    assert sawtooth(k)(x[:, None])[:, 0].tolist() == [float(i % 2) for i in range(2**k + 1)]


def test_wrong_layers_are_refused_and_no_random_number_is_drawn() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sawtooth(0)
    before = torch.get_rng_state()
    squaring(3), sawtooth(3)
    assert torch.equal(before, torch.get_rng_state())
    assert math.isclose(float(tooth(torch.tensor(0.75))), 0.5)
