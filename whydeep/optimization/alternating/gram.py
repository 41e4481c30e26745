"""What keeps the equations of a weight step solvable: a factorisation that does not fail, and the ridge by default."""

from __future__ import annotations

import torch
from torch import Tensor


def automatic_ridge(samples: int, *, classes: bool) -> float:
    """Return the ridge of `ADMM` by default, which weighs sums: 1e-5 a sample for classes, 1e-11 for regression.

    States lie between 0 and 1 or so, hence a Gram matrix grows like the number of samples, and the ridge with it.
    Classes need one that holds back directions of little variance; a function without noise is to be fitted in them,
    and with noise neither 1e-9 nor 1e-11 a sample holds anything back.

    >>> automatic_ridge(1000, classes=True), automatic_ridge(1000, classes=False)
    (0.01, 1e-08)
    """
    return samples / (1e5 if classes else 1e11)


def steady_factor(matrix: Tensor, shift: float) -> Tensor:
    """Return the Cholesky factor of matrix + (shift + delta) I, float64, for a positive semidefinite `matrix` (d, d).

    delta is 0 where that is positive definite to rounding, else the least of 10^k eps trace(matrix), k = 0, 1, ...,
    that makes it so. In a step written as an increment a larger shift only shortens the step, most where the matrix is
    flat: it is a proximal term, and the points at which the step is zero stay the same.
    Raises `ArithmeticError` when `matrix` is not finite. Cost: d^3/3 operations an attempt.

    >>> steady_factor(torch.ones(2, 2).double(), 0.0).isfinite().all()
    tensor(True)
    """
    if not bool(torch.isfinite(matrix).all()):
        raise ArithmeticError("a Gram matrix is not finite")
    # A matrix of zeros without a shift has no scale of its own, and its step is zero whatever delta is.
    size = float(matrix.diagonal().sum()) or 1.0
    delta = 0.0
    while True:
        shifted = matrix.clone()
        shifted.diagonal().add_(shift + delta)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if not int(failed):
            return lower
        delta = 10 * delta or torch.finfo(matrix.dtype).eps * size
