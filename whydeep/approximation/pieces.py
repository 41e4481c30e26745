"""The exact number of linear pieces of a network along a segment of its input space."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .piecewise import AffineOrIdle, Path, Rectifier, layers, maximum, rectify, window_indices


@dataclass(frozen=True)
class Pieces:
    """A network along the segment start + t (end - start), t in [0, 1]: linear between consecutive positions.

    positions: (k + 1,) sorted, from 0 to 1. values: (k + 1, outputs) there. slopes: (k, outputs), change per unit of t.
    """

    positions: Tensor
    values: Tensor
    slopes: Tensor

    @property
    def count(self) -> int:
        """The number k of linear pieces; 1 where the network is affine along the segment."""
        return len(self.slopes)


def pieces(model: nn.Module, start: Tensor, end: Tensor, *, elements: int = 2**23) -> Pieces:
    """Return the linear pieces of `model` in evaluation mode along the segment from `start` to `end`.

    start, end: one sample each, of the model's input shape, no batch dimension. All work is in float64, on a copy.
    The breakpoints are kept sorted and every layer is evaluated at them; where a unit changes sign inside a piece its
    zero is inserted (a unit is affine on every piece, so it has at most one there). At the end neighbours of equal
    slope are merged: a unit that switches but does not reach the output makes no new piece. Zeros closer than 1e-13 of
    the segment count as one.

    Handles `nn.Sequential` (nested) of the layers in `piecewise.SUPPORTED`.
    Raises `ValueError` for any other module, named, and when start and end do not fit.
    elements: about how many activations are held at a time; longer lists of breakpoints are worked off in parts.
    Cost: one forward pass per breakpoint, twice (values and slopes).

    >>> from whydeep.approximation.constructive import sawtooth
    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> pieces(sawtooth(10), zero, one).count  # 2^10
    1024
    """
    if start.shape != end.shape:
        raise ValueError(f"the ends have shapes {tuple(start.shape)} and {tuple(end.shape)}; give both the same")
    stages = [copy.deepcopy(layer).to("cpu", torch.float64).eval() for layer in layers(model)]
    ends = torch.stack([start, end]).detach().to("cpu", torch.float64)
    # A long segment is begun in parts, so that no layer holds many more than `elements` activations at a time.
    bends = kinks(model, tuple(start.shape)) or (1,)
    parts = math.ceil(sum(bends) * max(bends) / elements)
    finished: list[Path] = []
    waiting = [(0, Path(cut, torch.stack([_at(ends, t) for t in cut]), ends[1:] - ends[:1])) for cut in _parts(parts)]
    with torch.no_grad():
        while waiting:
            index, path = waiting.pop()
            if path.values.numel() > elements and len(path.positions) > 2:
                first, second = path.halves()
                waiting += [(index, second), (index, first)]  # the first half is popped next: order is kept
            elif index < len(stages):
                waiting.append((index + 1, _through(stages[index], path)))
            else:
                finished.append(path)
    return _merged(finished)


def kinks(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return for every non-affine layer how many new breakpoints it can make in one linear piece.

    A ReLU or LeakyReLU layer: its number of units, each of which has at most one zero. A maximum over windows of K
    entries: K - 1 for every window, since the maximum of K affine functions of t is convex with at most K pieces.
    A line therefore has at most prod_l (kinks_l + 1) pieces: Montufar et al. (2014) and Serra et al. (2018) for input
    dimension 1 (recalled, not checked against the papers; the argument above is complete).
    Raises `ValueError` as `pieces` does. Cost: one forward pass.

    >>> kinks(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), (3,))
    (8,)
    """
    value = torch.zeros(1, *input_shape, dtype=torch.float64)
    found = []
    with torch.no_grad():
        for layer in layers(model):
            incoming = value
            value = copy.deepcopy(layer).to("cpu", torch.float64).eval()(value)
            if isinstance(layer, Rectifier):
                found.append(value.numel())
            elif isinstance(layer, nn.MaxPool2d):
                found.append(value.numel() * (window_indices(layer, incoming).shape[-1] - 1))
    return tuple(found)


def _through(layer: nn.Module, path: Path) -> Path:
    if isinstance(layer, Rectifier):
        return rectify(path, float(getattr(layer, "negative_slope", 0.0)))
    if isinstance(layer, nn.MaxPool2d):
        return maximum(path, layer)
    assert isinstance(layer, AffineOrIdle)
    count = len(path.positions)
    # An affine layer x -> A x + b maps values to A x + b and slopes to A s = (A s + b) - b.
    both = layer(torch.cat([path.values, path.slopes]))
    offset = layer(torch.zeros_like(path.values[:1]))
    return Path(path.positions, both[:count], both[count:] - offset)


def _merged(paths: list[Path]) -> Pieces:
    positions = torch.cat([paths[0].positions] + [path.positions[1:] for path in paths[1:]])
    values = torch.cat([paths[0].values] + [path.values[1:] for path in paths[1:]]).flatten(1)
    slopes = torch.cat([path.slopes for path in paths]).flatten(1)
    whole = Path(positions, values, slopes).simplified()
    return Pieces(whole.positions, whole.values, whole.slopes)


def _parts(count: int) -> list[Tensor]:
    """Equal parts of [0, 1] as pairs of positions, the last one first: the waiting list is worked off from its end."""
    grid = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    return list(torch.stack([grid[:-1], grid[1:]], 1).flip(0))


def _at(ends: Tensor, t: Tensor) -> Tensor:
    return (1 - t) * ends[0] + t * ends[1]
