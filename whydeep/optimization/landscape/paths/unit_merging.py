"""Merging units that are nearly parallel: the argument by which wide layers have units to spare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Merged:
    """chosen: numbers of the representatives. outer: (k, m or m + 1), all weight on them, columns as given.

    shift: sum_i |v_i| |w_i| |u_i - u_r(i)|, the weight that was moved times how far, see `merged`.
    """

    chosen: list[int]
    outer: Tensor
    shift: float


def merged(rows: Tensor, outer: Tensor, size: int, *, homogeneous: bool = True) -> Merged:
    """Move the output weights of every unit to the most parallel of `size` representatives; no row is changed.

    rows (m, d): w_i, weights and bias of each unit. outer (k, m) or, with a bias, (k, m + 1): v_i in columns.
    With u_i = w_i/|w_i| and rectified units, v_i s(w_i x) = v_i |w_i| s(u_i x): the representative r of unit i gets
    v_i |w_i|/|w_r|, and the output changes at x by at most shift |x|, shift = sum_i |v_i| |w_i| |u_i - u_r|, since s
    has slope at most 1. So the squared risk obeys sqrt(2 R') <= sqrt(2 R) + shift (mean |x|^2)^(1/2) (x with a last
    entry 1 for a bias). m unit vectors of R^d lie within angles of order size^(-1/(d - 1)) of that many of them: the
    epsilon-net argument of Freeman and Bruna (2017), theorem 2.4. There the units are rotated onto each other and their
    weights added; to add the weights along a straight line has the same end and is convex in between.
    homogeneous: False for activations other than rectifiers: u_i = w_i, weights moved as they are, and rows compared by
    their difference, with which the bound holds for any activation of slope at most 1.

    Representatives: the unit of largest |v_i| |w_i| first, then always the one farthest from those chosen (Gonzalez
    1985: at most twice the least covering radius). Cost: size products (m, d).

    >>> rows = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> found = merged(rows, torch.tensor([[1.0, 1.0, 3.0]]), 2)
    >>> found.chosen, found.outer.tolist(), found.shift  # 3 relu(x) = 1.5 relu(2 x)
    ([2, 1], [[0.0, 1.0, 5.0]], 0.0)
    """
    width = len(rows)
    lengths = rows.norm(dim=1)
    # A row of zeros has no direction: it stays at zero, far from all others, and its unit is zero.
    points = rows / lengths.clamp_min(1e-300)[:, None] if homogeneous else rows
    scale = lengths if homogeneous else torch.ones_like(lengths)
    weight = outer[:, :width].norm(dim=0) * scale
    chosen = [int(weight.argmax())]
    nearest = torch.zeros(width, dtype=torch.int64)
    distance = (points - points[chosen[0]]).norm(dim=1)
    while len(chosen) < size:
        farthest = int(distance.argmax())
        if farthest in chosen:  # all others coincide with representatives
            farthest = next(k for k in range(width) if k not in chosen)
        ahead = (points - points[farthest]).norm(dim=1)
        nearest[ahead < distance] = len(chosen)
        distance = torch.minimum(distance, ahead)
        chosen.append(farthest)
    nearest[chosen] = torch.arange(size)
    distance[chosen] = 0
    owner = torch.tensor(chosen)[nearest]
    factor = torch.where(scale[owner] > 0, scale / scale[owner].clamp_min(1e-300), torch.zeros_like(scale))
    gathered = torch.zeros_like(outer)
    gathered[:, width:] = outer[:, width:]
    gathered.index_add_(1, owner, outer[:, :width] * factor)
    return Merged(chosen, gathered, float((weight * distance).sum()))
