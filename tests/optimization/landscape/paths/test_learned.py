"""What a network has learned, against the least risk of a constant worked out by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from problems import blobs
from torch import Tensor, nn

from whydeep.core import Data, Loss, Problem
from whydeep.core.evaluation import outputs
from whydeep.networks import linear
from whydeep.optimization.landscape.paths.learned import best_guess, learned, too_little


def uneven() -> Data:
    """Frequencies 1/2, 1/3, 1/6 and a fourth class that does not occur."""
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    return Data(torch.zeros(6, 2, dtype=torch.float64), y, classes=4)


def test_a_constant_network_has_learned_nothing() -> None:
    problem = Problem(linear(3, 3).double(), blobs(dtype=torch.float64))
    # Three classes of equal size: outputs 0 are the best guess, ln 3 either way up to rounding.
    assert learned(problem.at(torch.zeros(12, dtype=torch.float64))) == pytest.approx(0, abs=1e-15)


def test_the_scale_is_at_most_the_entropy_of_the_classes_however_confident_the_network_is() -> None:
    # Outputs a hundred times too large: their mean is a bad guess by hundreds of nats, which nobody ever risked.
    data = blobs(dtype=torch.float64)
    x = torch.cat([data.x, torch.ones(len(data), 1)], 1).double()
    solution = torch.linalg.lstsq(x, F.one_hot(data.targets).double()).solution
    problem = Problem(linear(3, 3).double(), data)
    for size in (1, 10, 100):
        confident = problem.at(size * torch.cat([solution[:3].T.reshape(-1), solution[3]]))
        assert learned(confident) == pytest.approx(math.log(3) - confident.risk(), rel=1e-12)
        assert learned(confident) <= math.log(3)


def test_with_squared_loss_the_least_squares_network_has_learned_the_explained_variance() -> None:
    data = blobs(dtype=torch.float64)
    x = torch.cat([data.x, torch.ones(len(data), 1)], 1).double()
    y = F.one_hot(data.targets).double()
    solution = torch.linalg.lstsq(x, y).solution  # (4, 3)
    problem = Problem(linear(3, 3).double(), data, loss="squared")
    problem = problem.at(torch.cat([solution[:3].T.reshape(-1), solution[3]]))
    fitted = x @ solution
    explained = 0.5 * float((fitted - fitted.mean(0)).square().sum(1).mean())
    assert learned(problem) == pytest.approx(explained, rel=1e-10)


@pytest.mark.parametrize(
    ("loss", "least"),
    [
        ("cross_entropy", math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6),
        # 1/2 sum_k p_k (1 - p_k)
        ("squared", (1 / 4 + 2 / 9 + 5 / 36) / 2),
        # Class k at o costs p (1 - o) + (1 - p)(1 + o) on [-1, 1]: 2 min(p, 1 - p).
        ("hinge", 2 * (1 / 2 + 1 / 3 + 1 / 6)),
    ],
)
def test_the_best_guess_has_the_least_risk_by_hand(loss: str, least: float) -> None:
    data, like = uneven(), torch.zeros(6, 4, dtype=torch.float64)
    guess = best_guess(Loss.of(loss), data.targets, like=like).expand_as(like)
    assert float(Loss.of(loss)(guess, data.targets).mean()) == pytest.approx(least, rel=1e-12)


def test_another_loss_is_minimised() -> None:
    data, like = uneven(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smoothed = Loss.of(partial(F.cross_entropy, reduction="none", label_smoothing=0.2))
    guess = best_guess(smoothed, data.targets, like=like)
    # Smoothed frequencies are 0.8 p + 0.2/4; the least cross-entropy is their entropy.
    frequencies = torch.tensor([0.45, 0.8 / 3 + 0.05, 0.8 / 6 + 0.05, 0.05], dtype=torch.float64)
    least = -float((frequencies * frequencies.log()).sum())
    assert float(smoothed(guess.expand_as(like), data.targets).mean()) == pytest.approx(least, rel=1e-9)
    assert torch.allclose(torch.softmax(guess[0], 0), frequencies, atol=1e-5)


def test_regression_guesses_the_mean_target_and_leaves_the_network_alone() -> None:
    def absolute(output: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(output, target, reduction="none").sum(1)

    generator = torch.Generator().manual_seed(0)
    data = Data(torch.randn(20, 2, generator=generator), torch.randn(20, 2, generator=generator) / 10)
    model = nn.Linear(2, 2)
    # Within 1 of its targets this loss is the squared one.
    both = [best_guess(Loss.of(loss), data.targets, like=outputs(model, data)) for loss in ("squared", absolute)]
    assert torch.allclose(both[0], data.targets.mean(0, keepdim=True))
    assert torch.allclose(both[1], both[0], atol=1e-4)
    assert all(value.grad is None for value in model.parameters())


def test_nothing_to_speak_of_is_a_hundredth_of_the_risk_of_guessing() -> None:
    assert too_little(0.0229, 2.28)
    assert not too_little(0.0241, 2.28)
