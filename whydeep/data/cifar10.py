"""CIFAR-10 in its binary version: records of one label byte and 3,072 pixel bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from whydeep.core.data import Data
from whydeep.core.errors import DataError

from .files import contents, existing_file, existing_folder
from .spec import Spec

RECORD = 1 + 3 * 32 * 32
TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"


def cifar10(spec: Spec, generator: torch.Generator) -> tuple[Data, Data]:
    """Return the training and test images: x (n, 3, 32, 32) in [0, 1], red, green and blue (Krizhevsky 2009).

    The folder holds data_batch_1.bin to data_batch_5.bin, test_batch.bin and, for the names of the classes,
    batches.meta.txt. The Python version of the set is refused: reading a pickle executes what it says.

    Raises `DataError` when a file is missing, is no whole number of records of 3,073 bytes, or holds a label above 9.
    """
    folder = existing_folder(spec.location)
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    missing = [name for name in (*TRAINING, TEST) if not (folder / name).is_file()]
    if missing:
        pickled = (folder / "data_batch_1").is_file()
        reason = "this is the Python version (pickles)" if pickled else f"missing: {', '.join(missing)}"
        raise DataError(folder, reason, "fetch the binary version, cifar-10-binary.tar.gz, and unpack it")
    labels = _labels(folder / "batches.meta.txt")
    return _part([folder / name for name in TRAINING], labels), _part([folder / TEST], labels)


def _labels(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(number) for number in range(10))
    names = tuple(existing_file(path).read_text(encoding="utf-8").split())
    if len(names) != 10:
        raise DataError(path, f"{len(names)} names of classes", "give 10, or remove the file")
    return names


def _part(paths: list[Path], labels: tuple[str, ...]) -> Data:
    records = []
    for path in paths:
        raw = contents(path)
        if len(raw) % RECORD:
            raise DataError(path, f"{len(raw):,} bytes are no whole number of {RECORD}-byte records", "fetch it again")
        batch = np.frombuffer(raw, dtype=np.uint8).reshape(-1, RECORD)
        if batch[:, 0].max() > 9:
            raise DataError(path, f"a label is {batch[:, 0].max()}", "fetch the binary version of CIFAR-10 again")
        records.append(batch)
    y = torch.from_numpy(np.concatenate([batch[:, 0] for batch in records]).astype(np.int64))
    if len(torch.unique(y)) < 2:
        raise DataError(paths[0].parent, f"all samples are of one class ({labels[int(y[0])]})", "fetch the set again")
    x = torch.empty(len(y), 3, 32, 32)
    view, first = x.numpy().reshape(len(y), -1), 0
    for batch in records:
        np.divide(batch[:, 1:], np.float32(255), out=view[first : first + len(batch)])
        first += len(batch)
    return Data(x, y, "CIFAR-10", classes=10, bounds=(0.0, 1.0), labels=labels)
