"""The V-step of an alternating method as a linear map, which takes the place of the weights on the way down."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def state_map(weight: Tensor, damping: float) -> Tensor:
    """Return P (o, d), by which the wanted changes T (m, o) of U = V W' become T P, those of the states V (m, d).

    The V-step for states below one layer minimises the misfit of U and a proximal term,

        D = argmin |D W' - T|^2 / 2 + delta |D|^2 / 2 = T (W W' + delta I)^-1 W,   delta = damping tr(W W') / min(o, d),

    and P = (I + W W'/delta)^-1 W makes T P = delta D: the multiplier that the proximal term leaves, and for
    damping = inf the back-propagated gradient itself, with T minus the gradient by U. Back-propagation multiplies the
    share of T along a singular vector of W by its singular value s, this by s / (1 + s^2/delta): what a layer damps on
    the way up is not damped once more on the way down. delta is relative to the mean of the squared singular values.

    weight: W (o, d) without bias. A matrix of zeros is its own map. The system's condition is at most
    1 + min(o, d)/damping, so that it is solved in the type of the weights.
    Cost: 2 o d min(o, d) operations and a factorisation of order min(o, d).
    Source: V-step of Zeng, Lin, Yao and Zhou (JMLR 2021), for all samples at once and without the slopes of the
    activation; with damping 0 it is target propagation by pseudo-inverses (both recalled, not checked against papers).

    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()  # squared singular values 4 and 1, their mean 2.5
    >>> state_map(weight, 0.4).mul(1e6).round().div(1e6).tolist()  # delta 1: 2 / (1 + 4) and 1 / (1 + 1)
    [[0.4, 0.0], [0.0, 0.5]]
    """
    delta = damping * float(weight.square().sum()) / min(weight.shape)
    if math.isinf(damping) or delta == 0:
        return weight
    tall = weight.shape[0] > weight.shape[1]
    narrow = weight.T if tall else weight
    system = (narrow @ narrow.T).div_(delta)
    system.diagonal().add_(1)
    # With (I + W W'/delta)^-1 W = W (I + W'W/delta)^-1 the smaller of the two systems is solved.
    lower, _ = torch.linalg.cholesky_ex(system)
    solved: Tensor = torch.cholesky_solve(narrow, lower)
    return solved.T.contiguous() if tall else solved
