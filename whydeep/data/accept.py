"""Takes data in the forms that users have: `Data`, arrays, tensors, loaders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import DataError


def as_data(source: Any, *, name: str = "data", like: Data | None = None) -> Data:
    """Return `source` as `Data`: Data itself, a pair (x, y) of tensors or arrays, or an iterable of batches (x, y).

    A DataLoader is read once, in its own order, and the global generator is left as it was. Whole-number targets are
    classes 0..max, or those of `like` (the training data, when the test data are converted); others are regression
    targets (n, k).
    float64 inputs become float32, the type of PyTorch's layers; raises `DataError` on anything that does not fit.

    >>> as_data(([[0.0], [1.0]], [0, 1])).classes
    2
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, list | tuple) and len(source) == 2:
        x, y = _tensor(source[0], name), _tensor(source[1], name)
    elif isinstance(source, Iterable):
        with torch.random.fork_rng(devices=[]):  # a loader draws its order and its workers' seed from the global one
            pairs = [(_tensor(x, name), _tensor(y, name)) for x, y in (_pair(batch, name) for batch in source)]
        if not pairs:
            raise DataError(name, "the loader gave no batch", "give one with samples")
        x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
    else:
        raise DataError(name, f"data of type {type(source).__name__}", "give Data, a pair (x, y) or a DataLoader")
    if not len(x):
        raise DataError(name, "there are no samples", "give at least one")
    x = x.float() if x.dtype == torch.float64 else x
    if y.is_floating_point():
        return Data(x, y.float().reshape(len(y), -1), name)
    y = y.long().reshape(len(y), -1).squeeze(1)
    return Data(x, y, name, classes=like.classes if like is not None else int(y.max()) + 1)


def _pair(batch: Any, name: str) -> tuple[Any, Any]:
    try:
        x, y = batch
    except (TypeError, ValueError) as fault:
        raise DataError(name, f"a batch of type {type(batch).__name__} is no pair (x, y)", "give pairs") from fault
    return x, y


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values).copy())
    except (TypeError, ValueError) as fault:
        raise DataError(name, f"not an array of numbers ({fault})", "give tensors or numeric arrays") from fault
