"""The tensor power method: rate, basins, deflation, and tensors that are not orthogonal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.optimization.landscape.solvable.tensor_power import contract, decompose, power_iteration, tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    components = torch.linalg.qr(draw(size, size, seed=seed))[0][:rank]
    return torch.linspace(3, 1, rank, dtype=torch.float64), components


def test_contraction_entry_by_entry() -> None:
    t, x = draw(3, 3, 3, seed=1), draw(1, 3, seed=2)
    expected = [sum(float(t[i, j, k] * x[0, j] * x[0, k]) for j in range(3) for k in range(3)) for i in range(3)]
    torch.testing.assert_close(contract(t, x)[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_ratios_square_at_every_step() -> None:
    # T(I, x, x) = sum lambda_i c_i^2 a_i: with r_j = lambda_j c_j/(lambda_1 c_1), a step gives r_j^2 exactly.
    strengths, components = orthogonal(5, 5)
    x = draw(1, 5, seed=3)
    ratios = [strengths * (components @ power_iteration(tensor(strengths, components), x, steps=k)[0]) for k in (1, 2)]
    one, two = (value / value[0] for value in ratios)
    torch.testing.assert_close(two, one.square(), rtol=1e-9, atol=1e-12)


def test_the_start_decides_which_component_wins() -> None:
    strengths, components = orthogonal(6, 6)
    x = draw(200, 6, seed=4)
    ends = power_iteration(tensor(strengths, components), x / x.norm(dim=1, keepdim=True))
    winners = (strengths * (x @ components.T).abs()).argmax(1)
    assert len(set(winners.tolist())) == 6
    torch.testing.assert_close(ends, components[winners], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "rank"), [(6, 6), (8, 3), (1, 1)])
def test_all_components_are_recovered(size: int, rank: int) -> None:
    strengths, components = orthogonal(size, rank, seed=size)
    found = decompose(tensor(strengths, components), rank)
    order = found.strengths.argsort(descending=True)
    torch.testing.assert_close(found.strengths[order], strengths, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.components[order], components, rtol=0, atol=1e-8)
    assert found.residual < 1e-8


def test_the_residual_tells_a_tensor_that_is_not_orthogonal() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0]], dtype=torch.float64)
    found = decompose(tensor(torch.ones(2).double(), rows), 2)
    assert found.residual > 0.05
    assert float((found.components[0] @ rows.T).abs().max()) < 1 - 1e-3


def test_noise_moves_the_components_little() -> None:
    strengths, components = orthogonal(6, 4)
    noise = draw(6, 6, 6, seed=9)
    noise = sum(noise.permute(*turn) for turn in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))) / 6
    found = decompose(tensor(strengths, components) + 0.01 * noise, 4)
    order = found.strengths.argsort(descending=True)
    # A perturbation of size eps moves a component by about eps/lambda (first order); eps here is at most .1.
    assert float((found.components[order] - components).norm(dim=1).max()) < 0.1


def test_a_zero_tensor_and_wrong_ones() -> None:
    zero = torch.zeros(3, 3, 3, dtype=torch.float64)
    assert float(decompose(zero, 1).strengths[0]) == 0
    for wrong, rank in ((torch.zeros(3, 3), 1), (torch.zeros(3, 3, 2), 1), (zero, 4), (zero, 0)):
        with pytest.raises(ValueError, match="rank of 1 to d"):
            decompose(wrong, rank)
    with pytest.raises(ValueError, match="symmetrise"):
        decompose(draw(3, 3, 3), 1)
