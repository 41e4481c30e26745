"""Two-layer networks with quadratic units: f(x) = sum_j v_j (w_j . x)^2 = x^T M x with M = W^T diag(v) W.

In M the squared risk is convex; in the weights W (k, d) it is not. With k >= 2 d units, at least d of their output
weights v_j positive and d negative, every local minimum over W is global, for any data: there is always a unit of
either sign with room to turn any remaining misfit into descent (Soltanolkotabi, Javanmard and Lee 2017, theorem on
quadratic activations; recalled, not checked against the paper).
R(W) = 1/(2n) sum_i (f(x_i) - y_i)^2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def risk(weights: Tensor, signs: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return R for weights (k, d), output weights `signs` (k,), x (n, d), y (n,); it can be differentiated.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> float(risk(2 * one[None], one, one[None], one))  # (4 - 1)^2 / 2
    4.5
    """
    return 0.5 * ((x @ weights.T).square() @ signs - y).square().mean()


def least_risk(x: Tensor, y: Tensor) -> float:
    """Return min over symmetric M of 1/(2n) sum (x_i^T M x_i - y_i)^2, by least squares in d (d + 1)/2 products.

    It is the global minimum of every network with at least d units of each sign. Zero for generic data with
    n <= d (d + 1)/2.
    """
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1])
    products = x[:, rows] * x[:, columns]
    # SVD-based, so that dependent products (repeated samples) do no harm.
    fitted = products @ (torch.linalg.pinv(products) @ y)
    return 0.5 * float((fitted - y).square().mean())


def misfit(weights: Tensor, signs: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return G = dR/dM = 1/n sum_i (f(x_i) - y_i) x_i x_i^T, (d, d): zero exactly at the global minima.

    R is convex in M, so G = 0 is a certificate whatever the weights. dR/dW = 2 diag(v) W G; and at a point where a
    unit w_j is zero, G u = -g u with v_j g > 0 makes w_j = u a way down.
    """
    residual = (x @ weights.T).square() @ signs - y
    return (residual[:, None] * x).T @ x / len(x)


def enough_units(signs: Tensor, inputs: int) -> bool:
    """Return whether at least `inputs` output weights are positive and as many negative."""
    return int((signs > 0).sum()) >= inputs and int((signs < 0).sum()) >= inputs


def descend(weights: Tensor, signs: Tensor, x: Tensor, y: Tensor, *, most: int = 2000) -> Tensor:
    """Return the weights (k, d) at which L-BFGS with a strong Wolfe search ends, from `weights`; signs stay fixed."""
    moving = weights.clone().requires_grad_()
    # Ends where neither the gradient nor the risk changes in double precision.
    optimizer = torch.optim.LBFGS(
        [moving],
        max_iter=most,
        history_size=30,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = risk(moving, signs, x, y)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return moving.detach()
