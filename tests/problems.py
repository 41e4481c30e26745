"""Small problems that many tests share."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from whydeep.core import Data, Problem
from whydeep.networks import mlp


def digits(train: int = 1437, *, dtype: torch.dtype = torch.float32) -> tuple[Data, Data]:
    """The embedded digits in [0, 1], shuffled by a fixed permutation: `train` samples and the last 360."""
    raw = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = (torch.from_numpy(raw.images) / 16).to(dtype).unsqueeze(1)[order]
    y = torch.from_numpy(raw.target).long()[order]
    first = Data(x[:train], y[:train], "digits", classes=10, bounds=(0.0, 1.0))
    return first, Data(x[1437:], y[1437:], "digits", classes=10, bounds=(0.0, 1.0))


def blobs(n: int = 60, d: int = 3, classes: int = 3, *, dtype: torch.dtype = torch.float32) -> Data:
    """Gaussian clouds around unit vectors, sd 0.3."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % classes
    centres = torch.eye(max(classes, d))[:classes, :d].to(dtype)
    x = centres[y] + 0.3 * torch.randn(n, d, generator=generator, dtype=dtype)
    return Data(x, y, "blobs", classes=classes)


def small_problem(activation: str = "tanh", *, dtype: torch.dtype = torch.float32) -> Problem:
    """A network 3-5-4-3 on `blobs`, cross-entropy."""
    model = mlp((3, 5, 4, 3), activation=activation, init="xavier", generator=torch.Generator().manual_seed(2)).to(
        dtype
    )
    return Problem(model, blobs(dtype=dtype), blobs(30, dtype=dtype))
