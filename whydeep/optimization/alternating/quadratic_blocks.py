"""The two blocks of a split network in which it is quadratic: weights between given states, a state between two layers.

Their d x d matrices are sums over samples or over units plus a shift. In single precision such a sum is wrong by about
`eps` times its trace, and where the shift is smaller than that, as it is for saturated states, no factorisation repairs
it. So the sums are formed in float64 unless the shift is `eps` times the trace several times over and d is at least
`WIDE`. Then the matrix in the step is within a sixteenth of the exact one, in every direction, and the step still
lowers its quadratic. That is measured, not proved: the roundings of a wide matrix have many signs and add up to little;
at four times, the worst states found (columns that are equal up to 1e-3) err by a thirty-seventh of the matrix with its
shift. In narrow ones they need not: ten equal columns err by as much as the whole matrix, even at sixteen times.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024
"""Samples that are worked on at a time: enough for a fast product, few enough for the other passes to stay in cache."""

WIDE = 64
"""Matrices of fewer columns are formed in float64 in any case; they cost next to nothing."""

_COLUMNS = 256


def blocks(n: int, size: int = ROWS) -> list[slice]:
    """Return the slices of `size` samples that make up n; the last may be shorter."""
    return [slice(first, min(n, first + size)) for first in range(0, n, size)]


def enough(dtype: torch.dtype, size: int, *, trace: float, shift: float, times: int) -> bool:
    """Return whether a sum of this size and trace may be formed in `dtype` when `shift` is added to its diagonal.

    times: how often eps times the trace the shift has to be; 4 for the sum itself, 16 where it is factorised in `dtype`
    as well.
    """
    if dtype is not torch.float32:
        return dtype is torch.float64
    return size >= WIDE and shift >= times * torch.finfo(dtype).eps * trace


def gram(states: Tensor, *, bias: bool, shift: float = 0.0) -> Tensor:
    """Return A'A in float64 for A = [V, 1], (inputs + 1, inputs + 1); without a bias, V'V.

    states: V (n, inputs). shift: what will be added to the diagonal; it decides in which type the products are taken.
    Only the lower block columns are multiplied, the rest is their mirror image.
    Cost: n inputs^2 operations and one block of rows.
    """
    n, inputs = states.shape
    size = inputs + bias
    squares = float(torch.linalg.vector_norm(states, dim=1).double().square().sum())
    fits = enough(states.dtype, size, trace=squares + bias * n, shift=shift, times=4)
    dtype = states.dtype if fits else torch.float64
    total = torch.zeros(size, size, dtype=torch.float64, device=states.device)
    # Each block's product is added to a matrix of doubles: fewer, larger blocks where it is not one itself.
    for rows in blocks(n, ROWS if dtype is torch.float64 else 4 * ROWS):
        block = states[rows].to(dtype)
        for first in range(0, inputs, _COLUMNS):
            last = min(inputs, first + _COLUMNS)
            left, right = block[:, first:].T, block[:, first:last]
            if dtype is torch.float64:
                total[first:inputs, first:last].addmm_(left, right)
            else:
                total[first:inputs, first:last] += left @ right
        if bias:
            total[-1, :inputs] += block.sum(0, dtype=torch.float64)
    if bias:
        total[-1, -1] = n
    return torch.tril(total) + torch.tril(total, -1).T


def factor(matrix: Tensor, shift: float) -> Tensor:
    """Return the Cholesky factor of matrix + shift I; `matrix` is overwritten.

    Raises `ArithmeticError` where that is not positive definite to rounding.
    """
    matrix.diagonal().add_(shift)
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ArithmeticError("a Gram matrix was not positive definite to rounding")
    return lower


def inputs_product(rows: Tensor, states: Tensor, *, bias: bool) -> Tensor:
    """Return R'A in float64, (outputs, inputs + 1), for rows R (n, outputs) and A = [V, 1]; without a bias, R'V."""
    product = (rows.T @ states).double()
    return torch.cat([product, rows.sum(0, dtype=torch.float64)[:, None]], 1) if bias else product


def weight_increment(product: Tensor, lower: Tensor) -> Tensor:
    """Return argmin_D alpha/2 ||D||^2 + rho/2 ||R - A D'||^2 = R'A (alpha/rho I + A'A)^-1, float64, shaped like W.

    product: R'A (outputs, inputs + 1). lower: the Cholesky factor of alpha/rho I + A'A.
    """
    return torch.cholesky_solve(product.T, lower).T


def state_response(matrix: Tensor, stiffness: float) -> tuple[Tensor, Tensor | None]:
    """Return (M, K) with which a state yields to the layer above it, in the type of `matrix`.

    The minimiser over V (n, inputs) of gamma/2 ||V - S||^2 + rho/2 ||Z - V W'||^2, W (outputs, inputs), is

        V = S + (Z - S W') M,    M = W (gamma/rho I + W'W)^-1 = (gamma/rho I + W W')^-1 W,    (outputs, inputs),

    and leaves Z - V W' = (Z - S W') K, K = gamma/rho (gamma/rho I + W W')^-1, (outputs, outputs).
    The smaller side is factorised. K is returned where it is the cheaper way to that rest, for outputs < inputs.

    matrix: W. stiffness: gamma/rho > 0.
    """
    outputs, inputs = matrix.shape
    trace = float(matrix.double().square().sum())
    fits = enough(matrix.dtype, min(outputs, inputs), trace=trace, shift=stiffness, times=16)
    w = matrix if fits else matrix.double()
    if outputs < inputs:
        inverse = torch.cholesky_inverse(factor(w @ w.T, stiffness))
        return (inverse @ w).to(matrix.dtype), (stiffness * inverse).to(matrix.dtype)
    return torch.cholesky_solve(w.T, factor(w.T @ w, stiffness)).T.to(matrix.dtype), None
