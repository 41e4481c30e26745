"""The constructive path of the two-layer theorem: convex and constant legs, so that its ends say how high it gets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.loss import NAMED
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .leg import Kind, Leg, Path
from .outer_fit import Layers, OuterFit
from .profile import State


def through_relu_layer(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    oracle: Sequence[int] | nn.Module | None = None,
    data: Data | None = None,
    points: int = 5,
    **rest: Any,
) -> Path:
    """Return a path between two networks with one hidden layer on which the largest training risk is known exactly.

    With f(x) = V s(W x + w) + c and a loss convex in f, the risk is convex in (V, c) at fixed rows (W, w), and does not
    depend on the rows of units with output weight zero. From one end (V, c) moves to the best network that uses n of
    its m units, the oracle. From the other end (V, c) moves to the best network that uses m - n units; the n free rows
    move to the oracle's, and (V, c) to the oracle's. The oracle is then moved from the slots it has on one side to
    those on the other: a row is copied into a free slot, its output weight shifted there. Every leg is straight and
    convex or constant, so the maximum lies at the ends of legs: `Path.certified`, for all t, without a grid.

    oracle: the numbers n to try, by default 0, m/4 and m/2; both ends are tried as the oracle's origin, and the choice
    with the smallest certified maximum is taken, the shortest where several need no more than the worse end. Or a
    network of the same kind with n <= m units, well trained: then both ends go to it, as in the theorem, where it is
    the best there is with n units. Which units are kept: those of largest output weight times root mean square of the
    unit, those that pivoted QR finds most independent, or representatives of near-parallel ones (`merged`), whichever
    fits best. "Best" is as good as the worse end where that can be reached, no better: the path is shorter.
    Source: Freeman and Bruna (2017), theorem 2.4, with these departures: unless a network is given, the oracle is a
    part of one of the two networks; near-parallel rows are merged by moving output weight along a straight line, not by
    rotating rows, which ends in the same network and is convex. So the certified maximum is at most
    max(worse end, oracle's risk, risk of either end after merging into m - n units), and the last tends to that of the
    end as m grows (`merged` has the bound). Nothing in it needs s to be the rectifier: any entrywise one will do.

    Raises `InputError` when the network is not a chain of two linear layers, the loss is not one of those known to be
    convex in the outputs, or the oracle is a network of another kind.
    Cost: about 18 least-squares problems (squared loss) or minimisations by L-BFGS.
    """
    chain = Chain.of(problem.model, solver="the path of the two-layer theorem")
    if len(chain.layers) != 2:
        raise InputError(
            f"the path of the two-layer theorem needs one hidden layer, and the network has {len(chain.layers) - 1}",
            'give method="permute", "dynamic_string" or "bezier"',
        )
    if problem.per_sample.name not in NAMED:
        raise InputError(
            f"it is not known that the loss {problem.per_sample.name} is convex in the outputs",
            f"give one of {', '.join(sorted(NAMED))}",
        )
    fit = OuterFit(problem, chain)
    ends = [Layers(*(weight.cpu().double() for weight in Chain.of(each).weights())) for each in (a, b)]
    fit.level = max(fit.risk(end) for end in ends)
    if isinstance(oracle, nn.Module):
        stops, kinds = _by_way_of(_padded(oracle, chain, ends[0]), ends, fit)
    else:
        stops, kinds = _by_parts(oracle, ends, fit)
    states: list[State] = [_state(problem.model, stop) for stop in stops]
    # The given networks themselves, to the last digit.
    states[0], states[-1] = a.state_dict(), b.state_dict()
    legs = [Leg.line(one, other, kind) for one, other, kind in zip(states[:-1], states[1:], kinds, strict=True)]
    remark = "every leg is convex or constant: the maximum over all positions is the one at the beads"
    return Path.of("relu", problem, legs, data=data, points=points, remark=remark, **rest)


def _apart(one: Layers, other: Layers) -> float:
    squares = (one.rows - other.rows).square().sum() + (one.outer - other.outer).square().sum()
    return float(squares.sqrt())


def _by_parts(oracle: Sequence[int] | None, ends: list[Layers], fit: OuterFit) -> tuple[list[Layers], list[Kind]]:
    """Return stops and kinds of the best path whose oracle is a part of one of the two ends."""
    width = len(ends[0].rows)
    numbers = sorted({0, width // 4, width // 2} if oracle is None else set(oracle))
    if not all(0 <= n <= width for n in numbers):
        raise ValueError(f"oracle is {numbers}; give numbers of units from 0 to {width}")
    best: tuple[tuple[float, float], list[Layers], list[Kind]] | None = None
    for n in numbers:
        for swap in (False, True):
            giver, taker = ends[::-1] if swap else ends
            part, slots = fit.best(giver, n)
            stops, kinds = _moved(part, slots, taker, fit)
            stops, kinds = [giver, *stops], ["convex", *kinds]
            if swap:
                stops, kinds = stops[::-1], kinds[::-1]
            # Of those that go no higher than the worse end, up to rounding, the shortest.
            highest = max(fit.level * (1 + 1e-9), *(fit.risk(stop) for stop in stops))
            order = (highest, sum(_apart(one, other) for one, other in pairwise(stops)))
            if best is None or order < best[0]:
                best = (order, stops, kinds)
    assert best is not None
    return best[1], best[2]


def _by_way_of(oracle: tuple[Layers, list[int]], ends: list[Layers], fit: OuterFit) -> tuple[list[Layers], list[Kind]]:
    """Return stops and kinds of the path from one end to the oracle and on to the other."""
    (back, way_back), (on, way_on) = (_moved(*oracle, end, fit) for end in ends)
    return [*back[::-1], *on[1:]], [*way_back[::-1], *way_on]


def _padded(oracle: nn.Module, chain: Chain, end: Layers) -> tuple[Layers, list[int]]:
    """Return the oracle as a network as wide as `end`, other units with output weight 0; and the oracle's slots."""
    own = Chain.of(oracle, solver="the path of the two-layer theorem")
    rows, outer = (weight.cpu().double() for weight in own.weights()[:2]) if len(own.layers) == 2 else (None, None)
    width = len(end.rows)
    if (
        rows is None
        or outer is None
        or own.layers[0].activation.name != chain.layers[0].activation.name
        or [layer.bias for layer in own.layers] != [layer.bias for layer in chain.layers]
        or rows.shape[1] != end.rows.shape[1]
        or len(outer) != len(end.outer)
        or len(rows) > width
    ):
        raise InputError(
            "the oracle is a network of another kind than the two ends",
            f"give one of at most {width} hidden units, with the same inputs, activation, outputs and biases",
        )
    wide, weights = end.rows.clone(), end.outer.clone()
    wide[: len(rows)] = rows
    weights[:, :width] = 0
    weights[:, : len(rows)] = outer[:, : len(rows)]
    weights[:, width:] = outer[:, len(rows) :]
    return Layers(wide, weights), list(range(len(rows)))


def _moved(oracle: Layers, slots: list[int], taker: Layers, fit: OuterFit) -> tuple[list[Layers], list[Kind]]:
    """Return the stops from `oracle`, which uses the units in `slots` only, to `taker`, and the kinds of the legs."""
    width = len(taker.rows)
    kept, used = fit.best(taker, width - len(slots))
    free = [slot for slot in range(width) if slot not in used]
    # The oracle's units that already lie in a slot free on the other side stay; the others take what is left.
    moving = [slot for slot in slots if slot not in free]
    target = dict(zip(moving, [slot for slot in free if slot not in slots], strict=True))
    rows, outer = oracle.rows.clone(), oracle.outer.clone()
    stops = [oracle]
    for slot, place in target.items():
        rows[place] = oracle.rows[slot]
    stops.append(Layers(rows.clone(), outer.clone()))  # copies in slots of output weight 0
    for slot, place in target.items():
        outer[:, place] += outer[:, slot]
        outer[:, slot] = 0
    stops.append(Layers(rows.clone(), outer.clone()))  # a unit's weight shifted to its copy
    there = taker.rows.clone()
    there[free] = rows[free]
    stops.append(Layers(there, outer.clone()))  # rows of output weight 0
    stops += [Layers(there, kept.outer), kept, taker]
    return stops, ["constant", "constant", "constant", "convex", "constant", "convex"]


def _state(model: nn.Module, layers: Layers) -> State:
    model = copy.deepcopy(model)
    Chain.of(model).load([layers.rows, layers.outer])
    return model.state_dict()
