"""Plain sigmoid ADMM: the published updates for the squared loss, written out as they are printed.

A peer for the benchmarks: direct forms with explicit inverses, every product formed where the formula has it, the
published step constant max |B| / 2. Samples are columns; a row of ones carries the biases. P P' is formed and inverted
in the type of the states, or in another one. It shares no code with the library.
"""

from __future__ import annotations

from itertools import pairwise

import torch


def with_ones(v):
    return torch.cat([v, torch.ones_like(v[:1])])


def start(weights, x):
    """Variables of the forward pass with multipliers zero: W_1..W_N (bias as last column), V_0..V_N, A_1..A_N."""
    W, V = [None, *weights], [x]
    for i in range(1, len(W)):
        u = W[i] @ with_ones(V[i - 1])
        V.append(torch.sigmoid(u) if i < len(W) - 1 else u)
    return W, V, [None, *(torch.zeros_like(v) for v in V[1:])]


def inverse(P, scale, ridge, dtype):
    """(ridge I + scale P P')^-1, formed in `dtype` and returned in the type of P."""
    wide = P.to(dtype)
    eye = torch.eye(len(P), dtype=dtype)
    return torch.linalg.inv(ridge * eye + scale * wide @ wide.T).to(P.dtype)


def sweep(variables, y, beta, ridge, gram=None):
    """One sweep, in place, against the columns y; gram: the type of P P', None for that of the states."""
    gram = gram or y.dtype
    W, V, A = variables
    last = len(W) - 1
    old_v, new_w = list(V), list(W)
    P = with_ones(V[last - 1])
    new_w[last] = (beta * V[last] - A[last]) @ P.T @ inverse(P, beta, ridge, gram)
    for i in range(last - 1, 0, -1):
        P, B = with_ones(V[i - 1]), V[i] - A[i] / beta
        s = torch.sigmoid(W[i] @ P)
        G, half = (s - B) * s * (1 - s), float(B.abs().max()) / 2
        right = beta * (half * W[i] @ P - G) @ P.T
        new_w[i] = right @ inverse(P, beta * half, ridge, gram)
    W[:] = new_w
    for j in range(1, last - 1):
        C, B = torch.sigmoid(W[j] @ with_ones(V[j - 1])) + A[j] / beta, old_v[j + 1] - A[j + 1] / beta
        M, s = W[j + 1][:, :-1], torch.sigmoid(W[j + 1] @ with_ones(old_v[j]))
        G, half = (s - B) * s * (1 - s), float(B.abs().max()) / 2
        eye = torch.eye(len(old_v[j]), dtype=M.dtype)
        right = beta * C + beta * M.T @ (half * M @ old_v[j] - G)
        V[j] = torch.linalg.inv(beta * eye + beta * half * M.T @ M) @ right
    if last > 1:
        M, bias = W[last][:, :-1], W[last][:, -1:]
        inner = torch.sigmoid(W[last - 1] @ with_ones(V[last - 2]))
        right = beta * inner + A[last - 1] - M.T @ (A[last] - beta * (old_v[last] - bias))
        V[last - 1] = torch.linalg.inv(beta * torch.eye(M.shape[1], dtype=M.dtype) + beta * M.T @ M) @ right
    V[last] = (y + A[last] + beta * W[last] @ with_ones(V[last - 1])) / (1 + beta)
    for i in range(1, last):
        A[i] = A[i] + beta * (torch.sigmoid(W[i] @ with_ones(V[i - 1])) - V[i])
    A[last] = A[last] + beta * (W[last] @ with_ones(V[last - 1]) - V[last])


def products(widths, n):
    """Operations in the matrix products of one sweep (a product of n samples between a and b units counts 2 n a b)."""
    pairs = list(pairwise(widths))
    total = 0.0
    for i, (a, b) in enumerate(pairs):
        hidden = i < len(pairs) - 1
        total += 2.0 * n * a * a  # P P'
        total += 2.0 * n * a * b * (3 if hidden else 1)  # W P twice and G P'; the output only the last
        total += 2.0 * n * a * b  # the multiplier
        if not hidden:
            total += 2.0 * n * a * b  # the output V_N
        if i:  # the state below
            total += 2.0 * n * a * a  # inverse times the columns
            total += 2.0 * n * a * b * (3 if hidden else 1)  # M V twice and M'; M' alone at the output
        if hidden:
            total += 2.0 * n * a * b  # C
    return total
