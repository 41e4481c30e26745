"""Kramers' escape times: the colder, the longer it takes to leave a well, by a factor e^(beta barrier)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy import integrate
from torch import Tensor

from whydeep.core.exhibit import Curve, Line
from whydeep.core.measurement import Measurement, mean
from whydeep.core.randomness import or_default

from .chains import Experiment, Point, run_chains
from .double_well import DoubleWell

OVERSHOOT = 0.5826
"""-zeta(1/2) / sqrt(2 pi): watched only at steps, a Gaussian walk passes a level as late as if it lay that many of its
steps' standard deviations further on (Chernoff 1965; Broadie, Glasserman and Kou 1997)."""


def kramers_time(well: DoubleWell, *, beta: float) -> float:
    """Return Kramers' mean time from the left minimum to the barrier's top for a high barrier, beta dF >> 1.

    pi / sqrt(F''(minimum) |F''(top)|) e^(beta dF): half the mean time to the other well, because from the top a chain
    falls to either side alike. Source: Kramers 1940.

    >>> round(kramers_time(DoubleWell(), beta=4.0), 3)  # pi / sqrt(2) e
    6.039
    """
    left, top, _ = well.critical_points
    bend = math.sqrt((3 * left**2 - 1) * abs(3 * top**2 - 1))
    return math.pi / bend * math.exp(beta * (well.energy(top) - well.energy(left)))


def passage_time(well: DoubleWell, *, beta: float, lr: float = 0.0) -> float:
    """Return the mean time from the left minimum until the top is passed, at any temperature.

        T = beta int_left^b e^(beta F(y)) int_-infinity^y e^(-beta F(x)) dx dy

    by quadrature, with b the top, moved by OVERSHOOT sqrt(2 lr / beta) when steps of length `lr` are all one sees.
    Source: the solution of F' T' - T'' / beta = 1 with a reflecting end (Gardiner, "Handbook of Stochastic Methods").
    """
    left, top, _ = well.critical_points
    end = top + OVERSHOOT * math.sqrt(2 * lr / beta)
    base = well.energy(left)

    def inner(y: float) -> float:
        return float(integrate.quad(lambda x: math.exp(-beta * (well.energy(x) - base)), -6.0, y, points=[left])[0])

    outer = integrate.quad(lambda y: math.exp(beta * (well.energy(y) - base)) * inner(y), left, end, limit=100)
    return beta * float(outer[0])


def measured_time(
    well: DoubleWell,
    *,
    beta: float,
    lr: float = 0.01,
    chains: int = 500,
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> Measurement:
    """Return the mean time at which chains from the left minimum first stand beyond the top, with Student's interval.

    All chains are followed until they have passed. Raises `ValueError` for a mean wait of more than 200,000 steps.
    """
    left, top, _ = well.critical_points
    expected = kramers_time(well, beta=beta)
    # The passage times are nearly exponential: of 500 the last is at about ln(500) = 6 means; 20 is never reached.
    most = math.ceil(20 * expected / lr)
    if most > 4_000_000:
        raise ValueError(f"leaving takes about {expected / lr:.0f} steps a chain; give a smaller beta or a larger lr")
    passed = torch.full((chains,), math.inf, dtype=torch.float64)

    def watch(step: int, places: Tensor) -> bool:
        new = (places > top) & passed.isinf()
        passed[new] = step * lr
        return not bool(passed.isinf().any())

    start = torch.full((chains,), left, dtype=torch.float64)
    run_chains(well.force, start, lr=lr, beta=beta, steps=most, generator=or_default(generator), watch=watch)
    if bool(passed.isinf().any()):
        raise ValueError(f"{int(passed.isinf().sum())} of {chains} chains never left; check the energy")
    return mean("time to the top", passed.numpy(), confidence=confidence)


def escape_times(
    betas: Sequence[float] = (2.0, 4.0, 6.0, 8.0, 10.0),
    *,
    tilt: float = 0.0,
    lr: float = 0.02,
    chains: int = 300,
    generator: torch.Generator | None = None,
) -> Experiment:
    """Return the mean times to the top at several temperatures, predicted by quadrature and measured."""
    generator, well = or_default(generator), DoubleWell(tilt)
    points = tuple(
        Point(
            beta,
            passage_time(well, beta=beta, lr=lr),
            measured_time(well, beta=beta, lr=lr, chains=chains, generator=generator),
        )
        for beta in betas
    )
    x, found = [point.x for point in points], [point.measured for point in points]
    curve = Curve(
        "Time to leave a well",
        "inverse temperature",
        "mean time to the top",
        (
            Line("measured", x, [m.value for m in found], [m.low for m in found], [m.high for m in found], marks=True),
            Line("exact", x, [point.predicted for point in points], role="theory"),
            Line("Kramers", x, [kramers_time(well, beta=beta) for beta in x], role="reference"),
        ),
        alt=f"The mean time to the top of the barrier goes from {found[0].value:.2g} at inverse temperature {x[0]:g} "
        f"to {found[-1].value:.2g} at {x[-1]:g}; the exact times are {points[0].predicted:.2g} and "
        f"{points[-1].predicted:.2g}.",
        y_log=True,
    )
    return Experiment(points, curve)
