"""Parameters as one vector and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.core.parameters import flatten, load, named, unflatten
from whydeep.networks import mlp


def test_the_vector_runs_through_the_parameters_in_order() -> None:
    model = mlp((3, 2, 1))
    vector = flatten(named(model))
    layers = [model[1].weight, model[1].bias, model[3].weight, model[3].bias]
    assert vector.tolist() == [entry for value in layers for entry in value.detach().reshape(-1).tolist()]


def test_there_and_back() -> None:
    like = named(mlp((3, 2, 1)))
    vector = torch.arange(11.0)
    parts = unflatten(vector, like)
    assert {name: value.shape for name, value in parts.items()} == {name: value.shape for name, value in like.items()}
    assert torch.equal(flatten(parts), vector)
    assert parts["1.bias"].tolist() == [6.0, 7.0]
    parts["1.bias"][0] = 99
    assert vector[6] == 99  # views, no copies


def test_loading_changes_exactly_the_trainable_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.detach().clone()
    assert list(named(model)) == ["0.bias", "1.weight", "1.bias"]
    load(model, torch.arange(6.0))
    assert flatten(named(model)).tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(model[0].weight, frozen)
    assert model[0].bias.requires_grad


def test_named_is_detached_and_tied_weights_come_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert list(named(model)) == ["0.weight"]
    assert not named(model)["0.weight"].requires_grad
    load(model, torch.arange(4.0))
    assert model[1].weight.detach().reshape(-1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [0, 10, 12])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="the network has 11 parameters"):
        unflatten(torch.zeros(size), named(mlp((3, 2, 1))))


def test_a_matrix_is_no_vector_and_nothing_cannot_be_flattened() -> None:
    with pytest.raises(ValueError, match="shape"):
        unflatten(torch.zeros(11, 1), named(mlp((3, 2, 1))))
    with pytest.raises(ValueError, match="no trainable parameters"):
        flatten({})
