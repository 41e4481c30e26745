"""A small convolutional network: shift invariance, locality and shared weights, as in the lecture's first CNN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def cnn(
    input_shape: tuple[int, int, int], outputs: int, *, channels: Sequence[int] = (16, 32), batch_norm: bool = False
) -> nn.Sequential:
    """Return blocks of 3x3 convolution, (batch norm,) ReLU and 2x2 maximum, then one linear layer.

    input_shape: (channels, height, width). Each block halves height and width, rounding up.
    Raises `ValueError` when the samples are not images.

    >>> len(cnn((1, 8, 8), 10))  # two blocks of three, Flatten, Linear
    8
    """
    if len(input_shape) != 3:
        raise ValueError(f"samples have shape {tuple(input_shape)}; a cnn needs images (channels, height, width)")
    inputs, height, width = input_shape
    layers: list[nn.Module] = []
    for outgoing in channels:
        layers.append(nn.Conv2d(inputs, outgoing, 3, padding=1))
        layers += [nn.BatchNorm2d(outgoing)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        inputs, height, width = outgoing, -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * height * width, outputs))
