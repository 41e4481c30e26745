"""The IDX format of MNIST: a big-endian header, then the entries; gzipped or not."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError

from .files import contents, existing_folder, looks_like_html
from .spec import Spec
from .targets import Part, with_targets

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The third byte of the file names the type of the entries."""


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """Return the array in an IDX file, read-only and big-endian as stored.

    The file is: two zero bytes, the type, the number of dimensions k, k sizes as big-endian 32-bit numbers, the
    entries with the last dimension fastest (LeCun, Cortes and Burges, description of the MNIST files).

    Raises `DataError` when the file is missing, empty, damaged, no IDX file, or of another length than its header
    says.
    """
    raw = contents(path)
    if raw[:2] != b"\x00\x00" or len(raw) < 4 or raw[2] not in TYPES or raw[3] == 0:
        what = "a web page (HTML)" if looks_like_html(raw[:100]) else f"no IDX file (it begins with {raw[:4].hex(' ')})"
        raise DataError(path, f"the content is {what}", "name the original file")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(path, f"the header of {raw[3]} dimensions is cut off", "fetch the file again")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    kind = np.dtype(TYPES[raw[2]])
    wanted = math.prod(shape) * kind.itemsize
    if len(raw) - start != wanted:
        sizes = " x ".join(map(str, shape))
        raise DataError(
            path,
            f"the header promises {sizes} entries ({wanted:,} bytes), the file holds {len(raw) - start:,} bytes",
            "fetch the file again",
        )
    return np.frombuffer(raw, dtype=kind, offset=start).reshape(shape)


def samples(path: str | Path, stored: npt.NDArray[Any]) -> tuple[Tensor, tuple[float, float] | None]:
    """Return the samples as float32, and their bounds where known.

    Three dimensions are images (n, 1, height, width), more are kept as they are. Bytes of three dimensions or more
    are pixels: divided by 255, bounds (0, 1). All other entries keep their values, in single precision.

    Raises `DataError` when there are no samples, fewer than two dimensions, or entries that are not finite.
    """
    if stored.ndim < 2:
        raise DataError(path, "the samples have one dimension", "name the file of images, not that of labels")
    if len(stored) == 0:
        raise DataError(path, "there are no samples", "give at least one")
    shape = (len(stored), 1, *stored.shape[1:]) if stored.ndim == 3 else stored.shape
    x = torch.empty(shape, dtype=torch.float32)
    view = x.numpy().reshape(stored.shape)
    if stored.dtype == np.uint8 and stored.ndim > 2:
        np.divide(stored, np.float32(255), out=view)  # the only copy: 60,000 images are 188 MB
        return x, (0.0, 1.0)
    with np.errstate(over="ignore"):  # what overflows single precision is reported below
        np.copyto(view, stored, casting="unsafe")
    bad = int((~np.isfinite(view)).sum())
    if bad:
        raise DataError(path, f"{bad} entries are NaN, inf or beyond single precision", "remove or repair them")
    return x, None


def mnist(spec: Spec, generator: torch.Generator) -> tuple[Data, Data]:
    """Return MNIST with its own test files; other sets with its file names (Fashion-MNIST) are read by `idx`."""
    train, test = _folder(spec, name="MNIST")
    if test is None:
        raise DataError(spec.location, "the test files t10k-images and t10k-labels are missing", "use idx:DIR instead")
    return train, test


def idx(spec: Spec, generator: torch.Generator) -> tuple[Data, Data | None]:
    """Return images and labels in a folder: files named *train-images* and *train-labels*, and where they exist
    *t10k-images* and *t10k-labels* (or *test-images*, *test-labels*) as the test part.

    Options images and labels name two other files of the folder instead.
    """
    return _folder(spec, name=Path(spec.location).expanduser().resolve().name)


def _folder(spec: Spec, *, name: str) -> tuple[Data, Data | None]:
    folder = existing_folder(spec.location)
    parts: list[Part] = []
    for images, labels in _pairs(folder, spec):
        x, y = read_idx(images), read_idx(labels)
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise DataError(labels, f"the labels are {y.ndim}-dimensional {y.dtype.name}", "give one integer a sample")
        if len(x) != len(y):
            raise DataError(images, f"{len(x)} images but {len(y)} labels", f"find the labels that belong to {images}")
        parts.append((*samples(images, x), y.astype(np.int64)))
    return with_targets(folder, parts, name=name, task="classes")


def _pairs(folder: Path, spec: Spec) -> list[tuple[Path, Path]]:
    """Return the files of images and labels: of the training part and, where it exists, of the test part."""
    named = [option for option in ("images", "labels") if option in spec.options]
    if len(named) == 1:
        raise DataError(folder, f"only the option {named[0]} is given", "name both files: images=...&labels=...")
    if named:
        return [(folder / spec.options["images"], folder / spec.options["labels"])]
    train, test = _pair(folder, ("train",)), _pair(folder, ("t10k", "test"))
    if train is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise DataError(
            folder,
            f"there are no files train-images and train-labels (there is {there})",
            "name the folder of the IDX files, or the files by images=...&labels=...",
        )
    return [train] if test is None else [train, test]


def _pair(folder: Path, parts: tuple[str, ...]) -> tuple[Path, Path] | None:
    """Return the files of images and labels of one part; None when there is neither."""
    images, labels = (_single(folder, [f"{part}-{kind}" for part in parts]) for kind in ("images", "labels"))
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        lacking = "images" if images is None else "labels"
        raise DataError(folder, f"the file {parts[0]}-{lacking} is missing", "put it beside the other")
    return images, labels


def _single(folder: Path, stems: list[str]) -> Path | None:
    fitting = [path for path in sorted(folder.iterdir()) if any(stem in path.name for stem in stems)]
    if len(fitting) > 1:
        raise DataError(folder, f"{' and '.join(path.name for path in fitting)} both fit", "keep one of them")
    return fitting[0] if fitting else None
