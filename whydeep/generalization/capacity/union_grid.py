"""Numbers that are looked up after training are rounded to a grid fixed before, and the union bound over it is paid.

Grid point j is ratio^j for every integer j, and gets the probability 2/3 / ((|j|+1)(|j|+2)): these sum to 1, since
2/3 (1/2 + 2 sum_{j>=1} (1/(j+1) - 1/(j+2))) = 2/3 (1/2 + 1).
"""

from __future__ import annotations

import math


def step_price(step: int) -> float:
    """Return -ln of the probability 2/3 / ((|j|+1)(|j|+2)) of grid step j: what looking it up costs, in nats."""
    return math.log(1.5 * (abs(step) + 1) * (abs(step) + 2))


def rounded_up(value: float, ratio: float) -> tuple[float, float]:
    """Return `value` rounded up to a power of `ratio` > 1, and its price in nats; zero is free: it needs no grid.

    >>> rounded_up(5.0, 2.0)[0]
    8.0
    """
    if value == 0:
        return 0.0, 0.0
    step = math.ceil(math.log(value) / math.log(ratio) - 1e-12)
    # Rounding of the logarithm may leave the power a little below a value that lies on the grid.
    return max(value, ratio**step), step_price(step)
