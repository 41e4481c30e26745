"""SGLD in a double well: how long it stays in each well is what the Gibbs density says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch import Tensor

from whydeep.core.exhibit import Curve, Line
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.randomness import or_default

from .chains import Experiment, Point, run_chains


@dataclass(frozen=True)
class DoubleWell:
    """F(w) = (w^2 - 1)^2 / 4 + tilt w: wells near -1 and 1, a barrier of height 1/4 at 0 where there is no tilt.

    A positive tilt makes the left well the deeper one. Beyond |tilt| = 2 / sqrt(27) = .385 only one well is left.
    """

    tilt: float = 0.0

    def __post_init__(self) -> None:
        if not abs(self.tilt) < 2 / math.sqrt(27):
            raise ValueError(f"tilt is {self.tilt}; give a number below 0.385 in size, or there are no two wells")

    def energy(self, w: Any) -> Any:
        """Return F."""
        return (w**2 - 1) ** 2 / 4 + self.tilt * w

    def force(self, w: Tensor) -> Tensor:
        """Return F' = w^3 - w + tilt."""
        return w**3 - w + self.tilt

    @property
    def critical_points(self) -> tuple[float, float, float]:
        """Left minimum, top of the barrier, right minimum: the roots of w^3 - w + tilt."""
        left, top, right = sorted(float(root.real) for root in np.roots([1.0, 0.0, -1.0, self.tilt]))
        return left, top, right

    def mass(self, low: float, high: float, *, beta: float) -> float:
        """Return the Gibbs probability of (low, high) by quadrature; at most -6 and 6, where e^(-beta F) is gone."""
        lowest = min(self.energy(point) for point in self.critical_points)

        def weight(w: float) -> float:
            return math.exp(-beta * (self.energy(w) - lowest))

        kinks = list(self.critical_points)
        whole = _integral(weight, -6.0, 6.0, kinks)
        return _integral(weight, max(low, -6.0), min(high, 6.0), kinks) / whole

    def density(self, w: float, *, beta: float) -> float:
        """Return the Gibbs density at w."""
        return self.mass(w - 1e-3, w + 1e-3, beta=beta) / 2e-3


def _integral(function: Callable[[float], float], low: float, high: float, kinks: list[float]) -> float:
    inside = [point for point in kinks if low < point < high]
    edges = [low, *inside, high]
    return math.fsum(integrate.quad(function, a, b, limit=200)[0] for a, b in itertools.pairwise(edges))


def settled(
    well: DoubleWell,
    *,
    beta: float,
    lr: float,
    time: float,
    chains: int,
    generator: torch.Generator,
) -> Tensor:
    """Return where chains that start on the barrier's top stand at `time`: both wells are reached at once."""
    top = well.critical_points[1]
    start = torch.full((chains,), top, dtype=torch.float64)
    return run_chains(well.force, start, lr=lr, beta=beta, steps=math.ceil(time / lr), generator=generator)


def occupation(
    well: DoubleWell,
    *,
    beta: float,
    lr: float = 0.01,
    time: float = 30.0,
    chains: int = 5_000,
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> Measurement:
    """Return the fraction of chains in the left well at `time`, with the interval of independent chains."""
    generator = or_default(generator)
    places = settled(well, beta=beta, lr=lr, time=time, chains=chains, generator=generator)
    left = int((places < well.critical_points[1]).sum())
    return proportion("fraction in the left well", left, chains, confidence=confidence)


def double_well(
    betas: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    *,
    tilt: float = 0.1,
    chains: int = 5_000,
    generator: torch.Generator | None = None,
) -> Experiment:
    """Return the fraction of chains in the left well at several temperatures, by quadrature and measured.

    By time 30 the wells must have exchanged their chains often, which takes a time of about e^(beta/4) pi / sqrt(2):
    beta up to 5. Raises `ValueError` beyond. Steps of .01 shift the fractions by less than .005.
    """
    if not betas or max(betas) > 5:
        raise ValueError(f"betas are {tuple(betas)}; give some up to 5: beyond, the wells are not exchanged in time")
    generator, well = or_default(generator), DoubleWell(tilt)
    top = well.critical_points[1]
    points = tuple(
        Point(
            beta,
            well.mass(-math.inf, top, beta=beta),
            occupation(well, beta=beta, chains=chains, generator=generator),
        )
        for beta in betas
    )
    x, found = [point.x for point in points], [point.measured for point in points]
    curve = Curve(
        "Time in the deeper well",
        "inverse temperature",
        "fraction in the left well",
        (
            Line("measured", x, [m.value for m in found], [m.low for m in found], [m.high for m in found], marks=True),
            Line("Gibbs", x, [point.predicted for point in points], role="theory"),
        ),
        alt=f"The fraction in the deeper well goes from {found[0].value:.2f} at inverse temperature {x[0]:g} to "
        f"{found[-1].value:.2f} at {x[-1]:g}; quadrature of the Gibbs density gives {points[0].predicted:.2f} and "
        f"{points[-1].predicted:.2f}.",
    )
    return Experiment(points, curve)
