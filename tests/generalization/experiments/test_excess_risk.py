from __future__ import annotations

import pytest
import torch
from problems import blobs

from whydeep.core import Data
from whydeep.generalization.experiments.excess_risk import descended, least_norm, split_excess_risk


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(12, k, generator=generator, dtype=torch.float64) for k in (5, 2))  # type: ignore[return-value]


def test_all_steps_at_once_are_the_steps_one_by_one() -> None:
    phi, y = features()
    step = 1 / float(torch.linalg.matrix_norm(phi, 2) ** 2)  # of the sum; 1/n cancels
    w = torch.zeros(5, 2, dtype=torch.float64)
    for _ in range(17):
        w = w - step * phi.T @ (phi @ w - y)
    torch.testing.assert_close(descended(phi, y, 17), w)
    torch.testing.assert_close(descended(phi, y, 0), 0 * w)
    torch.testing.assert_close(descended(phi, y, 10**6), least_norm(phi, y))


def test_the_three_parts_have_the_signs_they_must_and_sum_to_the_risk() -> None:
    pool = blobs(200)
    found = split_excess_risk(pool, widths=(2, 10, 40), samples=60, steps=20)
    assert all(part > 0 for part in found.approximation)
    assert all(part >= 0 for part in found.estimation)  # f_F is the best of the class on the pool
    assert found.approximation[0] > found.approximation[1] > found.approximation[2]  # the features are nested
    assert found.total == pytest.approx(
        [sum(p) for p in zip(found.approximation, found.estimation, found.optimisation, strict=True)]
    )
    fitted = [a + e for a, e in zip(found.approximation, found.estimation, strict=True)]
    assert fitted[found.widths.index(found.best)] == min(fitted)
    assert f"least at {found.best} features" in found.curve().alt


def test_all_of_the_pool_many_times_over_leaves_no_estimation_error() -> None:
    pool = blobs(30)
    few, many = (split_excess_risk(pool, widths=(4,), samples=n, draws=1) for n in (30, 30_000))
    assert many.estimation[0] < 0.01 * few.estimation[0]


def test_until_convergence_nothing_is_left_to_optimise() -> None:
    found = split_excess_risk(blobs(200), widths=(3,), samples=80, steps=10**7)
    assert found.optimisation[0] == pytest.approx(0, abs=1e-9)


def test_regression_targets_and_bad_input() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert split_excess_risk(Data(x, x[:, :1]), widths=(5,), samples=20).approximation[0] > 0
    with pytest.raises(ValueError, match="widths"):
        split_excess_risk(blobs(30), widths=(), samples=5)
    with pytest.raises(ValueError, match="samples=0"):
        split_excess_risk(blobs(30), widths=(2,), samples=0)
