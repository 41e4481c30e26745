from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from whydeep.core import Data, InputError, global_seed
from whydeep.data.synthetic import gaussian_mixture
from whydeep.generalization.experiments.double_descent import (
    RIDGES,
    DoubleDescent,
    _errors,
    _tuned_ridge,
    random_features,
    width_sweep,
)
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop


def parts(n: int = 40) -> tuple[Data, Data]:
    generator = torch.Generator().manual_seed(0)
    return tuple(gaussian_mixture(k, d=12, classes=3, generator=generator) for k in (n, 300))  # type: ignore[return-value]


def test_least_norm_errors_are_those_of_numpys_least_squares() -> None:
    train, test = parts()
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(25, 12, generator=generator, dtype=torch.float64)
    inside, outside = (torch.relu(part.x.double() @ v.T) for part in (train, test))
    target = torch.eye(3, dtype=torch.float64)[train.targets]
    rank, training, testing, _ = _errors(inside, outside, target, train.targets, test.targets)
    weights, _, expected, _ = np.linalg.lstsq(inside.numpy(), target.numpy(), rcond=None)
    assert rank == expected
    assert training == np.mean((inside.numpy() @ weights).argmax(1) != train.targets.numpy())
    assert testing == np.mean((outside.numpy() @ weights).argmax(1) != test.targets.numpy())


def test_the_ridge_is_the_one_that_leaving_one_out_would_choose() -> None:
    """Naive: refit without each sample in turn, for every ridge of the grid."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(15, 6, generator=generator, dtype=torch.float64)
    target = features[:, :2] + torch.randn(15, 2, generator=generator, dtype=torch.float64)
    u, s, _ = torch.linalg.svd(features, full_matrices=False)
    chosen = float(_tuned_ridge(u, s, u.T @ target, target))
    grid = (RIDGES * s.square().mean()).tolist()
    slow = []
    for ridge in grid:
        total = 0.0
        for left in range(15):
            kept = [k for k in range(15) if k != left]
            a, b = features[kept], target[kept]
            w = torch.linalg.solve(a.T @ a + ridge * torch.eye(6, dtype=torch.float64), a.T @ b)
            total += float((features[left] @ w - target[left]).square().sum())
        slow.append(total)
    assert chosen == pytest.approx(grid[int(np.argmin(slow))])
    assert 0 < int(np.argmin(slow)) < len(grid) - 1  # inside the grid, so that the comparison says something


def test_training_error_is_zero_from_the_threshold_on() -> None:
    train, test = parts()
    found = random_features(train, test, widths=(5, 20, 60, 160), draws=2)
    assert found.threshold in (60, 160)
    for width, error, rank in zip(found.widths, found.train_error, found.ranks, strict=True):
        assert rank <= min(width, 40)
        if found.threshold is not None and width >= found.threshold:
            assert error == 0
    assert found.train_error[0] > 0
    curve = found.curve()
    assert curve.lines[-1].x == (found.threshold,) * 2


def test_without_a_threshold_nothing_is_predicted() -> None:
    found = DoubleDescent((1, 2), (1.0, 2.0), (0.5, 0.4), (0.6, 0.5), (0.5, 0.5), 10)
    assert found.threshold is None
    assert found.peak == 1
    assert "never reaches" in found.curve().alt


def test_units_that_are_never_active_have_no_rank() -> None:
    """All samples at the origin: every feature is zero, and the first class is answered."""
    zero = Data(torch.zeros(6, 2), torch.arange(6) % 3, classes=3)
    found = random_features(zero, zero, widths=(4,), draws=1)
    assert found.ranks == [0.0]
    assert found.test_error == [pytest.approx(2 / 3)]


def test_a_width_sweep_trains_each_width() -> None:
    train, test = parts()
    asked = []

    def fresh(width: int, generator: torch.Generator) -> nn.Module:
        asked.append(width)
        with global_seed(generator):
            return mlp((12, width, 3))

    solver = Backprop(torch.optim.Adam, lr=1e-2, epochs=60, batch_size=20)
    found = width_sweep(train, test, solver, fresh=fresh, widths=(1, 30), seeds=1)
    assert asked == [1, 30]
    assert found.parameters == (12 + 1 + 6, 13 * 30 + 31 * 3)
    assert found.train_error[1] < found.train_error[0]
    assert "width 30" not in found.curve().title


def test_bad_input() -> None:
    train, test = parts()
    with pytest.raises(ValueError, match="widths"):
        random_features(train, test, widths=())
    with pytest.raises(InputError, match="no classes"):
        random_features(Data(train.x, torch.zeros(40, 1)), test, widths=(3,))
    with pytest.raises(ValueError, match="seed"):
        width_sweep(train, test, Backprop(epochs=1), fresh=lambda w, g: mlp((12, w, 3)), widths=(1,), seeds=0)
