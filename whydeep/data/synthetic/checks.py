"""Checks and the standard scale that the synthetic sets share."""

from __future__ import annotations

from torch import Tensor


def at_least(least: int, **given: int) -> None:
    """Raise `ValueError` when one of the named numbers is below `least`."""
    for name, value in given.items():
        if value < least:
            raise ValueError(f"{name}={value}; give at least {least}")


def non_negative(**given: float) -> None:
    """Raise `ValueError` when one of the named numbers is negative or NaN."""
    for name, value in given.items():
        if not value >= 0:
            raise ValueError(f"{name}={value}; give a number >= 0")


def standard(values: Tensor) -> Tensor:
    """Return (values - mean) / sd over the samples (1/n), column by column; a constant column becomes zero."""
    centred = values - values.mean(0)
    sd = centred.square().mean(0).sqrt()
    return centred / sd.clamp(min=1e-30)
