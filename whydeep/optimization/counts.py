"""Whole numbers among the hyper-parameters: a loop that counts up to 2.5 never meets its end."""

from __future__ import annotations

import operator


def check_counts(*, least: int = 1, optional: bool = False, **counts: object) -> None:
    """Raise `ValueError`, naming the first of these settings that is no whole number >= `least`.

    Whole numbers of any type do (`numpy.int64` has `__index__`, too), but not True: it counts nothing. 2.0 is refused
    with the rest of the floats, as by `range`. optional: None is taken, too.

    >>> check_counts(epochs=3)
    >>> check_counts(epochs=1.5)
    Traceback (most recent call last):
    ...
    ValueError: epochs=1.5; give a whole number, at least 1
    """
    for name, value in counts.items():
        if not (optional and value is None) and not _is_count(value, least):
            none = ", or None" if optional else ""
            raise ValueError(f"{name}={value}; give a whole number, at least {least}{none}")


def _is_count(value: object, least: int) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return operator.index(value) >= least  # type: ignore[arg-type]  # the type is what is asked
    except TypeError:
        return False
