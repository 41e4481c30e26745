"""The maps between affine layers that have no parameters: activations, pooling, and what only rearranges or is off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
SILENT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)

# Largest slope where it is the same for all instances. SiLU's is 1.0998, GELU's 1.1290: rounded up.
SLOPES: dict[type[nn.Module], float] = {
    nn.GELU: 1.13,
    nn.Hardtanh: 1.0,
    nn.ReLU: 1.0,
    nn.ReLU6: 1.0,
    nn.SiLU: 1.1,
    nn.Sigmoid: 0.25,
    nn.Softplus: 1.0,
    nn.Tanh: 1.0,
}
KINKS: dict[type[nn.Module], int] = {nn.Hardtanh: 2, nn.LeakyReLU: 1, nn.ReLU: 1, nn.ReLU6: 2}
"""At how many points the slope of a piecewise linear activation changes."""


@dataclass(frozen=True)
class FixedMap:
    """What the bounds know of one such map.

    slope: differences of whole signals are stretched by at most this, in Euclidean norm. offset: norm of map(0).
    unit_slope: the same for the Rademacher average of one unit: an activation's slope, the number of units of a
    maximum (the average of a maximum of k classes is at most the sum of theirs), 1 for a mean.
    homogeneous: map(c x) = c map(x) for c >= 0. unitwise: it acts on each unit alone, or is linear.
    comparisons: how many signs of affine functions of the signal decide which linear piece applies; None: not linear.
    """

    name: str
    slope: float
    offset: float
    unit_slope: float
    homogeneous: bool
    unitwise: bool
    comparisons: int | None


def is_known(module: nn.Module) -> bool:
    """Whether `module` is such a map with a known Lipschitz constant."""
    if isinstance(module, ADAPTIVE):
        return bool(torch.as_tensor(module.output_size).eq(1).all())
    if isinstance(module, MAX_POOLS) and module.return_indices:
        return False
    if getattr(module, "divisor_override", None) is not None:  # a mean of any weight
        return False
    kinds = (*SILENT, *MAX_POOLS, *AVERAGE_POOLS, nn.LeakyReLU, nn.ELU)
    return type(module) in SLOPES or isinstance(module, kinds)


def fixed_map(module: nn.Module, before: Tensor, after: Tensor) -> FixedMap:
    """Return what is known of `module`, which makes `after` of the signal `before` of one sample."""
    name, offset = type(module).__name__, float(module(torch.zeros_like(before)).norm())
    if isinstance(module, SILENT):
        return FixedMap(name, 1.0, offset, 1.0, True, True, 0)
    if isinstance(module, ADAPTIVE):
        return FixedMap(name, math.sqrt(after.numel() / before.numel()), offset, 1.0, True, True, 0)
    if isinstance(module, MAX_POOLS):
        # Every input lies in so many windows, and a maximum moves by no more than the largest move in its window.
        slope = math.sqrt(windows(module, before.ndim - 2))
        units = math.prod(_each(module.kernel_size, before.ndim - 2))
        return FixedMap(name, slope, offset, float(units), True, False, after.numel() * units * (units - 1) // 2)
    if isinstance(module, AVERAGE_POOLS):
        # sqrt(largest row sum x largest column sum); windows cut at the border have larger weights than 1/k.
        covered = windows(module, before.ndim - 2)
        whole = not module.ceil_mode and not any(_each(module.padding, before.ndim - 2))
        slope = math.sqrt(covered / (math.prod(_each(module.kernel_size, before.ndim - 2)) if whole else 1))
        return FixedMap(name, slope, offset, 1.0, True, True, 0)
    if isinstance(module, nn.LeakyReLU):
        slope = max(1.0, abs(module.negative_slope))
    elif isinstance(module, nn.ELU):
        slope = max(1.0, abs(module.alpha))
    else:
        slope = SLOPES[type(module)]
    kinks = KINKS.get(type(module))
    comparisons = None if kinks is None else kinks * before.numel()
    homogeneous = isinstance(module, nn.ReLU | nn.LeakyReLU) and not isinstance(module, nn.ReLU6)
    return FixedMap(name, slope, offset, slope, homogeneous, True, comparisons)


def windows(pool: nn.Module, dimensions: int) -> int:
    """Return in how many windows of a pooling an input can lie, at most."""
    kernel = _each(pool.kernel_size, dimensions)
    stride = _each(pool.stride, dimensions)
    dilated = any(step != 1 for step in _each(getattr(pool, "dilation", 1), dimensions))
    return math.prod(k if dilated else -(-k // s) for k, s in zip(kernel, stride, strict=True))


def _each(value: object, dimensions: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(int(one) for one in value)  # type: ignore[attr-defined]  # a tuple of ints, by torch's own types
