"""A path between two linear networks on which the risk never exceeds the worse end: level sets are connected."""

from __future__ import annotations

from typing import Any

from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.loss import NAMED
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .leg import Path
from .linear_walk import Factors, Walk, factors_of, leg_of, state_of
from .narrow_path import through_bottleneck
from .profile import State
from .ridge_path import through_ridge


def through_linear_layers(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    ridge: float = 0.0,
    data: Data | None = None,
    points: int = 5,
    **rest: Any,
) -> Path:
    """Return a path between two linear networks W_K ... W_1 x on which the risk is at most that of the worse end.

    Where every hidden layer is wider than the narrower of inputs and outputs, n_k > min(n_0, n_K): layer after layer,
    from the narrower side on, the factor of the first network moves to that of the second through matrices of full
    column rank (`joined`: a Grassmann geodesic and the general linear group in it), while the next factor is multiplied
    by the inverse, so that the product, and with it the risk, stays as it is. At last one factor is left, in which the
    risk is convex: a straight line. So the largest risk on the path is that at the ends, `Path.certified`.
    Factors without full rank first get it along directions that the next factor does not see; hidden biases are moved
    into the last one, which changes nothing either.

    ridge: adds ridge times the squares of all weights, biases apart; the same is then said of risk plus ridge, for two
    layers (`through_ridge`). Hidden layers narrower than both sides: see `through_bottleneck`, for the squared loss.

    Where a hidden layer is exactly as wide as the narrower side and the determinants differ in sign, the path has to
    pass a factor without full rank: the next factor is projected along its weakest direction (convex, possibly
    upwards), the determinant is turned there, and the certified maximum may exceed both ends.
    Source: Freeman and Bruna (2017), proposition 2.2; Venturi, Bandeira and Bruna (2019) for the quotient by the group;
    the lecture's slide asks n_k > min. With n_k >= min, as the paper's text is remembered, it fails: R = 1/2 (w_2 w_1
    - 1)^2 below 1/2 consists of w_1 > 0 and w_1 < 0. Construction written for this library.

    Raises `InputError` when the network is not a chain of linear layers, has hidden biases without one at the output, a
    hidden layer narrower than both sides and another loss than the squared one, or a loss not known to be convex;
    `ValueError` on a ridge below zero.
    Cost: about 3 K SVDs, and a pass over the data a position.
    """
    chain = Chain.of(problem.model, solver="the path of linear networks")
    _check(problem, chain)
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}; give a number >= 0")
    linears = [layer.linear for layer in chain.layers]
    if ridge > 0:
        return through_ridge(problem, chain, a, b, ridge=ridge, data=data, points=points, **rest)
    if len(linears) > 1 and min(linear.out_features for linear in linears[:-1]) < min(
        linears[0].in_features, linears[-1].out_features
    ):
        return through_bottleneck(problem, chain, a, b, data=data, points=points, **rest)
    forward = chain.layers[0].linear.in_features <= chain.layers[-1].linear.out_features
    start, goal = (factors_of(each, forward) for each in (a, b))
    up, to = Walk(start), Walk(goal)
    if len(chain.layers) > 1:
        for walk in (up, to):
            walk.drop_hidden_biases(forward)
        to.raise_ranks()
        notes = up.follow(to.now)
    else:
        notes = []
    up.line(to.now, "convex")

    def state(factors: Factors) -> State:
        return state_of(problem.model, factors, forward)

    legs = [leg_of(leg, state) for leg in up.legs] + [leg_of(leg, state).reversed() for leg in reversed(to.legs)]
    remark = "; ".join(notes) or "every leg is constant or convex: the risk is at most that of the worse end"
    return Path.of("linear", problem, legs, data=data, points=points, remark=remark, **rest)


def _check(problem: Problem, chain: Chain) -> None:
    for index, layer in enumerate(chain.layers):
        if not layer.activation.linear:
            raise InputError(
                f"the network has the activation {layer.activation.name} after layer {index + 1}",
                'give a network of linear layers only, or method="relu"',
            )
    if problem.per_sample.name not in NAMED:
        raise InputError(
            f"it is not known that the loss {problem.per_sample.name} is convex in the outputs",
            f"give one of {', '.join(sorted(NAMED))}",
        )
    linears = [layer.linear for layer in chain.layers]
    if linears[-1].bias is None and any(linear.bias is not None for linear in linears[:-1]):
        raise InputError("a hidden layer has a bias and the output has none", "give the output layer one")
