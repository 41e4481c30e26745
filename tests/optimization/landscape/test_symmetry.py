"""The zero modes that symmetries explain, against those of dense Hessians."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from problems import blobs, digits
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import cnn, mlp
from whydeep.optimization.landscape.symmetry import Symmetries, symmetry


def hessian(problem: Problem) -> Tensor:
    model = problem.copy().eval()
    names = [name for name, _ in model.named_parameters()]
    shapes = [value.shape for value in model.parameters()]
    sizes = [value.numel() for value in model.parameters()]

    def risk(vector: Tensor) -> Tensor:
        pieces = torch.split(vector, sizes)
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        x = problem.train.x
        assert isinstance(x, Tensor)
        return problem.per_sample(torch.func.functional_call(model, weights, (x,)), problem.train.targets).mean()

    return torch.autograd.functional.hessian(risk, problem.vector())  # type: ignore[no-untyped-call, no-any-return]


def nullity(matrix: Tensor) -> int:
    values = torch.linalg.eigvalsh(matrix)
    return int((values.abs() < 1e-9 * values.abs().max()).sum())


def solved(model: nn.Module, inputs: int, samples: int = 400) -> Problem:
    """A network on samples that it fits itself: risk and gradient are zero."""
    x = torch.randn(samples, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        return Problem(model, Data(x, model(x)), loss="squared")


def kinds(found: Symmetries) -> dict[str, int]:
    return {each.kind: len(each.tangents) for each in found.found}


@pytest.mark.parametrize("widths", [(3, 4, 2), (3, 5, 4, 2)])
def test_rescaling_explains_every_zero_mode_of_a_rectified_network(widths: tuple[int, ...]) -> None:
    # With enough samples the only flat directions of a network that fits them are those of the scale of its units; the
    # bias of 1/2 keeps every unit on for some samples and off for others.
    model = mlp(widths, init="he", generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for layer in model[1:-1:2]:
            layer.bias.fill_(0.5)
    problem = solved(model, widths[0], 1500)
    found = symmetry(problem)
    assert found.zero_modes == sum(widths[1:-1]) == nullity(hessian(problem))
    flat = hessian(problem) @ found.tangents().T
    assert float(flat.abs().max()) < 1e-12


@pytest.mark.parametrize("widths", [(3, 2, 3), (4, 4, 2), (3, 4, 3, 2)])
def test_the_general_linear_group_explains_every_zero_mode_of_a_linear_network(widths: tuple[int, ...]) -> None:
    layers = [nn.Linear(i, o, bias=False) for i, o in pairwise(widths)]
    model = nn.Sequential(*layers).double()
    for layer in layers:
        nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(1))
    problem = solved(model, widths[0])
    found = symmetry(problem)
    p = sum(value.numel() for value in model.parameters())
    # The products of rank r, the narrowest width, form a surface of r (dx + dy - r) dimensions.
    r = min(widths)
    assert nullity(hessian(problem)) == p - r * (widths[0] + widths[-1] - r)
    assert found.zero_modes == nullity(hessian(problem))
    assert all(each.kind != "rescaling" for each in found.found)


def test_odd_units_change_sign_and_have_no_zero_modes() -> None:
    found = symmetry(solved(mlp((3, 4, 2), activation="tanh", init="he").double(), 3))
    assert kinds(found) == {"permutation": 0, "sign": 0}
    assert found.zero_modes == 0
    assert found.log10_orders == pytest.approx(math.log10(24))


def test_sigmoid_units_may_only_be_permuted() -> None:
    assert kinds(symmetry(solved(mlp((3, 4, 2), activation="sigmoid", init="he").double(), 3))) == {"permutation": 0}


def test_the_shift_of_all_scores_is_flat_everywhere_and_only_under_the_cross_entropy() -> None:
    model = mlp((3, 4, 3), activation="sigmoid").double()
    data = blobs(dtype=torch.float64)
    found = symmetry(Problem(model, data))
    assert kinds(found)["shift of the outputs"] in (1, 4)
    assert sum(len(each.tangents) for each in found.found if each.everywhere) == 4 + 1
    # Away from any critical point: the gradient is not zero, and the Hessian has these zero modes all the same.
    problem = Problem(model, data)
    assert float(problem.gradient().norm()) > 0.01
    assert float((hessian(problem) @ found.tangents().T).abs().max()) < 1e-12
    assert "shift of the outputs" not in kinds(symmetry(Problem(model, data, loss="squared")))


def test_batch_norm_carries_the_scale_and_a_leaky_unit_too() -> None:
    model = cnn((1, 8, 8), 10, channels=(3, 4), batch_norm=True).double()
    found = symmetry(Problem(model, digits(40, dtype=torch.float64)[0]))
    scaled = [each for each in found.found if each.kind == "rescaling"]
    assert [each.units for each in scaled] == [3, 4]
    assert max(each.deviation for each in found.found) < 1e-12
    moved = scaled[0].tangents.abs().sum(0)
    first = model[0].weight.numel() + model[0].bias.numel()
    assert float(moved[:first].max()) == 0  # what batch norm divides out again is not scaled
    leaky = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 2)).double()
    assert kinds(symmetry(solved(leaky, 3))) == {"permutation": 0, "rescaling": 4}


def test_a_unit_with_zero_weights_has_no_orbit_and_nothing_is_changed() -> None:
    model = mlp((3, 4, 2), init="he").double()
    with torch.no_grad():
        for layer in (model[1], model[3]):
            layer.bias.zero_()
        model[1].weight[0] = 0
        model[3].weight[:, 0] = 0
    problem = solved(model, 3)
    before = [value.clone() for value in model.parameters()]
    found = symmetry(problem)
    assert found.zero_modes == 3
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert found.table().rows[0][0] == "permutation"


def test_a_group_too_large_for_memory_is_refused_before_it_is_built() -> None:
    model = nn.Sequential(nn.Linear(150, 150, bias=False), nn.Linear(150, 150, bias=False)).double()
    with pytest.raises(InputError, match=r"22,500 directions of 45,000 weights, 8 GB; give .* at most 74 linear units"):
        symmetry(solved(model, 150, 10))
