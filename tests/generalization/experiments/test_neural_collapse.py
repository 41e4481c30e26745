from __future__ import annotations

import math

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError
from whydeep.generalization.experiments.neural_collapse import collapse_of, last_features, last_linear, neural_collapse
from whydeep.networks import mlp


def simplex(classes: int) -> torch.Tensor:
    return torch.eye(classes, dtype=torch.float64) - 1 / classes


def test_all_four_are_zero_at_full_collapse() -> None:
    y = torch.arange(40) % 4
    rows = simplex(4)
    found = collapse_of(3.0 * rows[y] + 5.0, y, weight=2.0 * rows, decisions=y)
    assert found.numbers == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_spread_within_classes_by_hand() -> None:
    # One dimension, means -1 and 1, samples at +-0.5 around them: S_W = 0.25, S_B = 1, K = 2.
    features = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]]).double()
    y = torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([[-1.0], [1.0]]).double()
    found = collapse_of(features, y, weight=weight, decisions=torch.tensor([0, 1, 1, 1]))
    assert found.within_class == pytest.approx(0.125)
    assert found.simplex == pytest.approx(0, abs=1e-12)  # two means always are a simplex
    assert found.duality == pytest.approx(0, abs=1e-12)
    assert found.nearest_mean == 0.25  # one of four decides otherwise
    opposite = collapse_of(features, y, weight=-weight, decisions=y)
    assert opposite.duality == pytest.approx(2)


def test_three_means_on_a_line_are_no_simplex_by_hand() -> None:
    # Means -1, 0, 1: Gram matrix of norm 2 with corners +-1/2; the simplex has (1 or -1/2) 2/3 / sqrt(2).
    features, y = torch.tensor([[-1.0], [0.0], [1.0]]).double(), torch.arange(3)
    gram = torch.tensor([[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]]).double() / 2
    wanted = (torch.eye(3).double() - 1 / 3) / math.sqrt(2)
    found = collapse_of(features, y, weight=features, decisions=y)
    assert found.simplex == pytest.approx(float((gram - wanted).norm()))
    assert found.simplex > 0.3


def test_rotated_scaled_and_shifted_features_collapse_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    features, y = torch.randn(60, 5, generator=generator, dtype=torch.float64), torch.arange(60) % 3
    features += 2 * torch.eye(5, dtype=torch.float64)[y]
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    one = collapse_of(features, y, weight=weight, decisions=y)
    two = collapse_of(3 * features @ turn + 7, y, weight=0.1 * weight @ turn + 4, decisions=y)
    assert two.numbers == pytest.approx(one.numbers, rel=1e-8)


def test_the_last_features_are_what_enters_the_last_layer() -> None:
    model, data = mlp((3, 6, 3)).double(), blobs(30, dtype=torch.float64)
    assert last_linear(model, data) == "3"
    features, weight = last_features(model, data)
    with torch.no_grad():
        torch.testing.assert_close(features, torch.relu(model[1](data.x)))
    assert torch.equal(weight, model[3].weight)
    assert not model[3]._forward_hooks
    assert math.isfinite(neural_collapse(model, data).within_class)


def test_who_has_no_last_features() -> None:
    data = blobs(30)
    with pytest.raises(InputError, match="no Linear layer"):
        neural_collapse(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), data)
    with pytest.raises(InputError, match="one class"):
        neural_collapse(mlp((3, 3)), Data(torch.randn(4, 3), torch.zeros(4).long(), classes=3))
    with pytest.raises(InputError, match="no classes"):
        neural_collapse(mlp((3, 3)), Data(torch.randn(4, 3), torch.zeros(4, 3)))
    with pytest.raises(InputError, match="coincide"):
        neural_collapse(mlp((3, 3)), Data(torch.ones(4, 3), torch.arange(4) % 2, classes=3))
