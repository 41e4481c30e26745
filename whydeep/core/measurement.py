"""A measured number with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


class NotANumber(ValueError):
    """What was measured, `name`, came out as NaN."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} is NaN; report a failure or an outcome instead of a number")


@dataclass(frozen=True)
class Measurement:
    """A number that was measured, with the interval [low, high] that holds the truth with `confidence`.

    A number computed without error (a count, a norm) has low = high = value and confidence 1.
    unit: "" for pure numbers; "fraction", "nats", "seconds", ...
    method: how the interval came about, in a few words.
    evaluations: gradients, products or trainings that it took.

    Raises `ValueError` when the interval does not hold the value, and its kind `NotANumber` when something is NaN.

    >>> Measurement("test error", 0.02, 0.01, 0.04, unit="fraction").high
    0.04
    """

    name: str
    value: float
    low: float
    high: float
    confidence: float = 0.95
    unit: str = ""
    method: str = ""
    evaluations: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if any(math.isnan(number) for number in (self.value, self.low, self.high)):
            raise NotANumber(self.name)
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.name}: [{self.low}, {self.high}] does not hold {self.value}")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"{self.name}: confidence is {self.confidence}; give a number in (0, 1]")


def exact(name: str, value: float, *, unit: str = "", method: str = "computed", **rest: Any) -> Measurement:
    """Return a number that carries no sampling error."""
    return Measurement(name, value, value, value, confidence=1.0, unit=unit, method=method, **rest)


def unknown(name: str) -> Measurement:
    """Return what stands for a number that could not be computed: 0 in (-inf, inf), an interval that decides nothing.

    >>> unknown("loss").low
    -inf
    """
    return Measurement(name, 0.0, -math.inf, math.inf, confidence=1.0, method="could not be computed")


def proportion(name: str, hits: int, trials: int, *, confidence: float = 0.95, **rest: Any) -> Measurement:
    """Return hits/trials with the two-sided interval of Clopper and Pearson (1934), exact for independent trials.

    low is the p at which hits or more has probability (1 - confidence)/2, high the p at which hits or fewer has.

    >>> m = proportion("error", 0, 20)
    >>> m.low, round(m.high, 4)  # high: 1 - 0.025^(1/20)
    (0.0, 0.1684)
    """
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"{name}: {hits} hits of {trials} trials; give 0 <= hits <= trials, trials > 0")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(stats.beta.ppf(1 - tail, hits + 1, trials - hits))
    rest = {"unit": "fraction", "method": f"Clopper-Pearson, {hits} of {trials}"} | rest
    return Measurement(name, hits / trials, low, high, confidence=confidence, **rest)


def mean(name: str, values: Any, *, confidence: float = 0.95, **rest: Any) -> Measurement:
    """Return the mean of independent values with Student's interval: mean +- t s/sqrt(n), s with n - 1.

    One value gives the interval (-inf, inf): nothing is known of its spread.

    >>> m = mean("loss", [1.0, 2.0, 3.0])
    >>> round(m.value, 3), round(m.high - m.value, 3)  # t(0.975, 2) = 4.303, s = 1, n = 3
    (2.0, 2.484)
    """
    numbers = np.asarray(values, dtype=float).reshape(-1)
    if not len(numbers):
        raise ValueError(f"{name}: no values; give at least one")
    centre = float(numbers.mean())
    if len(numbers) < 2:
        half = math.inf
    else:
        half = float(
            stats.t.ppf((1 + confidence) / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
        )
    rest = {"method": f"Student, {len(numbers)} values"} | rest
    return Measurement(name, centre, centre - half, centre + half, confidence=confidence, **rest)
