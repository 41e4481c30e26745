"""The surface of the risk over a plane through the solution, as a map of level lines."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.exhibit import Curve, Line
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Callback, Progress
from whydeep.optimization.landscape.spectra.block_lanczos import block_lanczos
from whydeep.optimization.landscape.spectra.hessian import Hessian

from .offsets import check_finite, risks
from .plane import Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Surface:
    """values (g, h): at centre + a[i] first + b[j] second of the plane; a (g,), b (h,) ascending.

    quantity: what the values are. A slice of a few dimensions cannot prove convexity: what it does not show may curve
    down.
    """

    plane: Plane
    a: Tensor
    b: Tensor
    values: Tensor
    quantity: str = "risk"

    def levels(self, count: int = 7) -> list[float]:
        """Return `count` values between which the surface is cut.

        Of the risk closer together near its lowest point, up to its median over the plane, since it grows without end
        outwards; of other quantities at equal distances up to the largest value.
        """
        finite = self.values[torch.isfinite(self.values)]
        if not len(finite):
            return []
        if self.quantity != "risk":
            low, high = float(finite.min()), float(finite.max())
            return torch.linspace(low, high, count + 1, dtype=torch.float64)[1:].tolist() if high > low else []
        low, high = float(finite.min()), float(finite.median().maximum(finite.min()))
        if not high > low:
            high = float(finite.max())
        # The height over a minimum grows as the square of the distance: levels equally spaced in distance.
        return [low + (high - low) * (k / count) ** 2 for k in range(1, count + 1)] if high > low else []

    def curve(self, title: str = "The risk around the solution", *, count: int = 7) -> Curve:
        """Return the level lines as a plot, the solution in the middle and the trajectory, where there is one."""
        from contourpy import contour_generator

        height = torch.where(torch.isfinite(self.values), self.values, torch.nan).T.numpy()
        lines = []
        contours = contour_generator(self.a.numpy(), self.b.numpy(), np.ma.masked_invalid(height))
        for level in self.levels(count):
            pieces = [piece for piece in contours.lines(level) if len(piece) > 1]
            if pieces:
                gap = np.full((1, 2), np.nan)
                points = np.concatenate([part for piece in pieces for part in (piece, gap)])
                lines.append(
                    Line(
                        f"{self.quantity} {plain(level, 2)}",
                        points[:, 0].tolist(),
                        points[:, 1].tolist(),
                        role="reference",
                    )
                )
        if self.plane.trajectory is not None:
            path = self.plane.trajectory
            lines.append(Line("training", path[:, 0].tolist(), path[:, 1].tolist(), marks=True))
        lines.append(Line("solution", [0.0], [0.0], marks=True))
        finite = self.values[torch.isfinite(self.values)]
        span = f"from {plain(float(finite.min()), 2)} to {plain(float(finite.max()), 2)}" if len(finite) else "nowhere"
        alt = f"Level lines of the {self.quantity}, which is finite {span} over the plane."
        return Curve(title, *self.plane.names, tuple(lines), alt=alt)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the surface as filled level bands with a bar of values into `axes` (new ones when None); return them."""
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(layout="constrained").subplots()
        height = torch.where(torch.isfinite(self.values), self.values, torch.nan).T.numpy()
        levels = [float(np.nanmin(height)), *self.levels(10)] if np.isfinite(height).any() else []
        if len(levels) > 1:
            extend = "max" if np.nanmax(height) > levels[-1] else "neither"
            bands = axes.contourf(self.a, self.b, height, levels=levels, cmap="viridis", extend=extend)
            figure = axes.get_figure(root=True)
            assert figure is not None
            figure.colorbar(bands, ax=axes, label=self.quantity)
        edge: dict[str, Any] = {
            "markeredgecolor": "black",
            "markeredgewidth": 0.6,
        }  # to be seen on the brightest band, too
        if self.plane.trajectory is not None:
            a, b = self.plane.trajectory.T.numpy()
            axes.plot(a, b, color="black", linewidth=2)
            axes.plot(a, b, color="white", marker="o", markersize=4, linewidth=1, **edge)
        axes.plot([0], [0], marker="*", color="white", markersize=11, **edge)
        axes.set_title(f"{self.quantity.capitalize()} around the solution", loc="left")
        axes.set_xlabel(self.plane.names[0])
        axes.set_ylabel(self.plane.names[1])
        return axes


def surface(
    problem: Problem,
    plane: Plane,
    *,
    extent: float = 1.0,
    points: int = 25,
    data: Data | None = None,
    recompute_statistics: bool = False,
    store: str | Path | None = None,
    callback: Callback | None = None,
) -> Surface:
    """Return the risk on a grid of points x points over [-extent, extent]^2 of the plane.

    Where the plane has a trajectory the grid covers that instead, with a tenth of its width around it.
    store: a file (.npz) in which every finished part is kept; called again with the same problem, plane and grid, the
    work goes on from there. recompute_statistics: batch norm's statistics anew at every point, from the training data.
    callback: told the points done; returning True stops there, and the rest of the surface is NaN.

    Evaluation mode, on the training data by default. Raises `ValueError` for points < 2 or an extent that is not
    positive and finite, and `InputError` when `store` holds another surface, or the plane NaN or inf.
    Cost: points^2 passes over the data.
    """
    a, b = _axes(plane, extent, points)
    offsets = torch.cartesian_prod(a, b)
    data = problem.train if data is None else data
    kept = _Store(store, _fingerprint(problem, plane, offsets, data, recompute_statistics), len(offsets))
    values = kept.values.clone()
    missing = torch.isnan(values).nonzero()[:, 0]
    for rows, part in risks(
        problem,
        offsets[missing],
        centre=plane.centre,
        directions=plane.directions,
        data=data,
        recompute_statistics=recompute_statistics,
    ):
        values[missing[rows]] = part
        kept.write(values)
        done = len(values) - int(torch.isnan(values).sum())
        if callback is not None and callback(Progress(done, len(values))) is True:
            break
    return Surface(plane, a, b, values.reshape(points, points))


def curvature_map(
    problem: Problem,
    plane: Plane,
    *,
    extent: float = 1.0,
    points: int = 7,
    data: Data | None = None,
    steps: int = 8,
    generator: torch.Generator | None = None,
) -> tuple[Surface, Surface]:
    """Return the largest and the smallest Hessian eigenvalue at every point of a grid over the plane.

    Li et al. (2018) map |smallest / largest|: where it is small the surface is nearly convex there in all directions,
    which the two of the plane alone cannot show. `steps` blocks of 2 vectors each: the values are Ritz values, the
    largest from below and the smallest from above. NaN where the risk or its gradient is not finite.
    Raises as `surface` does. Cost: points^2 * (2 steps + 1) products with a Hessian.
    """
    a, b = _axes(plane, extent, points)
    check_finite(centre=plane.centre, directions=plane.directions)
    generator = spawn(or_default(generator))  # unrelated to weights that were drawn from the same seed
    start = torch.randn(2, len(plane.centre), generator=generator, dtype=plane.centre.dtype).to(plane.centre)
    start = start[: min(2, len(plane.centre))]

    def ends(offset: Tensor) -> tuple[float, float]:
        point = plane.centre + offset.to(plane.centre) @ plane.directions
        try:
            hessian = Hessian(problem.at(point), data=data)
            values, _, _ = block_lanczos(hessian, start, steps=steps, noise=hessian.noise).ritz()
        except InputError:
            return float("nan"), float("nan")
        return float(values[-1]), float(values[0])

    found = torch.tensor([ends(offset) for offset in torch.cartesian_prod(a, b)], dtype=torch.float64)
    names = ("largest curvature", "smallest curvature")
    first, second = (
        Surface(plane, a, b, found[:, k].reshape(points, points), quantity=name) for k, name in enumerate(names)
    )
    return first, second


def _axes(plane: Plane, extent: float, points: int) -> tuple[Tensor, Tensor]:
    if points < 2 or not 0 < extent < math.inf:
        raise ValueError(f"points={points} and extent={extent}; give at least 2 points and a finite extent above 0")
    if plane.trajectory is None:
        axis = torch.linspace(-extent, extent, points, dtype=torch.float64)
        return axis, axis
    low = plane.trajectory.min(0).values.clamp(max=0)
    high = plane.trajectory.max(0).values.clamp(min=0)
    margin = 0.1 * (high - low)
    ends = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    first, second = (torch.linspace(start, end, points, dtype=torch.float64) for start, end in ends)
    return first, second


def _fingerprint(problem: Problem, plane: Plane, offsets: Tensor, data: Data, recompute: bool) -> str:
    seal = hashlib.sha256(f"{problem.per_sample.name} {len(data)} {data.name} {recompute}".encode())
    state = [value for value in problem.model.state_dict().values() if value.is_floating_point()]
    for part in (plane.centre, plane.directions, offsets, data.targets, *state):
        seal.update(part.detach().double().cpu().contiguous().numpy().tobytes())
    return seal.hexdigest()


class _Store:
    """The values found so far, in memory and, where a file is given, on disk."""

    def __init__(self, path: str | Path | None, fingerprint: str, size: int) -> None:
        self._path = None if path is None else Path(path)
        self._fingerprint = fingerprint
        self.values = torch.full((size,), torch.nan, dtype=torch.float64)
        if self._path is not None and self._path.exists():
            with np.load(self._path) as kept:
                if str(kept["fingerprint"]) != fingerprint:
                    raise InputError(
                        f"{self._path.name} holds the surface of another network, plane, grid or data set",
                        "give another file, or delete it",
                    )
                self.values = torch.from_numpy(kept["values"])

    def write(self, values: Tensor) -> None:
        if self._path is None:
            return
        part = self._path.with_name(self._path.name + ".part")
        with part.open("wb") as file:
            np.savez(file, fingerprint=np.array(self._fingerprint), values=values.numpy())
        os.replace(part, self._path)  # never half a file under its own name
