"""Arrays in NumPy's .npz files, without pickles."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError

from .files import existing_file
from .spec import Spec
from .table import listed
from .targets import TASKS, Part, with_targets

OPTIONS = ("x", "y", "x_test", "y_test", "pixels", "channels", "task", "standardise", "test_fraction")


def npz_file(spec: Spec, generator: torch.Generator) -> tuple[Data, Data | None]:
    """Return the samples and targets in a .npz file.

    Options: x and y (the names of the arrays; "x" and "y"), x_test and y_test (a test part, both or neither), task,
    pixels (auto, yes or no), channels (first, or last for images (n, height, width, channels)).
    Pixels "auto" are bytes of three dimensions or more. Bytes that are pixels are divided by 255, floats that are
    must lie in [0, 1]; both have bounds (0, 1). Images (n, height, width) get a channel. All other arrays keep their
    values, in single precision.

    Raises `DataError` on a file that is no .npz or is damaged, on a missing array (those there are listed), on object
    arrays, whose pickles could execute anything, on counts or shapes that differ, on values that are not finite.
    """
    path = existing_file(spec.location)
    if ("x_test" in spec.options) != ("y_test" in spec.options):
        raise DataError(path, "only one of x_test and y_test is named", "name both or neither")
    wanted = [("x", "y")] + ([("x_test", "y_test")] if "x_test" in spec.options else [])
    arrays = _arrays(path, [spec.text(option, option) for pair in wanted for option in pair])
    parts: list[Part] = []
    for x, y in zip(arrays[::2], arrays[1::2], strict=True):
        if y.ndim not in (1, 2):
            raise DataError(path, f"the targets have shape {y.shape}", "give (n,) or (n, k)")
        parts.append((*_samples(path, x, spec), y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y))
    return with_targets(path, parts, name=path.stem, task=spec.choice("task", TASKS, "auto"))


def _arrays(path: Path, names: list[str]) -> list[npt.NDArray[Any]]:
    try:
        # np.load leaves a file open that it opened itself and found damaged.
        with path.open("rb") as file:
            opened = np.load(file, allow_pickle=False)
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise DataError(path, "the file holds one array without a name", "save samples and targets by np.savez")
            with opened:
                missing = [name for name in names if name not in opened.files]
                if missing:
                    raise DataError(path, f"there is no array {missing[0]!r}", f"name one of {listed(opened.files)}")
                return [_plain(path, opened, name) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as fault:
        raise DataError(path, f"the file is damaged ({fault})", "write or fetch it again") from fault
    except DataError:
        raise
    except ValueError as fault:
        raise DataError(path, "this is no .npz file", "write it by np.savez") from fault


def _plain(path: Path, opened: Any, name: str) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = opened[name]
    except ValueError as fault:
        if "Object arrays" not in str(fault):
            raise DataError(path, f"the array {name} is damaged ({fault})", "write or fetch it again") from fault
        raise DataError(
            path, f"the array {name} holds Python objects, which only a pickle can store", "save numbers or text"
        ) from fault
    return array


def _samples(path: Path, stored: npt.NDArray[Any], spec: Spec) -> tuple[Tensor, tuple[float, float] | None]:
    if stored.dtype.kind not in "biuf":
        raise DataError(path, f"the samples have type {stored.dtype}", "give real numbers")
    if stored.ndim < 2 or stored.size == 0:
        raise DataError(path, f"the samples have shape {stored.shape}", "give (n, ...) with at least one entry each")
    pixels = spec.choice("pixels", ("auto", "yes", "no"), "auto")
    taken = pixels == "yes" or (pixels == "auto" and stored.dtype == np.uint8 and stored.ndim > 2)
    with np.errstate(over="ignore"):
        x = torch.from_numpy(np.array(stored, dtype=np.float32, order="C"))
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise DataError(path, f"{bad} of {len(x)} samples hold NaN, inf or too large numbers", "remove or repair them")
    if taken and stored.dtype == np.uint8:
        x.div_(255)
    if taken and (float(x.min()) < 0 or float(x.max()) > 1):
        raise DataError(
            path, f"pixels run from {float(x.min()):g} to {float(x.max()):g}", "give bytes, or floats in [0, 1]"
        )
    if spec.choice("channels", ("first", "last"), "first") == "last":
        if x.ndim != 4:
            raise DataError(path, f"channels=last, but the samples have shape {stored.shape}", "give four dimensions")
        x = x.permute(0, 3, 1, 2).contiguous()
    return (x.unsqueeze(1) if x.ndim == 3 and taken else x), (0.0, 1.0) if taken else None
