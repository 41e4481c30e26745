"""Numbers in sentences, with the digits that their interval supports."""

from __future__ import annotations

import math

from whydeep.core.measurement import Measurement


def percent(measurement: Measurement, *, interval: bool = False) -> str:
    """Return a fraction as a percentage: whole, or with one decimal where the interval is narrower than one point.

    >>> percent(Measurement("accuracy", 0.9638, 0.9389, 0.9806), interval=True)
    '96 % (94 to 98)'
    """
    places = 1 if 0 < measurement.high - measurement.low < 0.01 else 0
    value = f"{100 * measurement.value:.{places}f} %"
    return f"{value} ({100 * measurement.low:.{places}f} to {100 * measurement.high:.{places}f})" if interval else value


def significant(measurement: Measurement, *, interval: bool = False) -> str:
    """Return a number rounded to the decimal place of its interval's half-width; two digits for an exact one.

    >>> significant(Measurement("radius", 0.10638, 0.1, 0.1125), interval=True)
    '0.106 (0.100 to 0.113)'
    """
    half = (measurement.high - measurement.low) / 2
    scale = half if 0 < half < math.inf else abs(measurement.value) / 10
    places = max(0, -math.floor(math.log10(scale))) if 0 < scale < math.inf else 2
    value = f"{measurement.value:.{places}f}"
    return f"{value} ({measurement.low:.{places}f} to {measurement.high:.{places}f})" if interval else value
