"""The picture of a spectrum: its density on a logarithmic scale, with the eigenvalues at the ends as ticks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.numbers import plain

if TYPE_CHECKING:
    from .matrix_spectrum import Spectrum


def density_curve(seen: Spectrum, title: str = "Density of the eigenvalues") -> Curve:
    """Return the density smoothed by 1 % of what is drawn, its 95 % band, and a tick at every eigenvalue of the ends.

    One eigenvalue alone is a bump of height 1/(p sigma sqrt(2 pi)); a twentieth of that is the floor of the picture,
    below which the density is left out.
    """
    grid = seen.grid(500)
    sigma = 0.01 * float(grid[-1] - grid[0])
    density = seen.density(grid, width=sigma)
    alone = 1 / (seen.size * sigma * math.sqrt(2 * math.pi))
    floor = alone / 20
    shown = torch.where(density.value > floor, density.value, torch.nan)
    low, high = density.low.clamp(min=floor), density.high.clamp(min=floor)
    near = seen.quadrature.nodes.abs() <= 0.01 * max(abs(seen.largest), abs(seen.smallest))
    share = float(seen.quadrature.mean(near.double()[:, None])[0])
    edge = sorted({*seen.eigenvalues.tolist(), seen.smallest})
    ticks = [x for value in edge for x in (value, value, math.nan)]
    heights = [y for _ in edge for y in (floor, 2.5 * floor, math.nan)]
    return Curve(
        title,
        "eigenvalue",
        "fraction of eigenvalues per unit",
        (
            Line("density", grid.tolist(), shown.tolist(), low.tolist(), high.tolist()),
            Line("edge", ticks, heights, role="reference"),
        ),
        alt=f"Of {seen.size:,} eigenvalues {plain(100 * share, 3)} % lie within a hundredth of the largest from zero; "
        f"the {len(seen.eigenvalues)} largest, up to {plain(seen.largest, 3)}, and the smallest, "
        f"{plain(seen.smallest, 2)}, are marked below.",
        y_log=True,
    )
