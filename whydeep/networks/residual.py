"""A residual block: one step of Euler's method for x' = f(x, theta)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """The layer x + delta f(x); f keeps the shape of x.

    >>> Residual(nn.ReLU(), delta=0.5)(torch.tensor([[2.0, -1.0]]))
    tensor([[ 3., -1.]])
    """

    def __init__(self, f: nn.Module, *, delta: float = 1.0) -> None:
        super().__init__()
        self.f = f
        self.delta = delta

    def forward(self, x: Tensor) -> Tensor:
        """Return x + delta f(x)."""
        result: Tensor = x + self.delta * self.f(x)
        return result


def residual_mlp(
    width: int, depth: int, *, delta: float, generator: torch.Generator, scale: float = 1.0
) -> nn.Sequential:
    """Return `depth` layers x + delta tanh(W x + b) of one width; W is normal, sd scale/sqrt(width), b is zero."""
    blocks = []
    for _ in range(depth):
        linear = nn.utils.skip_init(nn.Linear, width, width)  # type: ignore[no-untyped-call]
        nn.init.normal_(linear.weight, std=scale / width**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        blocks.append(Residual(nn.Sequential(linear, nn.Tanh()), delta=delta))
    return nn.Sequential(*blocks)
