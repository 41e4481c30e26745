"""The landscape of linear networks: all critical points in closed form, with their risk and their ways down.

The risk of weights W_1 (p, dx), W_2, ..., W_K (dy, p) is R = 1/(2n) sum_i |W_K ... W_1 x_i - y_i|^2, the library's
"squared" loss. Sxx, Sxy, Syy are the mean products of the data, and (lambda_i, u_i) the eigenpairs of
Syx Sxx^-1 Sxy, the second moment of what a linear map can explain of y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, pairwise

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.randomness import or_default


@dataclass(frozen=True)
class CriticalPoint:
    """A point of a linear network at which the gradient of the risk is zero.

    chosen: the eigenpairs that the network has learned, 0 the one with the largest eigenvalue.
    weights: first layer first. risk: R there. index: the number of negative eigenvalues of the Hessian.
    """

    chosen: tuple[int, ...]
    weights: tuple[Tensor, ...]
    risk: float
    index: int


def explained(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (dy,), descending, and eigenvectors (dy, dy), in columns, of Syx Sxx^-1 Sxy.

    x: (n, dx), y: (n, dy). They are the squared singular values, over n, of the outputs fitted by least squares; where
    Sxx is singular its pseudo-inverse is meant.

    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> values, _ = explained(x, 3 * x)  # mean of (3 x)^2 = 9 (1 + 4)/2
    >>> round(float(values), 9)
    22.5
    """
    fitted = x @ (torch.linalg.pinv(x) @ y)
    _, strengths, right = torch.linalg.svd(fitted, full_matrices=True)
    values = torch.zeros(y.shape[1], dtype=y.dtype, device=y.device)
    values[: len(strengths)] = strengths.square() / len(x)
    return values, right.T


def least_risk(x: Tensor, y: Tensor, rank: int) -> float:
    """Return the least risk of a linear map of at most this rank: 1/2 (tr Syy - the `rank` largest eigenvalues).

    It is the global minimum of every linear network whose narrowest layer has `rank` units, for any data (reduced-rank
    regression; Eckart and Young 1936, Lu and Kawaguchi 2017, recalled, not checked against the paper).
    Raises `ValueError` when rank < 0.

    >>> x, y = torch.eye(2, dtype=torch.float64), torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    >>> least_risk(x, y, 1)  # 1/2 (9 + 1)/2, and 9/2 of it explained
    0.25
    """
    if rank < 0:
        raise ValueError(f"rank={rank}; give a number >= 0")
    values, _ = explained(x, y)
    return max(0.0, 0.5 * (float(y.square().sum()) / len(y) - float(values[:rank].sum())))


def critical_points(
    x: Tensor, y: Tensor, width: int, *, depth: int = 2, generator: torch.Generator | None = None
) -> tuple[CriticalPoint, ...]:
    """Return a critical point for every set of at most min(width, dy) eigenvectors, those of least risk first.

    x: (n, dx), y: (n, dy); width: units p of every hidden layer; depth: layers K >= 2. For a set I of r eigenvectors
    and invertible C and M_2, ..., M_{K-1} (p, p), drawn from `generator`,
    W_K = [U_I, 0] C,  W_k = M_k,  W_1 = (C M_{K-1} ... M_2)^-1 [U_I^T Syx Sxx^-1; 0]  is critical, with
    risk 1/2 (tr Syy - sum_{i in I} lambda_i)  and
    index #{(i in I, j not in I): lambda_j > lambda_i} + (p - r)(dy - r).
    The index is zero only for the min(p, dy) largest: all others go down along a negative curvature. With K = 2 these
    are, up to C, all critical points with W_2 W_1 of rank min(p, dy) and representatives of the others; with K > 2
    further ones have a singular middle factor, and there the index formula does not hold (see `zero_network`).

    Raises `InputError` when the counts of samples differ, when Sxx or Sxy has not full rank (dx and dy), or when two
    eigenvalues agree to 1e-6 of the largest, or on NaN; `ValueError` when width < 1 or depth < 2; `TypeError` on what
    is no tensor of floats.
    Source: Baldi and Hornik (1989), Kawaguchi (2016). The index formula was derived for this library; the tests hold
    it against dense Hessians. Cost: 2^dy points, one (p, p) solve each.

    >>> x, y = torch.eye(2, dtype=torch.float64), torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    >>> [(p.chosen, p.risk, p.index) for p in critical_points(x, y, 1)]  # lambda = 9/2, 1/2
    [((0,), 0.25, 0), ((1,), 2.25, 1), ((), 2.5, 2)]
    """
    if width < 1 or depth < 2:
        raise ValueError(f"width={width}, depth={depth}; give at least one hidden unit and two layers")
    values, vectors = _checked(x, y)
    generator = or_default(generator)
    regression = torch.linalg.lstsq(x, y).solution.T  # Syx Sxx^-1, (dy, dx)
    total = float(y.square().sum()) / len(y)
    points = []
    for size in range(min(width, y.shape[1]) + 1):
        for chosen in combinations(range(y.shape[1]), size):
            others = [j for j in range(y.shape[1]) if j not in chosen]
            swaps = sum(j < i for i in chosen for j in others)  # eigenvalues descend: an earlier one is larger
            frame = torch.zeros(y.shape[1], width, dtype=y.dtype, device=y.device)
            frame[:, :size] = vectors[:, list(chosen)]
            mixers = [_invertible(width, generator).to(y) for _ in range(depth - 1)]  # M_2, ..., M_{K-1}, C
            mixed = reduce(lambda product, mixer: mixer @ product, mixers)
            first = torch.linalg.solve(mixed, frame.T @ regression)
            points.append(
                CriticalPoint(
                    chosen=chosen,
                    weights=(first, *mixers[:-1], frame @ mixers[-1]),
                    risk=0.5 * (total - sum(float(values[i]) for i in chosen)),
                    index=swaps + (width - size) * len(others),
                )
            )
    return tuple(sorted(points, key=lambda point: point.risk))


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} is {kind}; give a tensor of floats, better float64")
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} holds NaN or inf", "remove or repair those samples")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(
            f"x is {tuple(x.shape)} and y {tuple(y.shape)}", "give (n, inputs) and (n, outputs) of as many samples"
        )
    ranks = int(torch.linalg.matrix_rank(x)), int(torch.linalg.matrix_rank(x.T @ y))
    if ranks != (x.shape[1], y.shape[1]):
        raise InputError(
            f"E XX^T has rank {ranks[0]} of {x.shape[1]} and E XY^T rank {ranks[1]} of {y.shape[1]} outputs",
            "give more samples, drop dependent columns, or use at most as many outputs as inputs",
        )
    values, vectors = explained(x, y)
    # Rounding moves an eigenvalue by 1e-15 of the largest; a gap above 1e-6 of it leaves the index beyond doubt.
    if bool((-values.diff() <= 1e-6 * values[0]).any()):
        raise InputError(
            "two eigenvalues of Syx Sxx^-1 Sxy agree, so their eigenvectors are not determined",
            "rescale an output, or use `least_risk`, which needs no assumption",
        )
    return values, vectors


def _invertible(size: int, generator: torch.Generator) -> Tensor:
    """Return an orthogonal matrix with its columns scaled by 1/2 to 2: well conditioned whatever is drawn."""
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    scaled: Tensor = turn * torch.exp2(2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1)
    return scaled


def zero_network(widths: Sequence[int], *, like: Tensor) -> tuple[Tensor, ...]:
    """Return zero weights for `widths` (dx, hidden ..., dy), with the type and device of `like`.

    A critical point of every linear network of two layers or more. With two its Hessian has the eigenvalue
    -sigma_max(Syx); with three or more the whole Hessian is zero there, a saddle without negative curvature wherever
    Syx is not zero: the risk falls only in the K-th order of the step (Kawaguchi 2016, theorem 2.3 (iv), recalled,
    not checked against the paper; the argument is one line: every second derivative keeps a factor zero).

    >>> [tuple(w.shape) for w in zero_network((3, 2, 1), like=torch.zeros(1))]
    [(2, 3), (1, 2)]
    """
    return tuple(like.new_zeros(b, a) for a, b in pairwise(widths))


def risk(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return 1/(2n) sum_i |W_K ... W_1 x_i - y_i|^2, a scalar that can be differentiated in the weights."""
    output = reduce(lambda state, weight: state @ weight.T, weights, x)
    return 0.5 * (output - y).square().sum() / len(x)


def gradient_lower_bound(residuals: Sequence[Tensor], x: Tensor, y: Tensor) -> float:
    """Return what |grad R|^2 is at least for W_k = I + A_k, all square, as long as every |A_k| < 1.

    |grad R|^2 >= 2 K (1 - tau)^(2K - 2) sigma_min(Sxx) (R - min R), tau = max_k |A_k| (spectral norms), min R over all
    linear maps: near the identity the only critical points are global minima. For tau >= 1 it is 0 and says nothing.
    Derivation: with D = W_K ... W_1 - Syx Sxx^-1 the gradient in A_k is (W_K ... W_{k+1})^T D Sxx (W_{k-1} ... W_1)^T,
    at least (1 - tau)^(K-1) |D Sxx|_F long, and R - min R = 1/2 |D Sxx^(1/2)|_F^2.
    Source: Hardt and Ma (2016, theorem 2.2 of the first version, recalled, not checked against the paper: there the
    factor is 4, for a risk without 1/2).

    >>> x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    >>> half = torch.tensor([[0.5]], dtype=torch.float64)  # W = 1.5 and 1.5, target 2.25 + 1: D = -1
    >>> round(gradient_lower_bound([half, half], x, 3.25 * x), 9)  # 2 * 2 * (1/2)^2 * 1 * 1/2
    0.5
    """
    tau = max(float(torch.linalg.matrix_norm(residual, 2)) for residual in residuals)
    if tau >= 1:
        return 0.0
    moment = x.T @ x / len(x)
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    layers = [identity + residual for residual in residuals]
    excess = float(risk(layers, x, y)) - least_risk(x, y, y.shape[1])
    smallest = float(torch.linalg.eigvalsh(moment)[0])
    depth = len(layers)
    return 2.0 * depth * (1 - tau) ** (2 * depth - 2) * smallest * max(excess, 0.0)
