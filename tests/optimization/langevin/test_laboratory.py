"""The Langevin laboratory: each prediction by a second route, and the chains against it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from whydeep.optimization.langevin import (
    Experiment,
    concentration,
    double_well,
    escape_times,
    run_chains,
    stationary_variance,
)
from whydeep.optimization.langevin.double_well import DoubleWell, occupation
from whydeep.optimization.langevin.kramers import kramers_time, measured_time, passage_time
from whydeep.optimization.langevin.quadratic import measured_variance, predicted_variance


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def consistent(experiment: Experiment, *, bias: float = 0.0) -> None:
    """Every prediction lies within three half-widths of a 95 % interval (5.9 standard deviations), and the bias."""
    for point in experiment.points:
        half = (point.measured.high - point.measured.low) / 2
        assert abs(point.predicted - point.measured.value) < 3 * half + bias, point


def test_the_variance_is_the_fixed_point_of_its_recursion() -> None:
    a, eta, beta, s2 = 1.7, 0.4, 3.0, 0.6
    v = 0.0
    for _ in range(200):
        v = (1 - eta * a) ** 2 * v + eta**2 * s2 + 2 * eta / beta
    assert predicted_variance(curvature=a, lr=eta, beta=beta, batch_variance=s2) == pytest.approx(v, rel=1e-12)
    # In one piece: Gibbs at the temperature 1/beta + eta s2 / 2, enlarged by the step.
    heated = (1 / beta + eta * s2 / 2) / (a * (1 - eta * a / 2))
    assert predicted_variance(curvature=a, lr=eta, beta=beta, batch_variance=s2) == pytest.approx(heated, rel=1e-12)


def test_measured_variances_agree_with_and_without_batches() -> None:
    for s2 in (0.0, 2.0):
        consistent(stationary_variance((0.1, 0.8), curvature=1.0, beta=5.0, batch_variance=s2, generator=seeded()))


def test_one_step_reaches_the_variance_where_the_contraction_is_zero() -> None:
    found = measured_variance(curvature=1.0, lr=1.0, beta=2.0, generator=seeded())
    assert found.evaluations == 1
    assert found.low < 1.0 < found.high  # 2 eta / beta


@pytest.mark.parametrize("lr", [0.0, 2.0, 3.0])
def test_an_unstable_step_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="0 < eta a < 2"):
        predicted_variance(curvature=1.0, lr=lr, beta=1.0)


def test_the_wells_and_their_mass() -> None:
    well = DoubleWell(0.2)
    left, top, right = well.critical_points
    for point in (left, top, right):
        assert abs(float(well.force(torch.tensor(point, dtype=torch.float64)))) < 1e-12
    assert left < -1 < top < right < 1
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(well.energy(w), w)
    assert float(slope) == pytest.approx(float(well.force(w.detach())))
    # A plain sum over a grid in place of the quadrature.
    grid = np.linspace(-4, 4, 400_001)
    weight = np.exp(-5 * well.energy(grid))
    for low, high in ((-math.inf, top), (0.5, 1.5)):
        inside = weight[(grid > low) & (grid < high)].sum() / weight.sum()
        assert well.mass(low, high, beta=5.0) == pytest.approx(inside, abs=1e-5)
    assert well.mass(-math.inf, math.inf, beta=500.0) == pytest.approx(1.0)
    assert integrate.quad(lambda x: well.density(x, beta=2.0), -3, 3)[0] == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match="two wells"):
        DoubleWell(0.4)


def test_a_well_is_occupied_as_its_mass_says() -> None:
    # Steps of .01 shift the fractions by less than .005.
    consistent(double_well((1.0, 3.0), tilt=0.2, chains=2000, generator=seeded()), bias=0.005)
    with pytest.raises(ValueError, match="up to 5"):
        double_well((6.0,))


def test_no_tilt_is_even() -> None:
    found = occupation(DoubleWell(), beta=4.0, time=2.0, chains=2000, generator=seeded())
    assert abs(found.value - 0.5) < 4 * math.sqrt(0.25 / 2000)


def test_chains_gather_at_the_global_minimum() -> None:
    found = concentration((1.0, 8.0), chains=2000, generator=seeded())
    consistent(found, bias=0.01)
    assert found.points[1].predicted > 0.9 > 0.5 > found.points[0].predicted
    # The same on the other side.
    mirrored = concentration((1.0,), tilt=-0.3, chains=2000, generator=seeded())
    assert mirrored.points[0].predicted == pytest.approx(found.points[0].predicted, rel=1e-6)


def test_passage_times_by_a_solved_boundary_problem() -> None:
    # F' T' - T'' / beta = 1, T = 0 at the top, T' = 0 far left: central differences on a grid.
    well, beta, m = DoubleWell(0.1), 6.0, 3000
    _, top, _ = well.critical_points
    x = np.linspace(-2.5, top, m)
    h = x[1] - x[0]
    slope = x**3 - x + 0.1
    matrix = np.zeros((3, m))
    matrix[1, :] = 2 / (beta * h**2)
    matrix[0, 1:] = -1 / (beta * h**2) + slope[:-1] / (2 * h)
    matrix[2, :-1] = -1 / (beta * h**2) - slope[1:] / (2 * h)
    right = np.ones(m)
    matrix[1, 0], matrix[0, 1], right[0] = 1.0, -1.0, 0.0  # reflecting
    matrix[1, -1], matrix[2, -2], right[-1] = 1.0, 0.0, 0.0
    from scipy.linalg import solve_banded

    times = solve_banded((1, 1), matrix, right)
    exact = float(np.interp(well.critical_points[0], x, times))
    assert passage_time(well, beta=beta) == pytest.approx(exact, rel=2e-3)


def test_kramers_time_is_the_limit_of_high_barriers() -> None:
    well = DoubleWell()
    ratios = [passage_time(well, beta=beta) / kramers_time(well, beta=beta) for beta in (20.0, 60.0, 120.0)]
    assert abs(ratios[2] - 1) < abs(ratios[1] - 1) < abs(ratios[0] - 1)
    # The next term is of the order 1 / (beta dF): 1/30.
    assert ratios[2] == pytest.approx(1.0, abs=1 / 30)


def test_measured_passages_agree_when_the_overshoot_is_counted() -> None:
    consistent(escape_times((2.0, 6.0), lr=0.02, chains=400, generator=seeded()))
    # With long steps the overshoot is what separates the prediction from that of continuous time.
    found = measured_time(DoubleWell(), beta=4.0, lr=0.1, chains=2000, generator=seeded())
    half = (found.high - found.low) / 2
    assert abs(passage_time(DoubleWell(), beta=4.0, lr=0.1) - found.value) < 2 * half
    assert abs(passage_time(DoubleWell(), beta=4.0) - found.value) > 3 * half


def test_a_hopeless_wait_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller beta or a larger lr"):
        measured_time(DoubleWell(), beta=60.0)


def test_curves_say_what_they_show() -> None:
    experiment = stationary_variance((0.1, 1.0), chains=500, generator=seeded())
    assert f"{experiment.points[1].measured.value:.3g}" in experiment.curve.alt
    assert {line.role for line in experiment.curve.lines} == {"measured", "theory", "reference"}


def test_watching_can_stop_the_chains() -> None:
    seen = []

    def watch(step: int, places: torch.Tensor) -> bool:
        seen.append(step)
        return step == 3

    end = run_chains(
        lambda w: w, torch.ones(2).double(), lr=0.5, beta=math.inf, steps=9, generator=seeded(), watch=watch
    )
    assert seen == [1, 2, 3]
    assert end.tolist() == [0.125, 0.125]
