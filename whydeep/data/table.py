"""Tables: named columns, one of them the target, become samples of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whydeep.core.data import Data
from whydeep.core.errors import DataError, InputError

from .spec import Spec
from .targets import TASKS, targets

OPTIONS = ("target", "drop", "task", "standardise", "test_fraction")
"""What every table may be given: the target's column, columns to leave out, and how to treat the target."""

Columns = Mapping[str, npt.NDArray[Any]]
"""Column by name, all of one length: numbers (NaN where a value is missing), yes/no, or text."""


def from_columns(path: str | Path, columns: Columns, spec: Spec, *, name: str) -> Data:
    """Return x (n, d) float32, the columns but the target and the dropped ones in their order, and the target.

    Values are kept as they are, in single precision; yes/no becomes 1/0. Nothing is scaled or encoded.

    Raises `DataError` when there are no rows or no features, when features are not numbers, or are missing, NaN or
    inf, each time with the names and counts; and as `targets` does.
    """
    target, dropped = check_names(path, list(columns), spec)
    if len(columns[target]) == 0:
        raise DataError(path, "there are no rows", "give at least one")
    features = [column for column in columns if column != target and column not in dropped]
    if not features:
        raise DataError(path, f"there is no column beside the target {target}", "give at least one feature")
    refuse_text(path, [column for column in features if columns[column].dtype.kind not in "biuf"])
    x = np.empty((len(columns[target]), len(features)), dtype=np.float32)
    with np.errstate(over="ignore"):  # what overflows single precision is reported below
        for index, column in enumerate(features):
            x[:, index] = columns[column]
    _refuse_gaps(path, x, features)
    known = targets(f"{path}, column {target}", columns[target], task=spec.choice("task", TASKS, "auto"))
    return Data(torch.from_numpy(x), known.y, name, classes=known.classes, labels=known.labels)


def check_names(path: str | Path, names: Sequence[str], spec: Spec) -> tuple[str, set[str]]:
    """Return the target and the dropped columns; raises `DataError` on duplicate or missing names.

    `InputError` when no target is named.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(path, f"the columns {listed(twice)} stand more than once", "rename or remove them")
    if "target" not in spec.options:
        raise InputError(f"{path} needs the name of its target column", f"add ?target=NAME, one of {listed(names)}")
    target = spec.options["target"]
    dropped = set(filter(None, spec.text("drop", "").split(",")))
    for name in (target, *sorted(dropped)):
        if name not in names:
            raise DataError(path, f"there is no column {name!r}", f"name one of {listed(names)}")
    if target in dropped:
        raise InputError(f"the target {target} is also dropped", "take it out of drop=")
    return target, dropped


def refuse_text(path: str | Path, columns: Sequence[str]) -> None:
    """Raise `DataError` when there are columns whose values are not numbers."""
    if columns:
        raise DataError(
            path,
            f"the columns {listed(columns)} are not numbers",
            f"encode them as numbers, or leave them out by drop={','.join(columns[:3])}",
        )


def _refuse_gaps(path: str | Path, x: npt.NDArray[np.float32], features: Sequence[str]) -> None:
    counts = (~np.isfinite(x)).sum(0)
    if counts.any():
        gaps = [f"{feature} ({count})" for feature, count in zip(features, counts.tolist(), strict=True) if count]
        raise DataError(
            path,
            f"values are missing, NaN or inf in the columns {listed(gaps)}",
            "remove the rows, fill the gaps, or leave the columns out by drop=",
        )


def listed(names: Sequence[str], *, most: int = 20) -> str:
    """Return the names in one line, the first `most` of them.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
