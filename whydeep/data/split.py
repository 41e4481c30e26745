"""Splitting into a training and a test part, and standardising by what the training part knows."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError, InputError


def split(data: Data, *, test_fraction: float, generator: torch.Generator) -> tuple[Data, Data]:
    """Return a training and a test part, of ceil(test_fraction n) samples, each in a random order.

    With classes the test part is stratified: class c of n_c samples gives test_fraction n_c of them, rounded down
    or up (largest remainders up) so that the sum is right, and keeps one for training where that is possible.

    Raises `InputError` when the fraction is not between 0 and 1 or leaves a part empty.
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction={test_fraction:g}", "give a fraction between 0 and 1, as 0.2")
    # Rounding noise must not add a sample: 0.2 * 1,805 is 361.00000000000006 in doubles.
    size = math.ceil(test_fraction * len(data) - 1e-9 * len(data))
    if not 0 < size < len(data):
        raise InputError(
            f"{data.name} has {len(data)} samples, too few to hold back {test_fraction:g} of them for the test",
            "give more samples or another test_fraction",
        )
    order = torch.randperm(len(data), generator=generator)
    if data.classes is None:
        return data.take(order[size:]), data.take(order[:size])
    y = data.targets[order]
    quotas = _quotas(torch.bincount(y, minlength=data.classes), size)
    held = torch.zeros(len(data), dtype=torch.bool)
    for label, quota in enumerate(quotas):
        held[torch.nonzero(y == label).flatten()[:quota]] = True
    return data.take(order[~held]), data.take(order[held])


def _quotas(counts: Tensor, size: int) -> list[int]:
    """Return how many of each class go into a test part of `size`: proportional, by largest remainders."""
    total = int(counts.sum())
    shares = [size * int(count) for count in counts]  # in units of 1 / total, so that remainders are exact
    quotas = [share // total for share in shares]
    spare = [int(count) - quota for count, quota in zip(counts, quotas, strict=True)]
    # A class's last sample goes to the test only when every other class is down to one, too.
    by_remainder = sorted(range(len(quotas)), key=lambda c: (spare[c] < 2, -(shares[c] % total), c))
    for label in by_remainder[: size - sum(quotas)]:
        quotas[label] += 1
    return quotas


def standardise(train: Data, test: Data, *, targets: bool = False) -> tuple[Data, Data]:
    """Return both parts with (x - mean) / sd, entry by entry, by the mean and sd (1/n) of the training part.

    An entry that is constant in the training part is only centred. The bounds are dropped: they no longer hold.
    targets: the same for the targets of a regression. The inputs are left as they were.

    Raises `DataError` when a part is read lazily.
    """
    if not isinstance(train.x, Tensor) or not isinstance(test.x, Tensor):
        raise DataError(train.name, "the samples are read lazily", "take them in memory before standardising")
    first, second = _by_the_first(train.x, test.x)
    parts = replace(train, x=first, bounds=None), replace(test, x=second, bounds=None)
    if not targets or train.classes is not None:
        return parts
    y_first, y_second = _by_the_first(train.targets, test.targets)
    return replace(parts[0], y=y_first), replace(parts[1], y=y_second)


def _by_the_first(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    # Double precision: the mean of a column of large numbers (years, prices) loses digits in single.
    known = first.double()
    mean, sd = known.mean(0), known.std(0, correction=0)
    # A constant column has an sd of rounding size only, about eps times its mean.
    constant = sd <= 1e-12 * mean.abs().clamp(min=1e-300)
    sd = torch.where(constant, torch.ones_like(sd), sd)
    return tuple(((part.double() - mean) / sd).to(part.dtype) for part in (first, second))  # type: ignore[return-value]
