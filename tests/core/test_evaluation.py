"""Evaluating without leaving a trace."""

from __future__ import annotations

import pytest
import torch
from problems import blobs, small_problem
from torch import nn

from whydeep.core import Data, errors, evaluating, outputs


def test_each_submodule_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model[1][1].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model) as same:
        assert same is model
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before

    def fail() -> None:
        with evaluating(model):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("batch_size", [1, 7, 30, 999])
def test_outputs_do_not_depend_on_the_batches(batch_size: int) -> None:
    problem = small_problem(dtype=torch.float64)
    assert problem.test is not None
    x = problem.test.x
    assert isinstance(x, torch.Tensor)
    seen = outputs(problem.model, problem.test, batch_size=batch_size)
    assert not seen.requires_grad
    torch.testing.assert_close(seen, problem.model(x).detach(), rtol=1e-13, atol=1e-15)


def test_batch_norm_and_dropout_are_off() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9))
    data = blobs()
    seen = outputs(model, data)
    assert isinstance(data.x, torch.Tensor)
    torch.testing.assert_close(seen, data.x / (1 + 1e-5) ** 0.5)  # running mean 0, variance 1, epsilon 1e-5
    assert model[0].num_batches_tracked == 0


def test_errors_and_ties() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    data = Data(x, torch.tensor([0, 0, 0, 1]), classes=2)
    assert errors(nn.Identity(), data).tolist() == [False, True, False, True]


def test_regression_has_no_errors() -> None:
    with pytest.raises(ValueError, match="has no classes"):
        errors(nn.Identity(), Data(torch.zeros(2, 1), torch.zeros(2, 1)))
