"""The mean of draws in [0, 1] is at most this: a bound by betting, which pays little where the draws hardly differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .inversion import check_delta

LARGEST_BET = 0.99
"""Share of the capital that a bet may lose; below 1, so that a single draw of 1 does not end the game."""


def betting_bound(values: Any, delta: float) -> float:
    """Return an upper bound on the mean mu of independent draws in [0, 1]: P(mu > bound) <= delta.

    Who bets against "the mean is m" with a share l_i of the odds, chosen before draw i, has after t draws the capital
    prod_{i<=t} (1 + l_i (m - X_i)); if mu >= m it is a non-negative supermartingale from 1 for 0 <= l_i <= 1/(1-m), so
    it ever reaches 1/delta with probability at most delta (Ville 1939). The bound is the smallest m such that this m
    and all above it were reached, rounded up; the capital grows with m, so bisection finds it.
    l_i = min(sqrt(2 ln(1/delta) / (n s_i)), 0.99/(1-m)), s_i the variance of the draws before i, with one draw of
    variance 1/4 added. For draws that hardly differ it exceeds their mean by about ln(1/delta)/n; Hoeffding's bound
    by sqrt(ln(1/delta)/(2 n)).
    values: (n,) in the order in which they were drawn.

    Raises `ValueError` on no values, on a value outside [0, 1] and on a delta outside (0, 1). Cost: 60 n operations.
    Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", Section 3 (the
    capital) and the bets of their predictable plug-in (recalled, not checked against the paper; any bets are valid).

    >>> round(betting_bound([0.02] * 1000, 0.05), 4)  # 0.02 + about ln(20)/1000
    0.023
    """
    drawn = np.asarray(values, dtype=np.float64).reshape(-1)
    check_delta(delta)
    if not len(drawn):
        raise ValueError("there are no values; give one at least")
    if not bool(np.all((drawn >= 0) & (drawn <= 1))):
        raise ValueError("a value lies outside [0, 1]; scale them into it")
    bets = _bets(drawn, delta)
    # Sums of n logarithms are known to about n 1e-16; what is asked for is that much more than ln(1/delta).
    goal = math.log(1 / delta) + 1e-9 + len(drawn) * 1e-15

    def reached(m: float) -> bool:
        capital = np.cumsum(np.log1p(np.minimum(bets, LARGEST_BET / (1 - m)) * (m - drawn)))
        return bool(capital.max() >= goal)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle < 1 and reached(middle):
            high = middle
        else:
            low = middle
    return high


def _bets(drawn: np.ndarray, delta: float) -> np.ndarray:
    """Return l_1 ... l_n before they are cut, each from the draws before it."""
    count = np.arange(1, len(drawn) + 1)
    mean = (0.5 + np.cumsum(drawn)) / (count + 1)
    variance = (0.25 + np.cumsum((drawn - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    return np.asarray(np.sqrt(2 * math.log(1 / delta) / (len(drawn) * before)))
