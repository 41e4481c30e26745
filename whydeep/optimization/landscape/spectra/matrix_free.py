"""Any way to multiply by a symmetric matrix, as one function of blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from whydeep.core.errors import InputError

from .block_lanczos import BlockProduct


def block_product(operator: Any, size: int) -> BlockProduct:
    """Return `operator` as a function of rows (b, p) -> (b, p).

    It may be a matrix or an object with `@` (curvlinops, SciPy's LinearOperator), which is given the columns (p, b);
    or a function of one vector (p,) -> (p,), which is called row by row. NumPy arrays are converted.

    Raises `TypeError` for anything else, and `InputError` where its shape, or that of a product, does not fit.

    >>> twice = block_product(lambda v: 2 * v, 3)
    >>> twice(torch.ones(1, 3))
    tensor([[2., 2., 2.]])
    """
    shape = getattr(operator, "shape", None)
    if shape is not None and hasattr(operator, "__matmul__") and not callable(shape):
        if tuple(shape) != (size, size):
            raise InputError(f"the operator has shape {tuple(shape)}", f"give one of shape ({size}, {size})")
        wants_arrays = type(operator).__module__.split(".")[0] in ("scipy", "numpy")
        return lambda rows: _like(operator @ (rows.T.cpu().numpy() if wants_arrays else rows.T), rows.T).T
    if not callable(operator):
        raise TypeError(f"operator is {type(operator).__name__}; give a function v -> A v, or an object with @")

    def product(rows: Tensor) -> Tensor:
        return torch.stack([_like(operator(row), row) for row in rows])

    return product


def _like(image: Any, given: Tensor) -> Tensor:
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
    if not isinstance(image, Tensor) or image.shape != given.shape:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"the operator returned {got} for {tuple(given.shape)}", "let it return one vector a vector")
    return image.detach().to(given)
