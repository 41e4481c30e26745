from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from whydeep.core import Data
from whydeep.generalization.capacity.chain import Chain, read_chain
from whydeep.generalization.capacity.peeling import (
    best_constants,
    factors,
    frobenius_product,
    golowich_rademacher,
    l1_rademacher,
    neyshabur_rademacher,
    why_not_peeled,
)
from whydeep.networks import cnn, mlp


def points(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def chain(model: nn.Module, x: Tensor) -> Chain:
    return read_chain(model.double(), Data(x, torch.arange(len(x)) % 2, classes=2))


def test_without_biases_the_product_is_that_of_the_norms() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    first, last = model[0].weight, model[2].weight
    expected = float((first.norm() * last.norm(dim=1).sum()).detach())
    assert frobenius_product(chain(model, points(5, 3)), 1.0) == pytest.approx(expected)


def test_the_constants_represent_the_same_network_and_their_norms_are_the_factors() -> None:
    """The augmented layers [W b/c; 0 c'/c] are built, run on (x, c_0), and measured: an independent route."""
    torch.manual_seed(0)
    model, x, start = mlp((3, 5, 4, 2)).double().requires_grad_(False), points(20, 3), 1.7
    seen = chain(model, x)
    constants = best_constants(seen, start)
    signal = torch.cat([x, torch.full((20, 1), start, dtype=torch.float64)], 1)
    layers = [module for module in model if isinstance(module, nn.Linear)]
    norms, before = [], start
    for layer, after in zip(layers[:-1], constants.tolist(), strict=True):
        rows = torch.cat([layer.weight, layer.bias[:, None] / before], 1)
        last_row = torch.zeros(1, rows.shape[1], dtype=torch.float64)
        last_row[0, -1] = after / before
        matrix = torch.cat([rows, last_row])
        signal = torch.relu(signal @ matrix.T)
        norms.append(float(matrix.norm()))
        before = after
    matrix = torch.cat([layers[-1].weight, layers[-1].bias[:, None] / before], 1)
    torch.testing.assert_close(signal @ matrix.T, model(x))
    found = factors(seen, constants, start)
    assert found[:-1].tolist() == pytest.approx(norms)
    assert found[-1] >= float(matrix.norm(dim=1).sum())  # by the triangle inequality of each row
    # The least product: no other constants that were tried do better.
    for scale in (0.5, 0.9, 1.1, 2.0):
        assert factors(seen, constants * scale, start).prod() >= found.prod() * (1 - 1e-6)


def test_formulas_by_hand() -> None:
    assert golowich_rademacher(3.0, 5.0, depth=1, classes=1, samples=100) == pytest.approx(1.5)
    expected = 1.5 * (math.sqrt(2 * (2 * math.log(2) + math.log(10))) + 1)
    assert golowich_rademacher(3.0, 5.0, depth=3, classes=10, samples=100) == pytest.approx(expected)
    assert neyshabur_rademacher(3.0, 5.0, depth=3, classes=4, samples=100) == pytest.approx(1.5 * 2 * 2**2.5)
    # 2-3-2 with rows of l1 norm 3 and 2 x 0.5, biases 1 and 0; features of root mean square 1 and 2.
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[1.0, -2.0], [0.0, 1.0], [1.0, 1.0]]).double()
    model[0].bias.data = torch.tensor([0.5, -1.0, 0.0]).double()
    model[2].weight.data = torch.tensor([[0.5, 0.0, 0.5], [0.1, 0.1, 0.1]]).double()
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]).double()
    first = 3 * 2 * math.sqrt(2 * math.log(4)) + 1
    expected = 2 * 1.0 * (2 * 0.25 * first + 0.5) / math.sqrt(100)  # K = 2, slope 1/4, sigmoid(0) = 1/2
    assert l1_rademacher(chain(model, x), 100) == pytest.approx(expected)


def supremum(x: Tensor, signs: Tensor, *, norm: str, depth: int) -> float:
    """The best sum_ik e_ik f_k(x_i) / n found by ascent inside the unit balls of the layers, from two starts."""
    width, classes = 16, signs.shape[1]
    sizes = [x.shape[1], *[width] * (depth - 1), classes]
    best = -math.inf
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        weights = [
            torch.randn(b, a, dtype=torch.float64, generator=generator).requires_grad_() for a, b in pairwise(sizes)
        ]
        optimizer = torch.optim.Adam(weights, lr=0.1)
        for _ in range(60):
            z = x
            for index, weight in enumerate(weights):
                if norm == "l1":
                    inside = weight / weight.abs().sum(1, keepdim=True).clamp(min=1.0)
                elif index == depth - 1:
                    inside = weight / weight.norm(dim=1).sum()
                else:
                    inside = weight / weight.norm()
                z = z @ inside.T
                z = torch.relu(z) if index < depth - 1 else z
            value = (signs * z).sum() / len(x)
            optimizer.zero_grad()
            (-value).backward()
            optimizer.step()
            best = max(best, float(value.detach()))
    return best


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_averages_exceed_what_networks_inside_the_class_reach(depth: int) -> None:
    """All norms are 1. What is found is a lower bound of the supremum; the formulas are above it, but not absurdly."""
    n, d, classes, generator = 40, 4, 3, torch.Generator().manual_seed(1)
    x = points(n, d)
    found = {"frobenius": 0.0, "l1": 0.0}
    draws = 2
    for _ in range(draws):
        signs = (2.0 * torch.randint(2, (n, classes), generator=generator) - 1).double()
        for norm in found:
            found[norm] += supremum(x, signs, norm=norm, depth=depth) / draws
    size = float(x.square().sum(1).mean().sqrt())
    bounds = [
        average(1.0, size, depth=depth, classes=classes, samples=n)
        for average in (golowich_rademacher, neyshabur_rademacher)
    ]
    assert 0 < found["frobenius"] < min(bounds)
    assert min(bounds) < 10 * 2**depth * found["frobenius"]
    model = mlp((d, *[4] * (depth - 1), classes)).double()
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.weight.data = torch.ones_like(layer.weight) / layer.in_features
            layer.bias.data.zero_()
    assert 0 < found["l1"] < l1_rademacher(chain(model, x), n)


def test_maps_that_cannot_be_peeled_are_named() -> None:
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    assert "MaxPool2d" in (why_not_peeled(chain(cnn((1, 8, 8), 2, channels=(2, 3)), x)) or "")
    assert "Tanh" in (why_not_peeled(chain(mlp((3, 4, 2), activation="tanh"), points(4, 3))) or "")
    assert why_not_peeled(chain(mlp((3, 4, 2)), points(4, 3))) is None
    ended = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid())
    assert "Sigmoid follows the last layer" in (why_not_peeled(chain(ended, points(4, 3))) or "")
