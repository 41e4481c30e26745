"""Tables in Parquet files, read by pyarrow (an extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whydeep.core.data import Data
from whydeep.core.errors import DataError, InputError

from .files import existing_file
from .spec import Spec
from .table import check_names, from_columns


def parquet_file(spec: Spec, generator: torch.Generator) -> tuple[Data, None]:
    """Return the table in a Parquet file; a null is a missing value.

    Raises `InputError` when pyarrow is not installed, `DataError` on a damaged file, and as `table.from_columns` does.
    """
    path = existing_file(spec.location)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as fault:
        raise InputError("reading Parquet files needs pyarrow", "pip install whydeep[parquet]") from fault
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _, dropped = check_names(path, names, spec)
            table = file.read(columns=[name for name in names if name not in dropped])
    except (pyarrow.ArrowException, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise DataError(path, f"this is no whole Parquet file ({reason})", "write or fetch it again") from fault
    read = {name: _column(table.column(name)) for name in table.column_names}
    # Dropped columns stay in the list of names, so that the checks see the file as it is.
    columns = {name: read.get(name, np.empty(0)) for name in names}
    return from_columns(path, columns, spec, name=path.stem), None


def _column(column: Any) -> npt.NDArray[Any]:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_decimal(kind):
        column = column.cast(pyarrow.float64())
    if pyarrow.types.is_boolean(kind) and column.null_count:
        column = column.cast(pyarrow.int8())
    array: npt.NDArray[Any] = column.to_numpy()  # integers with nulls become floats with NaN
    return array if array.dtype.kind in "biuf" else np.array(column.to_pylist(), dtype=object)
