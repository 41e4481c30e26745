"""Data sets of OpenML, downloaded by scikit-learn on the user's machine and kept in its cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import fetch_openml

from whydeep.core.data import Data
from whydeep.core.errors import DataError, InputError

from .spec import Spec
from .table import check_names, from_columns


def openml(spec: Spec, generator: torch.Generator) -> tuple[Data, None]:
    """Return the data set of that name; options: those of every table, and version (a number, else the active one).

    The target is the one that OpenML names by default.

    Raises `InputError` when pandas is not installed, `DataError` when there is no such set, no network, or several
    default targets, and as `table.from_columns` does.
    """
    version = spec.integer("version", 1) if "version" in spec.options else "active"
    where = f"openml:{spec.location}"
    try:
        fetched = fetch_openml(name=spec.location, version=version, as_frame=True, parser="auto")
    except ImportError as fault:
        raise InputError("reading OpenML data sets needs pandas", "pip install pandas") from fault
    except OSError as fault:  # URLError, HTTPError and timeouts are of this kind
        raise DataError(where, f"the download failed ({fault})", "check the network, or fetch it as CSV") from fault
    except ValueError as fault:
        raise DataError(where, str(fault).splitlines()[0], "check its name and version on openml.org") from fault
    return from_frame(fetched.frame, list(fetched.target_names), spec), None


def from_frame(frame: Any, target_names: list[str], spec: Spec) -> Data:
    """Return the data in a pandas frame with all columns; `target_names` are OpenML's default targets."""
    where = f"openml:{spec.location}"
    if "target" not in spec.options:
        if len(target_names) != 1:
            known = ", ".join(target_names) or "none"
            raise DataError(where, f"there is no single default target (but {known})", "name one by ?target=NAME")
        spec = Spec(spec.kind, spec.location, {**spec.options, "target": target_names[0]})
    check_names(where, [str(name) for name in frame.columns], spec)
    columns = {str(name): _column(frame[name]) for name in frame.columns}
    return from_columns(where, columns, spec, name=spec.location)


def _column(series: Any) -> npt.NDArray[Any]:
    """Return one column: numbers, with NaN for gaps, or text, with None for gaps."""
    kind = getattr(series.dtype, "kind", "O")
    if kind in "biuf":
        gaps = series.isna().to_numpy()
        if gaps.any():
            return np.asarray(series.astype("float64").to_numpy(na_value=np.nan), dtype=np.float64)
        return np.asarray(series.to_numpy().astype({"b": bool, "f": float}.get(kind, np.int64)))
    return np.array([None if gap else str(v) for v, gap in zip(series, series.isna(), strict=True)], dtype=object)
