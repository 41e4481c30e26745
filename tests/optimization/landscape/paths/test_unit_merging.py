"""Merged units: what moves, how far the outputs change at most, and what it does for paths between wide networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import mlp
from whydeep.optimization.landscape import path
from whydeep.optimization.landscape.paths.unit_merging import merged


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(rows: Tensor, outer: Tensor, activation: str = "relu") -> nn.Sequential:
    """rows (m, d + 1), outer (k, m + 1), the last columns are biases."""
    model = mlp((rows.shape[1] - 1, len(rows), len(outer)), activation=activation).double()
    with torch.no_grad():
        for layer, weight in ((model[1], rows), (model[3], outer)):
            layer.weight.copy_(weight[:, :-1])
            layer.bias.copy_(weight[:, -1])
    return model


def output(rows: Tensor, outer: Tensor, x: Tensor, activation: str) -> Tensor:
    hidden = getattr(torch, activation)(x @ rows.T)
    return hidden @ outer[:, : len(rows)].T + outer[:, len(rows) :].sum(1)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("size", [1, 3, 10, 24])
def test_the_outputs_change_by_at_most_the_shift(activation: str, size: int) -> None:
    rows, outer, x = draw(24, 3), draw(2, 25, seed=1), draw(200, 3, seed=2)
    found = merged(rows, outer, size, homogeneous=activation == "relu")
    assert len(set(found.chosen)) == size
    others = [k for k in range(24) if k not in found.chosen]
    assert not bool(found.outer[:, others].any())
    assert torch.equal(found.outer[:, 24], outer[:, 24])
    moved = output(rows, found.outer, x, activation) - output(rows, outer, x, activation)
    assert bool((moved.norm(dim=1) <= found.shift * x.norm(dim=1) + 1e-12).all())
    if size == 24:
        torch.testing.assert_close(found.outer, outer)
        assert found.shift == 0
    else:
        assert found.shift > 0


def test_parallel_rectified_units_merge_without_a_change() -> None:
    directions = draw(4, 3)
    rows = torch.exp(draw(20, 1, seed=3)) * directions[torch.arange(20) % 4]
    outer, x = draw(1, 20, seed=1), draw(50, 3, seed=2)
    found = merged(rows, outer, 4)
    torch.testing.assert_close(output(rows, found.outer, x, "relu"), output(rows, outer, x, "relu"))
    assert found.shift < 1e-12
    # Seven of four directions: three representatives more, which share one.
    more = merged(rows, outer, 7)
    assert len(set(more.chosen)) == 7
    torch.testing.assert_close(output(rows, more.outer, x, "relu"), output(rows, outer, x, "relu"))


def test_zero_rows_merge_to_nothing() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    found = merged(rows, torch.ones(1, 4, dtype=torch.float64), 1)
    assert found.chosen == [3]  # the heaviest: |v| |w| = 2
    torch.testing.assert_close(found.outer, torch.tensor([[0.0, 0.0, 0.0, 1.5]], dtype=torch.float64))
    assert found.shift == 0


def test_the_shift_falls_with_the_width_as_the_net_says() -> None:
    # Unit vectors of the plane: `size` representatives lie within an angle of order 1/size of all, slope -1.
    rows = draw(2000, 2)
    outer = draw(1, 2000, seed=1) / 2000
    shifts = [merged(rows, outer, size).shift for size in (8, 16, 32, 64)]
    slope = (math.log(shifts[-1]) - math.log(shifts[0])) / math.log(8)
    assert -1.15 < slope < -0.85


def pair(width: int) -> tuple[Problem, nn.Module]:
    """Two networks of few directions each, slightly turned: near-parallel units with weights of both signs."""
    x = 2 * torch.rand(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    data = Data(x, torch.sin(3 * x.norm(dim=1, keepdim=True)))
    nets = []
    for seed in (1, 2):
        rows = draw(width // 4, 3, seed=seed)[torch.arange(width) % (width // 4)] + 1e-4 * draw(width, 3, seed=9)
        units = torch.cat([torch.relu(x @ rows[:, :2].T + rows[:, 2]), torch.ones(80, 1, dtype=torch.float64)], 1)
        # A ridge shares the weight among near-parallel units.
        gram = units.T @ units / 80 + 1e-6 * torch.eye(width + 1, dtype=torch.float64)
        nets.append(network(rows, torch.linalg.solve(gram, units.T @ data.targets / 80).T))
    return Problem(nets[0], data, loss="squared"), nets[1]


def test_networks_of_near_parallel_units_are_joined_below_the_bound() -> None:
    problem, other = pair(24)
    found = path(problem, problem.model, other, method="relu", oracle=[12], points=3, refinements=0)
    worse, bounds = 0.0, []
    x = torch.cat([problem.train.x, torch.ones(80, 1, dtype=torch.float64)], 1)  # type: ignore[list-item]
    for model in (problem.model, other):
        risk = problem.with_model(model).risk()
        worse = max(worse, risk)
        rows = torch.cat([model[1].weight, model[1].bias[:, None]], 1).detach()  # type: ignore[index]
        shift = merged(rows, model[3].weight.detach(), 12).shift  # type: ignore[index]
        bounds.append(0.5 * (math.sqrt(2 * risk) + shift * float(x.square().sum(1).mean().sqrt())) ** 2)
    assert found.certified is not None
    assert found.certified <= max(worse, *bounds)
    assert max(bounds) < 1.1 * worse  # the bound says something: six directions in twelve representatives


def test_a_trained_oracle_lies_on_the_path() -> None:
    problem, other = pair(8)
    x, y = problem.train.in_memory().x, problem.train.targets
    rows = draw(3, 3, seed=5)
    units = torch.cat([torch.relu(x @ rows[:, :2].T + rows[:, 2]), torch.ones(80, 1, dtype=torch.float64)], 1)
    small = network(rows, torch.linalg.lstsq(units, y).solution.T)
    found = path(problem, problem.model, other, method="relu", oracle=small, points=3, refinements=0)
    assert {leg.kind for leg in found.legs} == {"constant", "convex"}
    risks = []
    for bead in found.beads:
        model = problem.copy()
        model.load_state_dict(bead)
        risks.append(problem.with_model(model).risk())
    assert found.certified == pytest.approx(max(risks), rel=1e-12)
    assert any(risk == pytest.approx(problem.with_model(small).risk(), rel=1e-9) for risk in risks)
    # No position of a fine grid lies above the certificate.
    for k in range(101):
        assert problem.with_model(found.network(problem.model, k / 100)).risk() <= found.certified * (1 + 1e-9)
    for state, given in ((found.at(0.0), problem.model), (found.at(1.0), other)):
        assert all(torch.equal(state[name], value) for name, value in given.state_dict().items())


@pytest.mark.parametrize(
    "oracle",
    [mlp((2, 9, 1)), mlp((3, 4, 1)), mlp((2, 4, 2)), mlp((2, 4, 1), activation="tanh"), mlp((2, 4, 4, 1))],
    ids=["wider", "inputs", "outputs", "activation", "deeper"],
)
def test_an_oracle_of_another_kind_is_refused(oracle: nn.Module) -> None:
    problem, other = pair(8)
    with pytest.raises(InputError, match="the oracle is a network of another kind"):
        path(problem, problem.model, other, method="relu", oracle=oracle)
