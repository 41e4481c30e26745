"""Tables in text: comma-separated values with a row of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whydeep.core.data import Data
from whydeep.core.errors import DataError

from .files import existing_file, looks_like_html
from .spec import Spec
from .table import check_names, from_columns

ROWS = 10_000
"""Rows that are held as text at a time: numbers take a tenth of the memory of their text."""

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}


def csv_file(spec: Spec, generator: torch.Generator) -> tuple[Data, None]:
    """Return the table in a CSV file (UTF-8, first row the names of the columns, "..." around text with commas).

    An empty cell is a missing value. A target whose cells are all integers is one of integers.
    Options: those of every table, and delimiter (comma, semicolon or tab).

    Raises `DataError` on a row of another length than the first (with its line), on an empty line before the end,
    on bytes that are not UTF-8, on a first row of numbers, and as `table.from_columns` does.
    """
    path = existing_file(spec.location)
    delimiter = DELIMITERS[spec.choice("delimiter", tuple(DELIMITERS), "comma")]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = _columns(path, reader, spec)
    except UnicodeDecodeError as fault:
        raise DataError(path, f"the text is not UTF-8 ({fault.reason})", "save it as UTF-8") from fault
    except csv.Error as fault:
        raise DataError(path, f"line {reader.line_num} is no CSV ({fault})", "repair the line") from fault
    return from_columns(path, columns, spec, name=path.stem), None


def _columns(path: Path, reader: Any, spec: Spec) -> dict[str, npt.NDArray[Any]]:
    names = [name.strip() for name in next(reader, [])]
    if names and looks_like_html(names[0].encode()):
        raise DataError(path, "the content is a web page (HTML)", "fetch the file again")
    if names and all(_number(name) is not None for name in names):
        raise DataError(path, "the first row holds numbers, not names of columns", "put a row of names above it")
    if len(names) < 2:
        raise DataError(path, f"the first row has {len(names)} column", "name another delimiter=: semicolon or tab")
    target, dropped = check_names(path, names, spec)
    rows = _rows(path, reader, len(names))
    blocks: list[list[npt.NDArray[Any]]] = [[] for _ in names]
    text: list[str] = []
    while block := list(islice(rows, ROWS)):
        for index, (name, cells) in enumerate(zip(names, zip(*block, strict=True), strict=True)):
            if name == target:
                text += [cell.strip() for cell in cells]
            elif name not in dropped:
                blocks[index].append(_numbers(cells))
    read = {target: _typed(text)} | {
        name: np.concatenate(parts) if parts else np.empty(0)
        for name, parts in zip(names, blocks, strict=True)
        if name != target
    }
    return {name: read[name] for name in names}


def _rows(path: Path, reader: Any, width: int) -> Iterator[Sequence[str]]:
    empty = 0
    for row in reader:
        if not row:
            empty = empty or reader.line_num
        elif empty:
            raise DataError(path, f"line {empty} is empty", "remove it")
        elif len(row) != width:
            raise DataError(
                path, f"line {reader.line_num} has {len(row)} cells, the first row {width}", "repair the line"
            )
        else:
            yield row


def _numbers(cells: Sequence[str]) -> npt.NDArray[Any]:
    """Return the cells as numbers, NaN where empty; as text when one is no number."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        numbers = [_number(cell) for cell in cells]
        if None in numbers:
            return np.array(["text"] * len(cells))  # only that it is text matters for a feature
        return np.array(numbers, dtype=np.float64)


def _number(cell: str) -> float | None:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _typed(cells: list[str]) -> npt.NDArray[Any]:
    """Return the target as integers, else as numbers, else as text."""
    integer = re.compile(r"[+-]?\d{1,18}")  # 18 digits fit 64 bits
    if all(integer.fullmatch(cell) for cell in cells):
        return np.array(cells, dtype=object).astype(np.int64)
    if any(_number(cell) is None for cell in cells):
        return np.array(cells, dtype=object)
    return np.array([_number(cell) for cell in cells], dtype=np.float64)
