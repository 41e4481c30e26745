"""Sublevel sets of a sampled landscape: how many connected pieces they have at every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Curve, Line
from whydeep.core.numbers import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Basin:
    """A component of the sublevel sets: born at the value of its lowest point, gone where it meets an older one.

    place: index of the lowest point on the grid. death: infinity for the component of the global minimum.
    """

    birth: float
    death: float
    place: tuple[int, ...]

    @property
    def depth(self) -> float:
        """How far one has to climb out of it."""
        return self.death - self.birth


@dataclass(frozen=True)
class SublevelSets:
    """The components of Omega_u = {E <= u} at all levels u; basins in the order of their depth, the deepest first."""

    basins: tuple[Basin, ...]
    lowest: float
    highest: float

    def components(self, level: float) -> int:
        """Return N_u, the number of connected components of Omega_u: basins with birth <= u < death."""
        return sum(basin.birth <= level < basin.death for basin in self.basins)

    @property
    def simple(self) -> bool:
        """Whether N_u = 1 at all levels from the minimum on: the lecture's simple landscape."""
        return len(self.basins) == 1

    @property
    def poor_minima(self) -> tuple[Basin, ...]:
        """The basins whose lowest point lies above the global minimum; none where `simple`, by the proposition."""
        return tuple(basin for basin in self.basins if basin.birth > self.lowest)

    def curve(self) -> Curve:
        """Return N_u against u as a plot, 0 below the minimum; up at every minimum, down where two basins meet."""
        steps = sorted({level for b in self.basins for level in (b.birth, b.death) if level < math.inf})
        # Above the last step nothing happens: a fifth of what was seen shows it.
        end = min(self.highest, steps[-1] + 0.2 * (steps[-1] - steps[0])) if len(steps) > 1 else self.highest
        levels = sorted({*steps, end})
        x = [value for level in levels for value in (level, level)]
        counts = [self.components(level) for level in levels]
        y = [0.0, *(float(count) for count in counts for _ in range(2))][:-1]
        most = max(counts)
        return Curve(
            "Components of the sublevel sets",
            "level u",
            "number of components",
            (Line("seen", x, y), Line("one", [self.lowest, levels[-1]], [1.0, 1.0], role="reference")),
            alt=f"The number of connected components of the sublevel sets is at most {most}; the lowest level is "
            f"{plain(self.lowest, 3)}.",
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw N_u against u into `ax` (new ones when None) and return it."""
        from matplotlib.ticker import MaxNLocator

        ax = self.curve().plot(ax)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))  # there are no halves of a component
        return ax


def sublevel_sets(values: Tensor) -> SublevelSets:
    """Return the components of all sublevel sets of a landscape sampled on a grid, in one or two dimensions.

    values: (n,) or (n, m), the risk at the points of a grid. Between them it is taken as piecewise linear: in two
    dimensions on the triangles that cut every square of the grid along the same diagonal, of which the components of
    {E <= u} are exactly those of the points with E <= u joined along the edges. Points are taken up in ascending
    order by union-find; where two components meet, the one with the higher minimum ends (the merge tree, with its
    persistence pairs: Edelsbrunner, Letscher and Zomorodian 2002). Basins of depth zero (a plateau) are no components.

    Finer structure than the grid is not seen, and a slice is not the landscape: two components of a slice may be joined
    outside it, N_u of the slice only bounds the number of components that this slice meets.
    Raises `InputError` when the values are not finite or have another number of dimensions. Cost: n log n.

    >>> found = sublevel_sets(torch.tensor([1.0, 0.0, 3.0, 2.0, 4.0]))
    >>> [found.components(u) for u in (0.5, 2.5, 3.0)], [basin.depth for basin in found.basins]
    ([1, 2, 1], [inf, 1.0])
    """
    if values.ndim not in (1, 2) or values.numel() == 0:
        raise InputError(f"the values have shape {tuple(values.shape)}", "give them on a line (n,) or a plane (n, m)")
    if not bool(torch.isfinite(values).all()):
        raise InputError("some values are NaN or inf", "cut the region where the risk is finite")
    rows, columns = (1, len(values)) if values.ndim == 1 else values.shape
    heights = values.double().reshape(-1).tolist()
    order = sorted(range(len(heights)), key=heights.__getitem__)
    parent = [-1] * len(heights)  # -1: not taken up yet; a root is its component's lowest point
    basins: list[Basin] = []

    def place(index: int) -> tuple[int, ...]:
        return (index,) if values.ndim == 1 else divmod(index, columns)

    for index in order:
        parent[index] = index
        for beside in _neighbours(index, rows, columns):
            if parent[beside] < 0:
                continue
            first, second = _root(parent, index), _root(parent, beside)
            if first == second:
                continue
            # The elder rule: the component with the lower minimum goes on.
            older, younger = sorted((first, second), key=lambda root: (heights[root], root))
            if heights[younger] < heights[index]:
                basins.append(Basin(heights[younger], heights[index], place(younger)))
            parent[younger] = older
    lowest = order[0]
    root = _root(parent, lowest)
    basins.append(Basin(heights[root], math.inf, place(root)))
    basins.sort(key=lambda basin: -basin.depth)
    return SublevelSets(tuple(basins), heights[lowest], heights[order[-1]])


def _neighbours(index: int, rows: int, columns: int) -> Sequence[int]:
    row, column = divmod(index, columns)
    steps = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1))  # the last two: the diagonal of the triangles
    return [(row + i) * columns + column + j for i, j in steps if 0 <= row + i < rows and 0 <= column + j < columns]


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def layer_cake(values: Tensor) -> Tensor:
    """Return int_0^inf 1(theta not in Omega_u) du at every point, shaped like `values`: the layer-cake form of E >= 0.

    Omega_u = {E <= u}, so the integrand is 1 for u < E(theta) and 0 from there on, and the integral is E(theta). The
    lecture's slide ("Topology of Nonconvex Landscape") prints 1(theta in Omega_u), which is 1 from E(theta) on: its
    integral is infinite, and up to a level U it is U - E(theta). The integrand has to be theta NOT in Omega_u.

    Computed from the indicators of the sublevel sets alone, exactly, as they change at the values of E only.
    Raises `InputError` when a value is below zero: the layers below it would be missing.
    Cost: number of points times number of different values.

    >>> layer_cake(torch.tensor([0.0, 2.0, 0.5]))
    tensor([0.0000, 2.0000, 0.5000])
    """
    if bool((values < 0).any()):
        raise InputError(
            f"the smallest value is {float(values.min()):g}", "give a landscape that is nowhere below zero"
        )
    levels = torch.unique(torch.cat([values.new_zeros(1), values.reshape(-1)]))
    total = torch.zeros_like(values)
    for low, high in pairwise(levels):
        outside = ~(values <= low)  # not in Omega_u for u in [low, high), where no value lies in between
        total = total + outside * (high - low)
    return total
