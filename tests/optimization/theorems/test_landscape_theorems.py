"""The two claims on the landscape: what they compute, and that they can say no in more ways than their own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from whydeep.core import Verdict, check
from whydeep.optimization.theorems import gradient_factor_per_layer_is_mean_field as gradient
from whydeep.optimization.theorems import two_layer_linear_networks_have_no_poor_local_minima as linear


@pytest.mark.parametrize(("outputs", "width"), [(4, 1), (4, 2), (3, 3), (2, 4)])
def test_every_set_of_eigenvectors_agrees_at_every_width(outputs: int, width: int) -> None:
    case = linear.Case(outputs=outputs, width=width, seed=outputs)
    finding = check(linear.claim, case)
    assert finding.verdict is Verdict.HOLDS
    assert finding.predicted.constants["poor local minima"] == 0
    assert " 0 poor minima" in finding.measured.method


def test_a_network_of_one_unit_and_two_outputs_by_hand() -> None:
    # Sets {}, {1}, {2} with eigenvalues a < b: risks T/2, (T - a)/2, (T - b)/2, indices 2, 1, 0; p = 1, dy = 2.
    case = linear.Case(outputs=2, width=1)
    x, y = case.data()
    fitted = x @ torch.linalg.lstsq(x, y).solution
    a, b = torch.linalg.eigvalsh(fitted.T @ fitted / len(x)).tolist()
    total = float(y.square().sum(1).mean())
    expected = 3 * total / 2 + 2 * (total - a) / 2 + (total - b) / 2
    assert check(linear.claim, case).predicted.value == pytest.approx(expected, rel=1e-12)


def test_without_full_rank_the_index_is_another() -> None:
    # Fewer samples than inputs and outputs leave E XY^T of rank 3 for 4 outputs.
    finding = check(linear.claim, linear.Case(inputs=3, outputs=4, width=2))
    assert finding.verdict is Verdict.INAPPLICABLE
    assert "full rank" in finding.reason


@pytest.mark.parametrize(("activation", "weight_variance"), [("relu", 2.0), ("tanh", 1.0)])
def test_the_factor_holds_for_other_activations(activation: str, weight_variance: float) -> None:
    case = gradient.Case(activation=activation, weight_variance=weight_variance, networks=8)
    finding = check(gradient.claim, case)
    # Relative deviation, not the verdict: fewer networks leave the interval wider than the claim's own.
    assert finding.measured.value == pytest.approx(finding.predicted.value, rel=0.02)


def test_less_variance_is_seen_as_well_as_more() -> None:
    finding = check(gradient.claim, dataclasses.replace(gradient.Case(), drawn=1 / 1.15))
    assert finding.verdict is Verdict.VIOLATED
    assert finding.measured.high < finding.predicted.value
