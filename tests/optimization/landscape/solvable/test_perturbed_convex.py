"""A function that is not convex and yet easy: its constants, and where it stops being easy."""

from __future__ import annotations

import math

import pytest
import torch

from whydeep.optimization.landscape.solvable.perturbed_convex import (
    convex,
    critical_amplitude,
    descend,
    dominance,
    gradient,
    smoothness,
    value,
)


def test_the_gradient_is_the_derivative() -> None:
    theta = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(theta, 2.7), theta)
    torch.testing.assert_close(gradient(theta.detach(), 2.7), slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("amplitude", [0.0, 0.9, 1.1, 3.0])
def test_curvatures_change_sign_beyond_amplitude_one_and_stay_below_l(amplitude: float) -> None:
    theta = torch.linspace(-7, 7, 20_001, dtype=torch.float64)
    curvature = 2 + 2 * amplitude * (2 * theta).cos()
    assert bool((curvature >= 0).all()) == convex(amplitude)
    assert float(curvature.max()) == pytest.approx(smoothness(amplitude), rel=1e-9)


def test_the_critical_amplitude_counts_the_critical_points() -> None:
    theta = torch.linspace(1e-3, 9, 900_000, dtype=torch.float64)

    def others(amplitude: float) -> int:
        return int((gradient(theta[:, None], amplitude)[:, 0].sign().diff() != 0).sum())

    assert others(critical_amplitude() - 1e-3) == 0
    assert others(critical_amplitude() + 1e-3) == 2  # a maximum and a minimum are born together
    assert math.tan(z := 4.493409457909064) == pytest.approx(z, rel=1e-9)
    assert critical_amplitude() == pytest.approx(-z / math.sin(z), rel=1e-12)


@pytest.mark.parametrize("amplitude", [0.2, 1.0, 3.0, 4.5])
def test_the_inequality_holds_everywhere_and_is_tight(amplitude: float) -> None:
    mu = dominance(amplitude)
    theta = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    ratios = gradient(theta[:, None], amplitude).square()[:, 0] / (2 * value(theta[:, None], amplitude))
    ratios = ratios[theta.abs() > 1e-9]
    assert float(ratios.min()) >= mu - 1e-12
    assert float(ratios.min()) <= mu * (1 + 1e-3) + 1e-6  # the grid of 2e-4 comes near the least value
    assert mu > 0


def test_karimis_constant_is_a_lower_one() -> None:
    # For a = 3 Karimi et al. give mu = 1/32 (recalled); the sharp constant can only be larger.
    assert dominance(3.0) >= 1 / 32


def test_without_perturbation_it_is_a_parabola() -> None:
    assert dominance(0.0) == 2
    start = torch.tensor([3.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(descend(start, 0.0, steps=1, step=0.5), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("amplitude", [3.0, 4.5])
def test_descent_converges_at_the_promised_rate(amplitude: float) -> None:
    theta = torch.linspace(-10, 10, 2001, dtype=torch.float64)[:, None]
    rate = 1 - dominance(amplitude) / smoothness(amplitude)
    first = value(theta, amplitude)
    for _ in range(60):
        after = descend(theta, amplitude, steps=1)
        # Values below 1e-20 are squares of roundings.
        assert bool((value(after, amplitude) <= rate * value(theta, amplitude) + 1e-20).all())
        theta = after
    assert bool((value(theta, amplitude) <= rate**60 * first + 1e-20).all())


def test_beyond_the_critical_amplitude_descent_is_caught() -> None:
    end = descend(torch.tensor([2.6], dtype=torch.float64), 6.0, steps=2000)
    assert float(gradient(end, 6.0).abs()) < 1e-9
    assert float(value(end, 6.0)) > 1
    assert dominance(6.0) == 0
    with pytest.raises(ValueError, match="amplitude=-1"):
        dominance(-1.0)
