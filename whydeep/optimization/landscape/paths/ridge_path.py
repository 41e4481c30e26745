"""A path between two linear networks of two layers on which risk plus ridge never exceeds the worse end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .grassmann import joined
from .leg import Path
from .linear_walk import RANK, Factors, Piece, Walk, factors_of, leg_of, state_of
from .profile import State


def through_ridge(
    problem: Problem,
    chain: Chain,
    a: nn.Module,
    b: nn.Module,
    *,
    ridge: float,
    data: Data | None,
    points: int,
    **rest: Any,
) -> Path:
    """Return a path on which R(W_2 W_1) + ridge (|W_1|^2 + |W_2|^2) is at most what it is at the worse end.

    For a loss that is convex in the outputs and a hidden layer wider than inputs or outputs; biases are not penalised.
    Of all factors of a product P the balanced ones have the least squares, 2 |P|_* (nuclear norm), which is convex in
    P. From an end: what one factor has and the other does not see is dropped (convex in each factor); on the r
    remaining hidden directions W_1 -> E^s W_1, W_2 -> W_2 E^-s, E symmetric and positive, goes to balanced factors at
    the same P, the squares being a sum of exponentials in s (convex); the hidden directions turn to where the balanced
    factors (P^T P)^(1/4) and P (P^T P)^(-1/4) of the same P have them (constant; needs a spare hidden direction).
    Between the two ends P runs along a straight line with these factors: convex, too.
    So every leg is convex or constant, and the largest value is at the beads, `Path.certified`.
    Source: lecture, "Simple Topology of Linear Networks", item 2; Freeman and Bruna (2017), proposition 2.2 for two
    layers. Construction written for this library.

    Raises `InputError` on more layers or a hidden layer that is not wider; the rest is checked by
    `through_linear_layers`. Cost: about ten SVDs and the profile's passes.
    """
    linears = [layer.linear for layer in chain.layers]
    narrow = min(linears[0].in_features, linears[-1].out_features)
    if len(linears) != 2 or linears[0].out_features <= narrow:
        raise InputError(
            f"the path with a ridge is for two layers with more than {narrow} hidden units, and the network has "
            f"{len(linears)} layers with {[linear.out_features for linear in linears[:-1]]}",
            'give such a network, ridge=0, or method="dynamic_string"',
        )
    forward = linears[0].in_features <= linears[-1].out_features
    start, goal = (factors_of(each, forward) for each in (a, b))
    up, to = Walk(start), Walk(goal)
    for walk in (up, to):
        walk.drop_hidden_biases(forward)
        _drop_unseen(walk)
        _balance(walk)
        _turn(walk)
    one, other = (walk.now.factors[1] @ walk.now.factors[0] for walk in (up, to))
    biases = up.now.biases, to.now.biases
    width = len(up.now.factors[0])

    def at(s: float) -> Factors:
        lerped = tuple(torch.lerp(x, y, s) for x, y in zip(*biases, strict=True))
        return Factors(_balanced(torch.lerp(one, other, s), width), lerped)

    up.legs.append(Piece(at, "convex", True))

    def state(factors: Factors) -> State:
        return state_of(problem.model, factors, forward)

    legs = [leg_of(leg, state) for leg in up.legs] + [leg_of(leg, state).reversed() for leg in reversed(to.legs)]
    remark = "every leg is constant or convex: risk plus ridge is at most that of the worse end"
    return Path.of("linear", problem, legs, data=data, points=points, remark=remark, ridge=ridge, **rest)


def _drop_unseen(walk: Walk) -> None:
    """Take from W_2 what W_1 never sends, then from W_1 what W_2 does not see: the product stays, squares fall."""
    inner, outer = walk.now.factors
    left, _ = _range(inner)
    walk.line(walk.now.put({1: outer @ left @ left.T}), "convex")
    outer = walk.now.factors[1]
    right, _ = _range(outer.T)
    walk.line(walk.now.put({0: right @ right.T @ inner}), "convex")


def _range(matrix: Tensor) -> tuple[Tensor, int]:
    """Return an orthonormal basis (n, r) of what the columns span, and r."""
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((values > RANK * max(float(values[0]), 1e-300)).sum())
    return left[:, :rank], rank


def _balance(walk: Walk) -> None:
    """Make the factors balanced at the same product, along the one-parameter group of a symmetric matrix."""
    inner, outer = walk.now.factors
    basis, rank = _range(inner)
    if rank == 0:
        return
    small, large = basis.T @ inner, outer @ basis
    _, values, right = torch.linalg.svd(large @ small, full_matrices=False)
    wanted = values[:rank].sqrt()[:, None] * right[:rank]
    # small -> G small = wanted for one G (r, r); its symmetric part E in G = K E does the balancing, K only turns.
    group = wanted @ torch.linalg.pinv(small)
    _, stretch, axes = torch.linalg.svd(group)
    powers = stretch.log()
    standing = walk.now

    def at(s: float) -> Factors:
        grown = axes.T @ (torch.exp(s * powers)[:, None] * axes)
        shrunk = axes.T @ (torch.exp(-s * powers)[:, None] * axes)
        return standing.put({0: basis @ grown @ small, 1: large @ shrunk @ basis.T})

    walk.legs.append(Piece(at, "convex", True))
    walk.now = at(1.0)


def _turn(walk: Walk) -> None:
    """Turn the hidden directions to those of `_balanced`: W_1 = F H, W_2 = P H^+ F^T, F orthonormal, moves in F."""
    inner, outer = walk.now.factors
    target = _balanced(outer @ inner, len(inner))[0]
    left, values, right = torch.linalg.svd(target, full_matrices=False)
    rank = int((values > RANK * max(float(values[0]), 1e-300)).sum())
    if rank == 0:
        return
    # W_1 = F D V^T with the same D V^T at both ends, since both are balanced with the same product.
    core = values[:rank, None] * right[:rank]
    back = right[:rank].T / values[:rank]
    here, there = inner @ back, left[:, :rank]
    moving = joined(here, there)
    assert moving is not None  # rank <= narrower side < width
    carried = outer @ here
    standing = walk.now

    def at(s: float) -> Factors:
        frame = moving(s)
        return standing.put({0: frame @ core, 1: carried @ frame.T})

    walk.legs.append(Piece(at, "constant", True))
    walk.now = at(1.0)


def _balanced(product: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return W_1 = [(P^T P)^(1/4); 0] (width, n) and W_2 = [P (P^T P)^(-1/4), 0] (m, width): continuous in P (m, n)."""
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    root = values.sqrt()
    size = product.shape[1]
    inner, outer = product.new_zeros(width, size), product.new_zeros(len(product), width)
    inner[:size] = right.T @ (root[:, None] * right)
    outer[:, :size] = left @ (root[:, None] * right)
    return inner, outer
