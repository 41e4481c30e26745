"""What a page shows beside numbers: curves, tables and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Role = Literal["measured", "theory", "reference"]
Cell = str | float | int | bool | None


def _floats(values: Any) -> tuple[float, ...]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    return tuple(array.reshape(-1).tolist())


@dataclass(frozen=True)
class Line:
    """One series of a plot: y against x, with an optional band [low, high].

    role: "measured" in an accent colour, "theory" dashed, "reference" in grey. marks: draw the points themselves.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    role: Role = "measured"
    marks: bool = False

    def __post_init__(self) -> None:
        for name in ("x", "y", "low", "high"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _floats(getattr(self, name)))
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise ValueError(f"line {self.label!r}: {len(self.x)} x but {len(values)} {name}; give as many")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"line {self.label!r}: a band needs low and high; give both")


@dataclass(frozen=True)
class Curve:
    """A plot: lines over one pair of axes. alt: what the plot shows, in a sentence, for those who do not see it.

    x_ticks: names of the positions 0, 1, 2, ... for an axis of categories.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    alt: str
    x_log: bool = False
    y_log: bool = False
    x_ticks: tuple[str, ...] | None = None

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw into `axes` (new ones when None) and return them; matplotlib's state is left alone."""
        from . import drawing

        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(layout="constrained").subplots()
        drawing.draw(self, axes)
        axes.set_title(self.title, loc="left")
        return axes


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class Image:
    """A grid of small pictures: tiles (n, h, w) or (n, h, w, 3), uint8; captions: none, or one a tile."""

    title: str
    tiles: NDArray[np.uint8]
    alt: str
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tiles = np.asarray(self.tiles)
        if tiles.dtype != np.uint8 or tiles.ndim not in (3, 4) or (tiles.ndim == 4 and tiles.shape[3] != 3):
            raise ValueError(
                f"image {self.title!r} has shape {tiles.shape} {tiles.dtype}; give (n, h, w) or (n, h, w, 3) uint8"
            )
        if self.captions and len(self.captions) != len(tiles):
            raise ValueError(f"image {self.title!r}: {len(self.captions)} captions for {len(tiles)} tiles")
        object.__setattr__(self, "tiles", tiles)


Exhibit = Curve | Table | Image
