"""Targets: the classes or numbers that a column or an array of labels stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError

TASKS = ("auto", "classes", "regression")
FEW = 20
"""Integer targets with at most so many distinct values are taken for classes, unless the task is named."""


@dataclass(frozen=True)
class Targets:
    """Targets `y` as `Data` wants them: (n,) int64 with `classes` and their `labels`, or (n, k) float32."""

    y: Tensor
    classes: int | None = None
    labels: tuple[str, ...] = ()


def targets(path: str | Path, values: npt.NDArray[Any], *, task: str = "auto") -> Targets:
    """Return the targets in `values`: (n,) text, numbers or yes/no, or (n, k) numbers for regression.

    task "auto": text, yes/no and integers of at most 20 distinct values are classes, all else is regression.
    Classes are numbered from 0 in the order of their names, or of their values when all names are integers.

    Raises `DataError` on missing, NaN or infinite values, on one class only, on text for regression, on fractions
    for classes, and on integers of several columns, which may be one-hot classes.

    >>> targets("pets", np.array(["dog", "cat", "dog"])).y
    tensor([1, 0, 1])
    """
    if values.dtype.kind == "O":
        missing = sum(value is None or value == "" or value != value for value in values)
    elif values.dtype.kind in "US":
        missing = int((values == values.dtype.type("")).sum())
    elif values.dtype.kind in "biuf":
        missing = int((~np.isfinite(values)).sum())
    else:
        raise DataError(path, f"the targets have type {values.dtype}", "give text or real numbers")
    if missing:
        raise DataError(path, f"{missing} targets are missing, NaN or inf", "remove or repair these rows")
    if _are_classes(path, values, task):
        return _numbered(path, values)
    with np.errstate(over="ignore"):  # reported in the next line
        numbers = values.astype(np.float32).reshape(len(values), -1)
    if not np.isfinite(numbers).all():
        raise DataError(path, "some targets exceed single precision", "rescale the target")
    return Targets(torch.from_numpy(np.ascontiguousarray(numbers)))


def _are_classes(path: str | Path, values: npt.NDArray[Any], task: str) -> bool:
    kind = values.dtype.kind
    if values.ndim > 1:
        if kind != "f" or task == "classes":
            raise DataError(
                path,
                f"the targets are {values.shape[1]} columns of {values.dtype}",
                "give one class number a sample, or floats for regression",
            )
        return False
    if task == "regression":
        if kind in "OUS":
            raise DataError(path, "the targets are text, which regression cannot use", "leave out task=regression")
        return False
    if task == "classes":
        if kind == "f" and not np.array_equal(values, np.round(values)):
            raise DataError(path, "the targets have fractions, so they number no classes", "use task=regression")
        return True
    return kind in "OUSb" or (kind in "iu" and len(np.unique(values)) <= FEW)


def _numbered(path: str | Path, values: npt.NDArray[Any]) -> Targets:
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    if values.dtype.kind in "biu":
        found, y = np.unique(values, return_inverse=True)
        names = [str(value) for value in found.tolist()]
    else:
        text = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
        names = sorted(set(text))
        if all(name.lstrip("-").isdecimal() for name in names):
            names.sort(key=int)
        number = {name: index for index, name in enumerate(names)}
        y = np.array([number[value] for value in text])
    if len(names) < 2:
        raise DataError(path, f"all samples are of one class ({', '.join(names)})", "give at least two classes")
    return Targets(torch.from_numpy(y.astype(np.int64)), len(names), tuple(names))


Part = tuple[Tensor, tuple[float, float] | None, npt.NDArray[Any]]
"""Samples of one part, their bounds, and what they are labelled with."""


def with_targets(path: str | Path, parts: Sequence[Part], *, name: str, task: str) -> tuple[Data, Data | None]:
    """Return the training part and, where there are two, the test part, with one numbering of the classes.

    One numbering, because a class may be missing in one of the parts. Raises `DataError` as `targets` does, and when
    counts of samples and targets, or the shapes of samples in the two parts, differ.
    """
    shapes = [" x ".join(map(str, x.shape[1:])) for x, _, _ in parts]
    if len(set(shapes)) > 1:
        raise DataError(path, f"training samples are {shapes[0]}, test samples {shapes[1]}", "give both the same shape")
    for x, _, values in parts:
        if len(x) != len(values):
            raise DataError(path, f"{len(x)} samples but {len(values)} targets", "give one target a sample")
    known = targets(path, np.concatenate([values for _, _, values in parts]), task=task)
    made: list[Data] = []
    first = 0
    for x, bounds, values in parts:
        y = known.y[first : first + len(values)]
        made.append(Data(x, y, name, classes=known.classes, bounds=bounds, labels=known.labels))
        first += len(values)
    return made[0], made[1] if len(made) > 1 else None
