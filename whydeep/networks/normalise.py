"""Normalisation as part of the network, so that attacks and bounds speak of raw inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whydeep.core.errors import InputError


class Normalise(nn.Module):
    """Maps x to (x - mean) / std, one value for all entries or one a channel (the first dimension of a sample).

    >>> Normalise([0.5], [0.25])(torch.tensor([[1.0]]))
    tensor([[2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or any(not value > 0 for value in std):
            raise InputError(
                f"mean {tuple(mean)} and std {tuple(std)} do not fit", "give as many of both, every std positive"
            )
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised batch, shaped like x (n, channels, ...)."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.to(x.dtype).view(shape)) / self.std.to(x.dtype).view(shape)


def normalised(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """Return the network that takes raw inputs: `Normalise`, then `model` (its own layers if it is a Sequential)."""
    rest = list(model) if isinstance(model, nn.Sequential) else [model]
    return nn.Sequential(Normalise(mean, std), *rest)
