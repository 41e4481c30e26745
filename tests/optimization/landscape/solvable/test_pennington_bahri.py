"""Index against energy: closed forms against each other, quadrature, and drawn matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from whydeep.optimization import landscape
from whydeep.optimization.landscape.solvable.pennington_bahri import (
    FORMS,
    Form,
    critical_energy,
    density,
    index,
    left_edge,
    sample,
)


@pytest.mark.parametrize("phi", [0.05, 0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("form", FORMS)
def test_the_support_reaches_zero_at_the_critical_energy(phi: float, form: Form) -> None:
    # Two routes: the formula of eps_c, and the left end of the spectrum as the maximum of the inverse of G.
    eps = critical_energy(phi, form=form)
    assert left_edge(phi, eps, form=form) == pytest.approx(0, abs=1e-10)
    assert left_edge(phi, 0.9 * eps, form=form) > 0 > left_edge(phi, 1.1 * eps, form=form)
    assert index(phi, 0.999 * eps, form=form) == 0
    assert index(phi, 1.001 * eps, form=form) > 0


def test_the_critical_energy_by_the_discriminant_of_the_cubic() -> None:
    # At z = 0 the cubic 2 eps phi G^3 - 2 eps G^2 + (phi - 1) G - 1 has a double root exactly at eps_c.
    phi = 0.3
    a, b, c, d = 2 * phi, -2.0, phi - 1, -1.0  # a and b in units of eps

    def discriminant(eps: float) -> float:
        return (
            18 * a * b * c * d * eps**2
            - 4 * (b * eps) ** 3 * d
            + (b * c * eps) ** 2
            - 4 * a * eps * c**3
            - 27 * (a * d * eps) ** 2
        )

    eps = critical_energy(phi)
    assert discriminant(eps) == pytest.approx(0, abs=1e-12)
    assert discriminant(0.9 * eps) * discriminant(1.1 * eps) < 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("phi", "ratio"), [(0.1, 1.5), (0.25, 11.5), (0.5, 3.0), (0.75, 100.0)])
def test_the_index_is_the_integral_of_the_density(form: Form, phi: float, ratio: float) -> None:
    eps = ratio * critical_energy(phi, form=form)
    low = left_edge(phi, eps, form=form)
    # Substituting z = low + s^2 removes the square root at the edge, which quadrature takes badly.
    below, _ = integrate.quad(
        lambda s: 2 * s * density(low + s * s, phi, eps, form=form), 0, math.sqrt(-low), epsabs=1e-11
    )
    # The bulk of H0 ends near 1 + phi, that of H1 within a few standard deviations.
    grid = np.linspace(0, 12 * math.sqrt(1 + phi + 2 * eps), 4000)
    above = np.trapezoid([density(z, phi, eps, form=form) for z in grid], grid)
    assert index(phi, eps, form=form) == pytest.approx(below, abs=1e-8)
    assert below + above == pytest.approx(1, abs=2e-3)  # the rule's error at the square root of the right edge


def test_more_parameters_than_residuals_leave_half_of_the_null_space_negative() -> None:
    # phi = 2: half the eigenvalues of H0 are zero, and a vanishing Wigner part splits them evenly.
    assert index(2.0, 1e-9) == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(ValueError, match="fewer parameters"):
        critical_energy(1.0)


@pytest.mark.parametrize("form", FORMS)
def test_the_index_tends_to_one_half_and_never_falls(form: Form) -> None:
    energies = np.geomspace(1e-3, 1e6, 60)
    values = [index(0.3, eps, form=form) for eps in energies]
    assert (np.diff(values) >= -1e-12).all()
    assert values[0] == 0
    assert 0.48 < values[-1] < 0.5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phi", [0.05, 0.5, 1.0])
def test_the_index_stays_one_half_at_the_largest_energies(form: Form, phi: float) -> None:
    for eps in (1e16, 1e18, 1e30, 1e100, 1e300, 1e308):
        # What is missing falls as eps^(-1/3) where phi = 1 and H1 is singular, else faster.
        assert 0.5 - eps ** (-1 / 3) <= index(phi, eps, form=form) <= 0.5
    # The semicircle of variance 2 eps begins at -2 sqrt(2 eps); H0 is nothing beside it.
    if form == "linear":
        assert left_edge(phi, 1e30, form=form) == pytest.approx(-2 * math.sqrt(2e30), rel=1e-9)
    with pytest.raises(ValueError, match="above zero and finite"):
        index(phi, math.inf, form=form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phi", [1.2, 1.9, 2.0, 3.0])
@pytest.mark.parametrize("eps", [0.01, 0.5, 5.0, 1e6])
def test_more_parameters_than_residuals_have_the_index_of_drawn_matrices(form: Form, phi: float, eps: float) -> None:
    values = sample(phi, eps, 400, generator=torch.Generator().manual_seed(0), form=form)
    # Zero where H is singular comes with roundings of the largest; p >= 480 eigenvalues, rigid to a few.
    below = float((values < -1e-9 * float(values.abs().max())).double().mean())
    assert index(phi, eps, form=form) == pytest.approx(below, abs=0.005)


def test_three_halves_is_the_power_only_near_the_critical_energy() -> None:
    eps = critical_energy(0.25)

    def slope(near: float) -> float:
        return math.log(index(0.25, eps * (1 + near * 1.01)) / index(0.25, eps * (1 + near))) / math.log(1.01)

    assert slope(1e-3) == pytest.approx(1.5, abs=0.01)
    assert slope(0.02) == pytest.approx(1.47, abs=0.015)
    assert slope(1.0) < 1.3


@pytest.mark.parametrize("form", FORMS)
def test_drawn_matrices_have_the_index(form: Form) -> None:
    # 600 eigenvalues, rigid to O(1/p): a few of them, .003 each in two, may stand on the other side of zero.
    for ratio in (0.8, 1.5, 3.0, 11.5):
        eps = ratio * critical_energy(0.25, form=form)
        values = sample(0.25, eps, 2400, generator=torch.Generator().manual_seed(1), form=form)
        assert len(values) == 600
        assert float((values < 0).double().mean()) == pytest.approx(index(0.25, eps, form=form), abs=0.005)


@pytest.mark.parametrize("form", FORMS)
def test_drawn_matrices_have_the_moments_of_the_free_sum(form: Form) -> None:
    # R = k1 + k2 G + ...: free cumulants add, k1 = 1, k2 = phi + (2 eps or eps phi/2); variance = k2.
    phi, eps = 0.25, 0.5
    values = sample(phi, eps, 1600, generator=torch.Generator().manual_seed(2), form=form)
    variance = phi + (2 * eps if form == "linear" else eps * phi / 2)
    # Moments fluctuate by O(1/p) = 1/400; five times that.
    assert float(values.mean()) == pytest.approx(1, abs=0.0125)
    assert float(values.var()) == pytest.approx(variance, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_index_within_three_thousandths_at_1200(form: Form) -> None:
    for ratio in (0.8, 1.5, 3.0, 11.5):
        eps = ratio * critical_energy(0.25, form=form)
        values = sample(0.25, eps, 4800, generator=torch.Generator().manual_seed(0), form=form)
        assert float((values < 0).double().mean()) == pytest.approx(index(0.25, eps, form=form), abs=0.003)


def test_the_contract_names_it() -> None:
    assert landscape.pennington_bahri.index(0.25, landscape.pennington_bahri.critical_energy(0.25) / 2) == 0


def test_wrong_arguments_say_what_to_give() -> None:
    for phi, eps in ((0.0, 1.0), (0.2, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="above zero"):
            index(phi, eps)
    with pytest.raises(ValueError, match="linear, relu"):
        index(0.2, 0.1, form="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2"):
        sample(0.1, 0.1, 5)
