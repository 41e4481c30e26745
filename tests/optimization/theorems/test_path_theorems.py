"""The claims on paths, level sets and local entropy: their bounds by other routes, and further ways to say no."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from whydeep.core import Verdict, check
from whydeep.optimization.theorems import a_risk_is_the_integral_over_levels_that_it_exceeds as cake
from whydeep.optimization.theorems import connected_level_sets_mean_no_poor_minima as connected
from whydeep.optimization.theorems import local_entropy_prefers_flat_minima as flat
from whydeep.optimization.theorems import local_entropy_tends_to_the_moreau_envelope as limit
from whydeep.optimization.theorems import two_rectified_units_and_their_mirror_are_parted_by_a_barrier as mirror
from whydeep.optimization.theorems import wide_linear_networks_have_connected_level_sets as wide


@pytest.mark.parametrize("widths", [(1, 2, 1), (2, 3, 2), (4, 3, 2), (2, 4, 3, 5), (3, 4, 4, 4, 3)])
def test_one_spare_unit_in_every_layer_is_enough(widths: tuple[int, ...]) -> None:
    assert check(wide.claim, wide.Case(widths=widths, pairs=2)).verdict is Verdict.HOLDS


def test_the_bound_on_functions_of_one_coordinate_is_that_of_a_search_over_parallel_rows() -> None:
    # Networks with parallel rows (c u, d u), minimised over u, c, d and the output weights from many starts: the least
    # risk is the one that the directions' least squares find.
    case = mirror.Case(samples=60)
    generator = torch.Generator().manual_seed(4)
    x, y = (part.numpy() for part in case.data(torch.Generator().manual_seed(4)))

    def risk(p: np.ndarray) -> float:
        u = x @ np.array([math.cos(p[0]), math.sin(p[0])])
        output = p[3] * np.maximum(p[1] * u, 0) + p[4] * np.maximum(p[2] * u, 0)
        return 0.5 * float(np.mean((output - y[:, 0]) ** 2))

    draws = np.random.default_rng(0)
    least = min(float(optimize.minimize(risk, draws.normal(size=5) * 2).fun) for _ in range(40))
    bound = mirror.predict(case, generator).constants["least risk of one coordinate"]
    assert least == pytest.approx(bound, rel=1e-3)


def test_the_converse_fails_two_components_without_a_poor_minimum() -> None:
    # The stars have one component each; what the claim does not say is that one component is needed.
    case = connected.Case(landscapes=2)
    values = case.values(0)
    double = torch.cat([values, values.flip(0)])  # the same landscape beside its mirror image: two global minima
    assert len(connected.sublevel_sets(double).basins) == 2
    assert connected.sublevel_sets(double).poor_minima == ()


def test_the_layer_cake_misses_exactly_what_lies_below_zero() -> None:
    case = cake.Case(offset=0.5)
    found = check(cake.claim, case, bypass_assumptions=True)
    risks = case.risks(torch.Generator().manual_seed(torch.Generator().manual_seed(0).initial_seed()))
    assert found.measured.value == pytest.approx(float(risks.clamp_min(0).mean()), abs=found.predicted.tolerance)


def test_the_deeper_well_wins_where_the_volume_does_not_outweigh_it() -> None:
    # log 2 is all that the volumes differ by: less than 2 beta delta = 2.4.
    found = check(flat.claim, flat.Case(sharp=3.0, flat=1.0, apart=10.0))
    assert found.predicted.value == pytest.approx(math.log(2) / 8 - 0.3)
    assert found.measured.value < 0


def test_laplaces_constant_is_the_one_of_the_curvature() -> None:
    # At beta = 10^4 the difference times 2 beta is log(1 + f''(y*) / gamma), y* from Newton's method by hand.
    case = limit.Case(betas=(5000.0, 10_000.0))
    y = case.x
    for _ in range(50):
        y -= (4 * y * (y * y - 1) + 0.5 + case.gamma * (y - case.x)) / (12 * y * y - 4 + case.gamma)
    expected = math.log(1 + (12 * y * y - 4) / case.gamma) / 2
    envelope = (y * y - 1) ** 2 + y / 2 + case.gamma / 2 * (y - case.x) ** 2
    found = limit.moreau_envelope(case.f, torch.tensor([case.x], dtype=torch.float64), gamma=case.gamma)
    assert found.value == pytest.approx(envelope, rel=1e-12)
    measured = check(limit.claim, case).measured.value
    assert measured == pytest.approx(-1, abs=1e-3)
    assert expected > 0
