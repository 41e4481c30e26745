"""The map of the V-step against the minimiser of its quadratic, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize

from whydeep.optimization.alternating.stochastic_admm.state_step import state_map


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 3), (3, 1)])
def test_it_gives_delta_times_the_minimiser_of_the_misfit_and_the_proximal_term(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64, generator=generator)
    wanted = torch.randn(1, shape[0], dtype=torch.float64, generator=generator)
    delta = 0.3 * float(weight.square().sum()) / min(shape)

    def objective(flat: object) -> float:
        change = torch.as_tensor(flat, dtype=torch.float64)[None]
        return float((change @ weight.T - wanted).square().sum() / 2 + delta * change.square().sum() / 2)

    found = minimize(objective, [0.0] * shape[1], method="BFGS", options={"gtol": 1e-9})
    # A finite-difference search finds the minimiser of a quadratic of order one to the root of rounding, 1e-8.
    expected = delta * torch.as_tensor(found.x)[None]
    torch.testing.assert_close(wanted @ state_map(weight, 0.3), expected, rtol=1e-5, atol=1e-6)


def test_an_endless_damping_is_back_propagation_and_a_small_one_the_pseudo_inverse() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert state_map(weight, math.inf) is weight
    torch.testing.assert_close(state_map(weight, 1e9), weight, rtol=1e-7, atol=1e-7)  # up to s^2/delta
    small = 1e-9
    delta = small * float(weight.square().sum()) / 4
    torch.testing.assert_close(
        state_map(weight, small) / delta, torch.linalg.pinv(weight).T, rtol=1e-6, atol=1e-6
    )  # up to delta/s^2, times the condition


def test_zero_weights_and_single_precision_with_little_damping() -> None:
    zero = torch.zeros(2, 3)
    assert torch.equal(state_map(zero, 1.0), zero)
    weight = torch.randn(200, 200, generator=torch.Generator().manual_seed(2))
    exact = state_map(weight.double(), 0.01)
    # The condition is at most 1 + 200/0.01, so a tenth of a percent of the largest entry is some ten times rounding.
    torch.testing.assert_close(state_map(weight, 0.01).double(), exact, rtol=0, atol=1e-3 * float(exact.abs().max()))
