"""The start that gives every hidden layer mean zero and the same spread."""

from __future__ import annotations

import pytest
import torch
from problems import blobs, digits
from torch import Tensor, nn

from whydeep.core import Data, Problem
from whydeep.core.errors import InputError
from whydeep.networks import mlp
from whydeep.optimization.alternating.stochastic_admm.rescaled_start import rescaled


def preactivations(model: nn.Module, x: Tensor) -> list[Tensor]:
    assert isinstance(model, nn.Sequential)
    found = []
    for module in model:
        x = module(x)
        if isinstance(module, nn.Linear):
            found.append(x.detach())
    return found[:-1]


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softplus"])
def test_every_hidden_unit_has_mean_zero_and_every_layer_the_spread(activation: str) -> None:
    data, _ = digits(500, dtype=torch.float64)
    start = mlp([64, *[30] * 12, 10], activation=activation).double()
    found = rescaled(Problem(start, data), spread=0.7)
    assert isinstance(data.x, Tensor)
    for values in preactivations(found.model, data.x):
        torch.testing.assert_close(values.mean(0), torch.zeros(30).double(), rtol=0, atol=1e-10)
        assert float(values.square().mean().sqrt()) == pytest.approx(0.7, rel=1e-10)


def test_an_offset_gives_the_units_means_in_the_starts_own_pattern() -> None:
    data, _ = digits(500, dtype=torch.float64)
    problem = Problem(mlp([64, *[30] * 3, 10], activation="sigmoid").double(), data)
    found = rescaled(problem, spread=0.7, offset=1.5)
    assert isinstance(data.x, Tensor)
    for values in preactivations(found.model, data.x):
        means = values.mean(0)
        assert float(means.mean()) == pytest.approx(0.0, abs=1e-10)
        assert float(means.square().mean().sqrt()) == pytest.approx(1.5, rel=1e-10)
        assert float((values - means).square().mean().sqrt()) == pytest.approx(0.7, rel=1e-10)
    # Of the first layer by hand: what W_1 gives on average, without its bias.
    linear = problem.model[1]
    given = (data.x.flatten(1) @ linear.weight.detach().T).mean(0)
    first = preactivations(found.model, data.x)[0].mean(0)
    torch.testing.assert_close(first / 1.5, (given - given.mean()) / given.std(correction=0))


def test_one_unit_has_no_pattern_and_no_offset() -> None:
    data = blobs(dtype=torch.float64)
    found = rescaled(Problem(mlp((3, 1, 3), activation="tanh").double(), data), spread=0.7, offset=1.5)
    assert isinstance(data.x, Tensor)
    assert float(preactivations(found.model, data.x)[0].mean()) == pytest.approx(0.0, abs=1e-12)


def test_the_directions_of_the_weights_and_the_output_layer_stay() -> None:
    problem = Problem(mlp((3, 5, 4, 3), activation="tanh").double(), blobs(dtype=torch.float64))
    before = [value.detach().clone() for value in problem.model.parameters()]
    after = [value.detach() for value in rescaled(problem).model.parameters()]
    for index in (0, 2):
        ratio = after[index] / before[index]
        torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))
    torch.testing.assert_close(after[4:], before[4:], rtol=0, atol=0)
    torch.testing.assert_close([value.detach() for value in problem.model.parameters()], before, rtol=0, atol=0)


def test_without_biases_only_the_size_changes() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)).double()
    data = blobs(dtype=torch.float64)
    values = preactivations(rescaled(Problem(model, data), spread=2.0).model, data.x)[0]  # type: ignore[arg-type]
    assert float((values - values.mean(0)).square().mean().sqrt()) == pytest.approx(2.0, rel=1e-12)


def test_samples_that_do_not_vary_leave_the_size() -> None:
    data = Data(torch.ones(4, 2).double(), torch.tensor([0, 1, 0, 1]), classes=2)
    problem = Problem(mlp((2, 3, 2), activation="tanh").double(), data)
    torch.testing.assert_close(
        next(rescaled(problem).model.parameters()), next(problem.model.parameters()), rtol=0, atol=0
    )


def test_what_cannot_be_is_refused() -> None:
    data = blobs()
    with pytest.raises(ValueError, match="spread=0"):
        rescaled(Problem(mlp((3, 4, 3)), data), spread=0)
    with pytest.raises(ValueError, match="offset=-1"):
        rescaled(Problem(mlp((3, 4, 3)), data), offset=-1)
    with pytest.raises(InputError, match="LayerNorm"):
        rescaled(Problem(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)), data))
