"""Evaluating a network without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .data import Data


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` into evaluation mode inside the block; every submodule's own mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def outputs(model: nn.Module, data: Data, *, batch_size: int = 2048) -> Tensor:
    """Return the outputs (n, ...) of `model` in evaluation mode, without gradients."""
    with evaluating(model), torch.no_grad():
        pieces = torch.split(torch.arange(len(data)), batch_size)
        return torch.cat([model(data.x[chosen]) for chosen in pieces])


def errors(model: nn.Module, data: Data, *, batch_size: int = 2048) -> Tensor:
    """Return which samples are misclassified, (n,) bool; raises `ValueError` when the data have no classes.

    A tie counts as an error unless the right class comes first, as argmax decides.
    """
    if data.classes is None:
        raise ValueError(f"{data.name} has no classes, so there is no classification error; use the risk")
    return outputs(model, data, batch_size=batch_size).argmax(1) != data.targets
