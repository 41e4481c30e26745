"""Networks that are piecewise linear by construction, and how one layer bends a path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AFFINE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
"""Affine in evaluation mode."""

IDLE = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Only reshape, or do nothing in evaluation mode."""

AffineOrIdle = AFFINE + IDLE
Rectifier = (nn.ReLU, nn.LeakyReLU)
SUPPORTED = (*AffineOrIdle, *Rectifier, nn.MaxPool2d)

SMALLEST_GAP = 1e-13
"""Zeros closer than this fraction of the segment count as one: they differ by the rounding of float64 (2e-16) times the
condition of the layers before, and two units that are copies of each other must not make a piece of that length."""

SLOPE_TOLERANCE = 1e-9
"""Two neighbouring pieces are one when their slopes differ by less than this fraction of the steepest slope.

Slopes are propagated, not differenced, so their rounding error is near 1e-15 of the steepest whatever a piece's length.
"""


@dataclass(frozen=True)
class Path:
    """A piecewise linear path through the space of some layer.

    positions: (p,) sorted in [0, 1]. values: (p, ...) there. slopes: (p - 1, ...) between consecutive positions.
    """

    positions: Tensor
    values: Tensor
    slopes: Tensor

    def halves(self) -> tuple[Path, Path]:
        """Cut the path at its middle position, which both halves keep."""
        middle = len(self.positions) // 2
        first = Path(self.positions[: middle + 1], self.values[: middle + 1], self.slopes[:middle])
        return first, Path(self.positions[middle:], self.values[middle:], self.slopes[middle:])

    def simplified(self) -> Path:
        """Return the path without the positions at which it does not bend."""
        slopes = self.slopes.flatten(1)
        bends = (slopes[1:] - slopes[:-1]).abs().amax(1) > SLOPE_TOLERANCE * slopes.abs().max()
        first = torch.ones(1, dtype=torch.bool)
        kept = torch.cat([first, bends, first])
        return Path(self.positions[kept], self.values[kept], self.slopes[kept[:-1]])


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers in order, nested `nn.Sequential` unfolded; `ValueError` with the reason of `obstacle`."""
    reason = obstacle(model)
    if reason is not None:
        raise ValueError(f"{reason}; give an nn.Sequential of {', '.join(kind.__name__ for kind in SUPPORTED)}")
    return _unfold(model)


def obstacle(model: nn.Module) -> str | None:
    """Return why `model` is not known to be piecewise linear by construction, naming the module, or None if it is.

    >>> obstacle(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    'layer 1 (Tanh) is not piecewise linear by construction'
    """
    # Exact types, not isinstance: a subclass may compute something else.
    if type(model) is not nn.Sequential and type(model) not in SUPPORTED:
        return f"the network is a {type(model).__name__}, whose forward pass may do anything, not an nn.Sequential"
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    if hooked:
        return f"a {type(hooked[0]).__name__} has a forward hook, which may change its output"
    for index, layer in enumerate(_unfold(model)):
        place = f"layer {index} ({type(layer).__name__})"
        if type(layer) not in SUPPORTED:
            return f"{place} is not piecewise linear by construction"
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and layer.running_mean is None:
            return f"{place} normalises by the statistics of its batch, also in evaluation"
        if isinstance(layer, nn.Flatten | nn.Unflatten) and _mixes_samples(layer):
            return f"{place} mixes the samples of a batch"
        if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
            return f"{place} returns indices beside its output"
    return None


def rectify(path: Path, negative_slope: float) -> Path:
    """Return the path after z -> max(z, 0) + negative_slope min(z, 0), with the zero of every unit inserted."""
    path = _cut(path, path.values)
    positive = path.values[:-1] + path.values[1:] > 0  # the sign at the middle of a piece is that of all of it
    values = path.values.clamp(min=0) + negative_slope * path.values.clamp(max=0)
    return Path(path.positions, values, torch.where(positive, path.slopes, negative_slope * path.slopes))


def maximum(path: Path, layer: nn.MaxPool2d) -> Path:
    """Return the path after the maximum over windows, taken pair by pair: a and b swap where a - b = 0."""
    windows = window_indices(layer, path.values[:1])
    channels, (height, width) = path.values.shape[1], _output_size(layer, path.values[:1])
    path = Path(path.positions, path.values.flatten(2)[:, :, windows], path.slopes.flatten(2)[:, :, windows])
    while (size := path.values.shape[-1]) > 1:
        half = size // 2
        path = _cut(path, path.values[..., :half] - path.values[..., half : 2 * half])
        a, b, rest = path.values[..., :half], path.values[..., half : 2 * half], path.values[..., 2 * half :]
        s, t, slopes = path.slopes[..., :half], path.slopes[..., half : 2 * half], path.slopes[..., 2 * half :]
        first = (a - b)[:-1] + (a - b)[1:] > 0
        path = Path(
            path.positions,
            torch.cat([torch.maximum(a, b), rest], -1),
            torch.cat([torch.where(first, s, t), slopes], -1),
        )
    shape = (-1, channels, height, width)
    # Units that lost against a neighbour may have bent; nothing of that is left.
    return Path(path.positions, path.values.reshape(shape), path.slopes.reshape(shape)).simplified()


def window_indices(layer: nn.MaxPool2d, values: Tensor) -> Tensor:
    """Return for every window (row-major) the flat pixel indices in it, (windows, K), for `values` (n, c, h, w).

    Padding is -infinity for a maximum, so a padded place repeats the window's first real pixel and changes nothing.
    """
    height, width = values.shape[-2:]
    (k1, k2), (s1, s2), (d1, d2), (p1, p2) = (
        _pair(v) for v in (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    )
    out1, out2 = _output_size(layer, values)
    # The last window may hang over the edge (ceil_mode) or end before it: pad or crop to what the windows cover.
    right = (out2 - 1) * s2 + d2 * (k2 - 1) + 1 - p2 - width
    bottom = (out1 - 1) * s1 + d1 * (k1 - 1) + 1 - p1 - height
    index = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    padded = F.pad(index, (p2, right, p1, bottom), value=-1.0)
    windows = F.unfold(padded, (k1, k2), dilation=(d1, d2), stride=(s1, s2))[0].T.long()
    real = (windows >= 0).int().argmax(1, keepdim=True)
    return torch.where(windows >= 0, windows, windows.gather(1, real))


def _cut(path: Path, quantity: Tensor) -> Path:
    """Insert into `path` the positions at which an entry of `quantity` (p, ...), affine between positions, is zero."""
    t, z = path.positions, quantity.flatten(1)
    left, right = z[:-1], z[1:]
    segment, unit = ((left < 0) & (right > 0) | (left > 0) & (right < 0)).nonzero(as_tuple=True)
    a, b = left[segment, unit], right[segment, unit]
    zeros = t[segment] + a / (a - b) * (t[segment + 1] - t[segment])
    merged, order = torch.cat([t, zeros]).sort(stable=True)
    given = order < len(t)
    gaps = merged.diff()
    wide = gaps > SMALLEST_GAP
    kept = given.clone()
    kept[1:-1] |= wide[:-1] & (wide[1:] | ~given[2:])
    merged = merged[kept]
    # Interpolate between the old positions; at an old position the weight is exactly 0 (or 1 at the end).
    into = (torch.searchsorted(t, merged, right=True) - 1).clamp(max=len(t) - 2)
    weight = ((merged - t[into]) / (t[into + 1] - t[into])).reshape(-1, *[1] * (path.values.ndim - 1))
    values = (1 - weight) * path.values[into] + weight * path.values[into + 1]
    return Path(merged, values, path.slopes[into[:-1]])


def _unfold(model: nn.Module) -> list[nn.Module]:
    if type(model) is nn.Sequential:
        return [layer for child in model for layer in _unfold(child)]
    return [model]


def _mixes_samples(layer: nn.Flatten | nn.Unflatten) -> bool:
    return (layer.start_dim if isinstance(layer, nn.Flatten) else int(layer.dim)) < 1  # negative: depends on the rank


def _output_size(layer: nn.MaxPool2d, values: Tensor) -> tuple[int, int]:
    height, width = layer(values[:1, :1]).shape[-2:]
    return int(height), int(width)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
