"""Plain dlADMM: the published backward and forward sweeps for ReLU and the cross-entropy, as they are printed.

A peer for the benchmarks: step lengths by doubling, one for all of a block, with every value computed anew; the output
by at most 500 accelerated gradient steps. Samples are columns. It shares no code with the library.
"""

from __future__ import annotations

import torch


def start(weights, biases, x):
    """Variables of the forward pass: W_1..W_N, b_1..b_N, Z_1..Z_N, A_0..A_{N-1}, U; index 0 of W, b and Z unused."""
    W, b, Z, A = [None, *weights], [None, *(v[:, None] for v in biases)], [None], [x]
    for i in range(1, len(W)):
        Z.append(W[i] @ A[i - 1] + b[i])
        A.append(Z[i].relu())
    return W, b, Z, A[:-1], torch.zeros_like(Z[-1])


def gap(variables, i, rho):
    """Z_i - W_i A_{i-1} - b_i, with the scaled multiplier at the output."""
    W, b, Z, A, U = variables
    residual = Z[i] - W[i] @ A[i - 1] - b[i]
    return residual + U / rho if i == len(W) - 1 else residual


def weight_step(variables, i, rho):
    W, _, _, A, _ = variables
    old, before = W[i], gap(variables, i, rho)
    gradient = -rho * before @ A[i - 1].T
    theta = rho
    while True:
        W[i] = old - gradient / theta
        model = rho / 2 * before.square().sum() - gradient.square().sum() / (2 * theta)
        if rho / 2 * gap(variables, i, rho).square().sum() <= model * (1 + 1e-6):
            return
        theta *= 2


def bias_step(variables, i, rho):
    _, b, _, _, _ = variables
    b[i] = b[i] + gap(variables, i, rho).mean(1, keepdim=True)


def preactivation_step(variables, i, rho, y):
    W, b, Z, A, U = variables
    m = W[i] @ A[i - 1] + b[i]
    if i < len(W) - 1:
        right, left = ((m + A[i]) / 2).clamp(min=0), m.clamp(max=0)
        cost_right, cost_left = (A[i] - right) ** 2 + (right - m) ** 2, A[i] ** 2 + (left - m) ** 2
        Z[i] = torch.where(cost_right < cost_left, right, left)
        return
    centre = m - U / rho
    v = ahead = centre
    momentum = 1.0
    for _ in range(500):
        gradient = torch.softmax(ahead, 0) - y + rho * (ahead - centre)
        if float(gradient.abs().max()) <= 1e-3:
            break
        new, after = ahead - gradient / (0.5 + rho), (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, v, momentum = new + (momentum - 1) / after * (new - v), new, after
    Z[i] = ahead


def state_step(variables, i, rho):
    W, _, Z, A, _ = variables
    if i == len(W) - 1:
        return
    old, inner, above = A[i], Z[i].relu(), gap(variables, i + 1, rho)
    gradient = -rho * W[i + 1].T @ above + rho * (old - inner)
    before = rho / 2 * (above.square().sum() + (old - inner).square().sum())
    tau = rho
    while True:
        A[i] = old - gradient / tau
        value = rho / 2 * (gap(variables, i + 1, rho).square().sum() + (A[i] - inner).square().sum())
        if value <= (before - gradient.square().sum() / (2 * tau)) * (1 + 1e-6):
            return
        tau *= 2


def sweep(variables, y, rho):
    """One sweep, in place, against the one-hot columns y; returns U, which is replaced."""
    W, b, Z, A, U = variables
    last = len(W) - 1
    for i in range(last, 0, -1):
        state_step(variables, i, rho)
        preactivation_step(variables, i, rho, y)
        bias_step(variables, i, rho)
        weight_step(variables, i, rho)
    for i in range(1, last + 1):
        weight_step(variables, i, rho)
        bias_step(variables, i, rho)
        preactivation_step(variables, i, rho, y)
        state_step(variables, i, rho)
    U += rho * (Z[last] - W[last] @ A[last - 1] - b[last])
