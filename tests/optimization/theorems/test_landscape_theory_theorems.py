"""The claims on the theory of the landscape: that they say no in more ways than their own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from whydeep.core import Verdict, check
from whydeep.optimization.landscape.solvable import linear_networks, pennington_bahri, perturbed_convex
from whydeep.optimization.theorems import a_zero_slice_at_a_local_minimum_makes_it_global as zero_slice
from whydeep.optimization.theorems import deep_linear_networks_have_saddles_without_negative_curvature as flat_saddles
from whydeep.optimization.theorems import gradient_descent_converges_on_a_perturbed_convex_function as perturbed
from whydeep.optimization.theorems import linear_networks_reach_the_least_risk_of_their_width_on_any_data as any_data
from whydeep.optimization.theorems import minima_of_a_spin_glass_lie_in_a_band as band
from whydeep.optimization.theorems import (
    near_the_identity_linear_networks_have_only_global_critical_points as identity,
)
from whydeep.optimization.theorems import one_relu_is_learned_from_almost_half_of_small_starts as one_relu
from whydeep.optimization.theorems import quadratic_networks_of_twice_their_inputs_have_no_poor_minima as quadratic
from whydeep.optimization.theorems import relu_students_have_poor_minima_from_six_units_on as students
from whydeep.optimization.theorems import the_index_of_a_random_hessian_grows_with_its_energy as index
from whydeep.optimization.theorems import the_tensor_power_method_converges_to_components as tensor


@pytest.mark.parametrize("widths", [(3, 3, 2, 2), (2, 5, 5, 5, 2)])
def test_the_zero_network_is_flat_at_every_width(widths: tuple[int, ...]) -> None:
    assert check(flat_saddles.claim, flat_saddles.Case(widths=widths)).verdict is Verdict.HOLDS


def test_with_two_layers_the_curvature_at_zero_is_the_strongest_correlation() -> None:
    case = flat_saddles.Case(widths=(4, 4, 3))
    measured = check(flat_saddles.claim, case, generator=torch.Generator().manual_seed(5)).measured.value
    x, y = case.data(torch.Generator().manual_seed(5))
    assert measured == pytest.approx(-float(torch.linalg.matrix_norm(y.T @ x / len(x), 2)), rel=1e-9)


def test_the_bound_near_the_identity_is_the_tools_own() -> None:
    # One network: the claim's prediction times sigma_min and the excess is `gradient_lower_bound`.
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    residuals = [0.3 * torch.eye(2, dtype=torch.float64)] * 2
    bound = linear_networks.gradient_lower_bound(residuals, x, 3 * x)
    smallest = float(torch.linalg.eigvalsh(x.T @ x / 9)[0])
    excess = float(linear_networks.risk([1.3 * torch.eye(2, dtype=torch.float64)] * 2, x, 3 * x))
    predicted = check(identity.claim, identity.Case(size=2, depth=2, tau=0.3, networks=2)).predicted.value
    assert bound == pytest.approx(predicted * smallest * excess, rel=1e-9)


def test_a_network_whose_first_layer_is_narrower_still_has_its_own_least_risk() -> None:
    assert check(any_data.claim, any_data.Case(widths=(8, 1, 4), starts=2)).verdict is Verdict.HOLDS
    assert check(any_data.claim, any_data.Case(widths=(8, 4), starts=2)).verdict is Verdict.HOLDS


def test_the_index_claim_sees_a_variance_that_is_too_large() -> None:
    finding = check(index.claim, dataclasses.replace(index.Case(), variance=1.6))
    assert finding.verdict is Verdict.VIOLATED
    assert finding.measured.value > finding.predicted.value
    critical = finding.predicted.constants["eps_c"]
    assert critical == pytest.approx(pennington_bahri.critical_energy(0.25), rel=1e-12)


def test_five_units_have_no_poor_minimum_and_six_have() -> None:
    five = check(students.claim, students.Case(units=(5,)), bypass_assumptions=True)
    assert (five.verdict, five.measured.value) == (Verdict.VIOLATED, 0)
    assert check(students.claim, students.Case(units=(6,))).measured.value == 1


def test_an_answer_a_third_too_large_is_seen() -> None:
    assert check(one_relu.claim, one_relu.Case(starts=60, answer=1.35)).verdict is Verdict.VIOLATED


@pytest.mark.parametrize(("positive", "negative"), [(8, 0), (3, 4)])
def test_units_of_one_sign_or_too_few_are_not_covered(positive: int, negative: int) -> None:
    finding = check(quadratic.claim, quadratic.Case(positive=positive, negative=negative, starts=2))
    assert finding.verdict is Verdict.INAPPLICABLE


def test_all_of_one_sign_cannot_fit_what_needs_both() -> None:
    finding = check(quadratic.claim, quadratic.Case(negative=0, positive=8, starts=2), bypass_assumptions=True)
    assert finding.verdict is Verdict.VIOLATED


def test_exactly_as_many_slices_as_needed_are_not_covered() -> None:
    assert check(zero_slice.claim, zero_slice.Case(slices=3, starts=1)).verdict is Verdict.INAPPLICABLE
    assert check(zero_slice.claim, zero_slice.Case(slices=4, starts=2)).verdict is Verdict.HOLDS


def test_a_slight_lean_of_the_components_is_seen() -> None:
    assert check(tensor.claim, tensor.Case(lean=0.01), bypass_assumptions=True).verdict is Verdict.VIOLATED


def test_the_rate_of_the_perturbed_function_is_that_of_its_amplitude() -> None:
    case = perturbed.Case(amplitude=4.5, starts=50)
    rate = 1 - perturbed_convex.dominance(4.5) / 11
    finding = check(perturbed.claim, case)
    assert finding.predicted.value == pytest.approx(rate**150, rel=1e-9)
    assert finding.verdict is Verdict.HOLDS


def test_couplings_a_third_too_strong_leave_the_band() -> None:
    assert check(band.claim, band.Case(scale=1.35, starts=60)).verdict is Verdict.VIOLATED
