"""Named parameters of a network, as one flat vector and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def named(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters by name, detached, in the order of `flatten`."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def flatten(parameters: Mapping[str, Tensor]) -> Tensor:
    """Return all entries as one vector (p,), parameter after parameter.

    >>> flatten({"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])})
    tensor([1., 2., 3.])
    """
    if not parameters:
        raise ValueError("the network has no trainable parameters; give one that has")
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return views of `vector` (p,) with the names and shapes of `like`; raises `ValueError` on another length."""
    total = sum(value.numel() for value in like.values())
    if vector.shape != (total,):
        raise ValueError(f"the vector has shape {tuple(vector.shape)}; the network has {total} parameters")
    sizes = [value.numel() for value in like.values()]
    pieces = torch.split(vector, sizes)
    return {name: piece.view_as(value) for (name, value), piece in zip(like.items(), pieces, strict=True)}


def load(model: nn.Module, vector: Tensor) -> None:
    """Copy `vector` (p,) into the trainable parameters of `model` (a copy of the user's, never the user's)."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in unflatten(vector, named(model)).items():
            own[name].copy_(value)
