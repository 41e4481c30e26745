"""Plain block coordinate descent: the published three-splitting updates for ReLU, written out as they are printed.

A peer for the benchmarks: explicit inverses, every product formed where the formula has it, one bias update after each
weight update. Samples are columns. It shares no code with the library.
"""

from __future__ import annotations

from itertools import pairwise

import torch


def start(weights, biases, x):
    """Variables of the forward pass: W_1..W_N, b_1..b_N, U_1..U_N, V_0..V_N, index 0 of W, b and U unused."""
    W, b, U, V = [None, *weights], [None, *(v[:, None] for v in biases)], [None], [x]
    for i in range(1, len(W)):
        U.append(W[i] @ V[i - 1] + b[i])
        V.append(U[i].relu() if i < len(W) - 1 else U[i].clone())
    return W, b, U, V


def relu_step(a, b, g):
    """argmin_u 1/2 (relu(u) - a)^2 + g/2 (u - b)^2 by its two candidates."""
    right, left = ((a + g * b) / (1 + g)).clamp(min=0), b.clamp(max=0)
    cost_right = (right - a) ** 2 + g * (right - b) ** 2
    cost_left = a**2 + g * (left - b) ** 2
    return torch.where(cost_right < cost_left, right, left)


def sweep(variables, y, gamma, rho, alpha):
    """One sweep, in place, for the squared loss against the columns y."""
    W, b, U, V = variables
    last, n = len(W) - 1, y.shape[1]
    V[last] = (y + gamma * U[last] + alpha * V[last]) / (1 + gamma + alpha)
    U[last] = (gamma * V[last] + rho * (W[last] @ V[last - 1] + b[last])) / (gamma + rho)
    for i in range(last, 0, -1):
        A = V[i - 1]
        eye = torch.eye(len(A), dtype=A.dtype)
        W[i] = (alpha * W[i] + rho * (U[i] - b[i]) @ A.T) @ torch.linalg.inv(alpha * eye + rho * A @ A.T)
        b[i] = (alpha * b[i] + rho * (U[i] - W[i] @ A).sum(1, keepdim=True)) / (rho * n + alpha)
        if i == 1:
            break
        right = rho * W[i].T @ (U[i] - b[i]) + gamma * U[i - 1].relu()
        V[i - 1] = torch.linalg.inv(rho * W[i].T @ W[i] + gamma * eye) @ right
        centre = (rho * (W[i - 1] @ V[i - 2] + b[i - 1]) + alpha * U[i - 1]) / (rho + alpha)
        U[i - 1] = relu_step(V[i - 1], centre, (rho + alpha) / gamma)


def products(widths, n):
    """Operations in the matrix products of one sweep (a product of n samples between a and b units counts 2 n a b)."""
    total = 0.0
    for i, (a, c) in enumerate(pairwise(widths)):
        total += 2.0 * n * (a * a + 3 * a * c)  # A A', (U - b) A', W A twice
        if i:
            total += 2.0 * n * (a * a + a * c)  # W'(U - b), the inverse times the columns
    return total
