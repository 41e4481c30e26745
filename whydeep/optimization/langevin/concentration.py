"""The colder, the closer to the global minimum: the Gibbs density concentrates there as beta grows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.measurement import proportion
from whydeep.core.randomness import or_default

from .chains import Experiment, Point
from .double_well import DoubleWell, settled


def concentration(
    betas: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    *,
    tilt: float = 0.3,
    radius: float = 0.5,
    lr: float = 0.01,
    time: float = 30.0,
    chains: int = 5_000,
    generator: torch.Generator | None = None,
) -> Experiment:
    """Return the fraction of chains within `radius` of the global minimum, by quadrature and measured.

    As beta grows it tends to 1 (Hwang 1980), at any fixed radius, provided the chains had the time to reach it: with
    the default tilt the shallow well is left within time 4 at beta = 8.
    """
    generator, well = or_default(generator), DoubleWell(tilt)
    left, _, right = well.critical_points
    best = left if well.energy(left) <= well.energy(right) else right
    points = []
    for beta in betas:
        places = settled(well, beta=beta, lr=lr, time=time, chains=chains, generator=generator)
        near = int(((places - best).abs() < radius).sum())
        predicted = well.mass(best - radius, best + radius, beta=beta)
        points.append(Point(beta, predicted, proportion("fraction near the global minimum", near, chains)))
    x, found = [point.x for point in points], [point.measured for point in points]
    curve = Curve(
        "Concentration at the global minimum",
        "inverse temperature",
        f"fraction within {radius:g}",
        (
            Line("measured", x, [m.value for m in found], [m.low for m in found], [m.high for m in found], marks=True),
            Line("Gibbs", x, [point.predicted for point in points], role="theory"),
        ),
        alt=f"The fraction of chains within {radius:g} of the global minimum goes from {found[0].value:.2f} at "
        f"inverse temperature {x[0]:g} to {found[-1].value:.2f} at {x[-1]:g}.",
        x_log=True,
    )
    return Experiment(tuple(points), curve)
