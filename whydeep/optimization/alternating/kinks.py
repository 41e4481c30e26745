"""Exact proximal maps across a kink: rectifiers and the hinge, entry by entry."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rectifier_proximal(wanted: Tensor, centre: Tensor, weight: float, *, left: float = 0.0) -> Tensor:
    """Return argmin_u 1/2 (s(u) - a)^2 + g/2 (u - b)^2 for every entry, s(u) = u for u > 0 and left u otherwise.

    wanted: a. centre: b, of the same shape, overwritten by the result. weight: g > 0. left: c in [0, 1).

    On either side of the kink the function is a parabola, with its minimum in u+ = (a + g b)/(1 + g) and
    u- = (c a + g b)/(c^2 + g). Where both lie on their own side (then b < 0 < a), their values are
    g/(1 + g) (a - b)^2 / 2 and g/(c^2 + g) (a - c b)^2 / 2, and the right one is the smaller exactly where

        b > -k a,    k = (q - p)/(p - c q),    p = (1 + g)^(-1/2),    q = (c^2 + g)^(-1/2).

    As c/g < k < 1/g, the same test chooses the right side also where one minimum only, or none, lies on its own side,
    if the minimum is cut off at 0. Equal values (b = -k a) go to the left.
    Source: Zeng, Lau, Lin and Yao, "Global convergence of block coordinate descent in deep learning", ICML 2019, has
    ReLU by three cases (recalled, not checked against the paper); the one test and the leaky form are derived here.
    Cost: some six passes over the entries.

    >>> b = torch.tensor([2.0, -1.0, -0.3])
    >>> rectifier_proximal(torch.tensor([1.0, 1.0, 1.0]), b, 1.0)  # k = sqrt(2) - 1 = 0.414
    tensor([ 1.5000, -1.0000,  0.3500])
    """
    p, q = 1 / math.sqrt(1 + weight), 1 / math.sqrt(left**2 + weight)
    threshold = (q - p) / (p - left * q)
    on_the_right = torch.add(centre, wanted, alpha=threshold) > 0
    right = torch.lerp(centre, wanted, 1 / (1 + weight)).clamp_(min=0)
    if left:
        centre.mul_(weight / (left**2 + weight)).add_(wanted, alpha=left / (left**2 + weight))
    return torch.where(on_the_right, right, centre.clamp_(max=0), out=centre)


def same_side_proximal(wanted: Tensor, centre: Tensor, weight: float, *, left: float, start: Tensor) -> Tensor:
    """Return the minimiser of `rectifier_proximal` on the side of the kink on which `start` is, entry by entry.

    It is max((a + g b)/(1 + g), 0) where start > 0 and min((c a + g b)/(c^2 + g), 0) elsewhere; it is never worse than
    `start`, and where nothing else is better it is the same. centre is overwritten by the result.

    >>> b = torch.tensor([2.0, -1.0, -0.3])
    >>> same_side_proximal(torch.tensor([1.0, 1.0, 1.0]), b, 1.0, left=0.0, start=b.clone())
    tensor([ 1.5000, -1.0000, -0.3000])
    """
    right = torch.lerp(centre, wanted, 1 / (1 + weight)).clamp_(min=0)
    if left:
        centre.mul_(weight / (left**2 + weight)).add_(wanted, alpha=left / (left**2 + weight))
    return torch.where(start > 0, right, centre.clamp_(max=0), out=centre)


def hinge_proximal(centre: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return argmin_v max(0, 1 - s v) + beta/2 (v - c)^2 for every entry, s = +1 where the target is 1 and -1 where 0.

    In the margin m = s c it is max(m, min(1, m + 1/beta)): a margin of one and more stays, a smaller one moves by
    1/beta, at most to one.

    >>> hinge_proximal(torch.tensor([[2.0, 0.8, -3.0]]), torch.ones(1, 3), 2.0)
    tensor([[ 2.0000,  1.0000, -2.5000]])
    """
    sign = 2 * target - 1
    margin = sign * centre
    return sign * torch.maximum(margin, (margin + 1 / beta).clamp(max=1))
