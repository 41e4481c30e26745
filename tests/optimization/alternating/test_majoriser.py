import pytest
import torch
from torch import nn

from whydeep.optimization.alternating.activation import KINDS as ALL
from whydeep.optimization.alternating.activation import activation_of
from whydeep.optimization.alternating.majoriser import CONSTANTS, exact_constant, published_constant

KINDS = [kind for kind in ALL if activation_of(kind()).left is None]
GRID = torch.linspace(-30, 30, 60_001, dtype=torch.float64)


def misfit(activation, u, c):
    value, slope = activation.value_and_slope(u)
    return (value - c).square() / 2, (value - c) * slope


def excess(activation, curvature, c):
    """The largest amount by which the misfit exceeds its quadratic, over 200 points v and 2,000 points u."""
    generator = torch.Generator().manual_seed(0)
    v = 3 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    u = 4 * torch.randn(1, 2_000, generator=generator, dtype=torch.float64)
    at, slope = misfit(activation, v, c)
    quadratic = at + slope * (u - v) + curvature / 2 * (u - v).square()
    return float((misfit(activation, u, c)[0] - quadratic).max())


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_slope_are_those_of_the_module(kind):
    u = torch.linspace(-6, 6, 41, dtype=torch.float64, requires_grad=True)
    value = kind()(u)
    (slope,) = torch.autograd.grad(value.sum(), u)
    got_value, got_slope = activation_of(kind()).value_and_slope(u.detach())
    torch.testing.assert_close(got_value, value.detach(), rtol=0, atol=1e-14)  # rounding
    torch.testing.assert_close(got_slope, slope, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", sorted(CONSTANTS))
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 1.0), (-0.1, 0.1), (-3.0, 0.5), (0.5, 8.0), (-40.0, 40.0)])
def test_quadratic_lies_above_the_misfit(kind, constant, low, high):
    activation = activation_of(kind())
    curvature = CONSTANTS[constant](activation, low, high)
    for c in torch.linspace(low, high, 7).tolist():
        # The values are at most 1/2 (16 + 40)^2 = 1,600: their rounding is below 1e-11.
        assert excess(activation, curvature, c) <= 1e-11


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Tanh, nn.Identity])
@pytest.mark.parametrize("c", [-5.0, -1.0, -0.2, 0.0, 0.3, 0.5, 1.0, 2.0, 30.0])
def test_exact_constant_is_the_supremum_of_the_second_derivative(kind, c):
    u = GRID.clone().requires_grad_()
    (first,) = torch.autograd.grad((kind()(u) - c).square().sum() / 2, u, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), u)
    # The grid misses the maximum by at most 1/2 |f''''| (0.0005)^2, and |f''''| is below 20 (1 + |c|).
    assert exact_constant(activation_of(kind()), c, c) == pytest.approx(float(second.max()), abs=1e-5 * (1 + abs(c)))


def test_sigmoid_constants_worked_out_by_hand():
    sigmoid = activation_of(nn.Sigmoid())
    # c = 1/2: f'' = s(1 - s)[s(1 - s) - (1 - 2s)^2/2] = w (3 w - 1/2) with w = s(1 - s) <= 1/4: 1/4 * 1/4.
    assert exact_constant(sigmoid, 0.5, 0.5) == pytest.approx(1 / 16, rel=1e-9)
    # Symmetry s -> 1 - s maps c to 1 - c.
    assert exact_constant(sigmoid, -1.0, -1.0) == pytest.approx(exact_constant(sigmoid, 2.0, 2.0), rel=1e-9)
    # The bound from |s'| <= 1/4 and |s''| <= 1/(6 sqrt 3).
    assert exact_constant(sigmoid, -7.0, 3.0) <= 1 / 16 + (1 + 7) / (6 * 3**0.5)


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Tanh])
def test_a_smaller_constant_is_no_majoriser(kind):
    activation = activation_of(kind())
    assert excess(activation, 0.9 * exact_constant(activation, 1.0, 1.0), 1.0) > 1e-6


def test_the_published_constant_needs_its_guard():
    sigmoid = activation_of(nn.Sigmoid())
    assert excess(sigmoid, 0.1 / 2, 0.1) > 1e-4
    assert published_constant(sigmoid, 0.1, 0.1) == exact_constant(sigmoid, 0.1, 0.1)
    assert published_constant(sigmoid, -0.5, 2.0) == 1.0  # max |c| / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_constant_of_an_interval_covers_every_point_in_it(kind):
    activation = activation_of(kind())
    whole = exact_constant(activation, -2.0, 3.0)
    assert all(exact_constant(activation, c, c) <= whole for c in torch.linspace(-2, 3, 41).tolist())
