"""The smallest perturbation that changes a linear classifier's decision, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def linear_critical_radius(
    weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, *, bounds: tuple[float, float] | None = None
) -> Tensor:
    """Return the exact radius (n,) at which the decision of a linear classifier can be changed, in the maximum norm.

    For outputs f = W x + b and v = w_j - w_y, moving by r gains on class j at most

        gain(r) = sum_i |v_i| min(r, room_i),   room_i the distance of x_i to the bound in the direction of v_i.

    The radius is the least r over j with gain(r) >= f_y - f_j: without bounds min_j (f_y - f_j)/||w_j - w_y||_1. It is
    0 for a sample already misclassified, and inf where bounds (or v = 0) leave too little room.

    weight (classes, d), bias (classes,), x (n, d), y (n,) int64. Cost: n d log(d) per class.
    Source: Hoelder's inequality, with equality at the perturbation r sign(v).

    >>> w = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> x, y = torch.tensor([[0.6, 0.0]]), torch.tensor([0])
    >>> linear_critical_radius(w, torch.zeros(2), x, y)  # 0.6 / (1 + 2)
    tensor([0.2000])
    >>> linear_critical_radius(w, torch.zeros(2), x, y, bounds=(0.55, 1.0))  # w_0 gains 0.05 only: (0.6 - 0.05) / 2
    tensor([0.2750])
    """
    low, high = bounds if bounds is not None else (-math.inf, math.inf)
    scores = x @ weight.T + bias
    best = torch.full_like(scores[:, 0], math.inf)
    for j in range(len(weight)):
        v = weight[j] - weight[y]
        margin = scores.gather(1, y[:, None]).squeeze(1) - scores[:, j]
        room, order = torch.where(v > 0, high - x, x - low).clamp(min=0.0).sort(1)
        size = v.abs().gather(1, order)
        reach = torch.where(size > 0, size * room, 0.0).cumsum(1)
        # gain is concave: the minimum over k of its pieces, on the k-th of which the k smallest rooms are used up,
        # sum_(i<k) size_i room_i + r sum_(i>=k) size_i. So the r that it needs is the largest that a piece needs.
        used = torch.cat([torch.zeros_like(reach[:, :1]), reach[:, :-1]], 1)
        slope = size.flip(1).cumsum(1).flip(1)
        needed = torch.where(slope > 0, (margin[:, None] - used) / slope, -math.inf).amax(1).clamp(min=0.0)
        needed = torch.where(reach[:, -1] >= margin, needed, math.inf)
        best = torch.where(y == j, best, torch.minimum(best, needed))
    return best
