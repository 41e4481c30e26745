"""The two blocks of a split network in which it is quadratic: weights between given states, a state between two layers.

Sums over samples are what decides these steps, so the d x d matrices are formed and factorised in float64 whatever the
type of the states: a Gram matrix of saturated states is singular to single precision, and no factorisation repairs it.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024
"""Samples that are worked on at a time: enough for a fast product, few enough for the other passes to stay in cache."""

_COLUMNS = 256


def blocks(n: int) -> list[slice]:
    """Return the slices of `ROWS` samples that make up n; the last may be shorter."""
    return [slice(first, min(n, first + ROWS)) for first in range(0, n, ROWS)]


def gram(states: Tensor, *, bias: bool) -> Tensor:
    """Return A'A in float64 for A = [V, 1], (inputs + 1, inputs + 1); without a bias, V'V.

    states: V (n, inputs). Only the lower block columns are multiplied, the rest is their mirror image.
    Cost: n inputs^2 operations in float64 and one block of rows in float64.
    """
    n, inputs = states.shape
    size = inputs + bias
    total = torch.zeros(size, size, dtype=torch.float64, device=states.device)
    for rows in blocks(n):
        block = states[rows].double()
        for first in range(0, inputs, _COLUMNS):
            last = min(inputs, first + _COLUMNS)
            total[first:inputs, first:last].addmm_(block[:, first:].T, block[:, first:last])
        if bias:
            total[-1, :inputs] += block.sum(0)
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


def state_response(matrix: Tensor, stiffness: float) -> tuple[Tensor, Tensor]:
    """Return (M, K) with which a state yields to the layer above it, both float64.

    The minimiser over V (n, inputs) of gamma/2 ||V - S||^2 + rho/2 ||Z - V W'||^2, W (outputs, inputs), is

        V = S + (Z - S W') M,    M = W (gamma/rho I + W'W)^-1 = (gamma/rho I + W W')^-1 W,    (outputs, inputs),

    and leaves Z - V W' = (Z - S W') K, K = gamma/rho (gamma/rho I + W W')^-1, (outputs, outputs).
    The smaller side is factorised; where that is the side of the inputs, K comes from I - M W'.

    matrix: W, any type. stiffness: gamma/rho > 0.
    """
    w = matrix.double()
    outputs, inputs = w.shape
    if outputs <= inputs:
        inverse = torch.cholesky_inverse(factor(w @ w.T, stiffness))
        return inverse @ w, stiffness * inverse
    response = torch.cholesky_solve(w.T, factor(w.T @ w, stiffness)).T
    return response, torch.eye(outputs, dtype=w.dtype, device=w.device) - response @ w.T
