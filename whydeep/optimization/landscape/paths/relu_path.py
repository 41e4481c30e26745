"""The constructive path of the two-layer theorem: convex and constant legs, so that its ends say how high it gets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import scipy.linalg
import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.loss import NAMED
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain

from .leg import Kind, Leg, Path
from .profile import State


@dataclass(frozen=True)
class Layers:
    """rows (m, d + 1): weights and bias of each hidden unit; outer (k, m + 1): output weights and bias."""

    rows: Tensor
    outer: Tensor


def through_relu_layer(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    oracle: Sequence[int] | None = None,
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
    with the smallest certified maximum is taken, the shortest where several need no more than the worse end. Which
    units are kept: those of largest output weight times root mean square of the unit, or those that pivoted QR finds
    most independent, whichever fits better. "Best" is as good as the worse end where that can be reached, no better:
    the path is shorter.
    Source: Freeman and Bruna (2017), theorem 2.4, with these departures: the oracle is a part of one of the two
    networks (theirs is the best network with n units at all), and near-parallel rows are not merged by rotating them.
    Nothing in it needs s to be the rectifier: any entrywise activation will do.

    Raises `InputError` when the network is not a chain of two linear layers, or the loss is not one of those known to
    be convex in the outputs. Cost: about 12 least-squares problems (squared loss) or minimisations by L-BFGS.
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
    fit = _Fit(problem, chain)
    ends = [Layers(*(weight.cpu().double() for weight in Chain.of(each).weights())) for each in (a, b)]
    fit.level = max(fit.risk(end) for end in ends)
    width = len(ends[0].rows)
    numbers = sorted({0, width // 4, width // 2} if oracle is None else set(oracle))
    if not all(0 <= n <= width for n in numbers):
        raise ValueError(f"oracle is {numbers}; give numbers of units from 0 to {width}")
    best: tuple[tuple[float, float], bool, list[Layers], list[Kind]] | None = None
    for n in numbers:
        for swap in (False, True):
            giver, taker = ends[::-1] if swap else ends
            stops, kinds = _between(giver, taker, n, fit)
            # Of those that go no higher than the worse end, up to rounding, the shortest.
            highest = max(fit.level * (1 + 1e-9), *(fit.risk(stop) for stop in stops))
            order = (highest, sum(_apart(one, other) for one, other in pairwise(stops)))
            if best is None or order < best[0]:
                best = (order, swap, stops, kinds)
    assert best is not None
    _, swap, stops, kinds = best
    if swap:
        stops, kinds = stops[::-1], kinds[::-1]
    states: list[State] = [_state(problem.model, stop) for stop in stops]
    # The given networks themselves, to the last digit.
    states[0], states[-1] = a.state_dict(), b.state_dict()
    legs = [Leg.line(one, other, kind) for one, other, kind in zip(states[:-1], states[1:], kinds, strict=True)]
    remark = "every leg is convex or constant: the maximum over all positions is the one at the beads"
    return Path.of("relu", problem, legs, data=data, points=points, remark=remark, **rest)


def _apart(one: Layers, other: Layers) -> float:
    squares = (one.rows - other.rows).square().sum() + (one.outer - other.outer).square().sum()
    return float(squares.sqrt())


class _Fit:
    """The risk of two-layer networks and the best output weights for given units, in double precision."""

    def __init__(self, problem: Problem, chain: Chain) -> None:
        self._problem = problem
        self._activation: Callable[[Tensor], Tensor] = chain.layers[0].activation.value
        self.level = 0.0  # what the risk need not fall below
        self._bias = (chain.layers[0].bias, chain.layers[1].bias)
        # The decompositions run on the processor, wherever the network is.
        self._x = chain.rows(problem.train).cpu()
        self._y = problem.train.targets.cpu()

    def units(self, layers: Layers) -> Tensor:
        """Return what the output weights multiply, (n, m) or with a last column of ones (n, m + 1)."""
        x = torch.cat([self._x, torch.ones_like(self._x[:, :1])], 1) if self._bias[0] else self._x
        hidden = self._activation(x @ layers.rows.T)
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1) if self._bias[1] else hidden

    def risk(self, layers: Layers) -> float:
        """Return the training risk."""
        return float(self._risk(self.units(layers), layers.outer))

    def _risk(self, units: Tensor, outer: Tensor) -> Tensor:
        y = self._y.double() if self._y.is_floating_point() else self._y
        return self._problem.per_sample(units @ outer.T, y).mean()

    def best(self, layers: Layers, size: int) -> tuple[Layers, list[int]]:
        """Return the network refitted with `size` of its units (the others have output weight 0), and which."""
        units = self.units(layers)
        width = len(layers.rows)
        strength = units[:, :width].square().mean(0).sqrt() * layers.outer[:, :width].norm(dim=0)
        candidates = [strength.argsort(descending=True)[:size].tolist()]
        if 0 < size < width:
            _, pivots = scipy.linalg.qr(units[:, :width].numpy(), mode="r", pivoting=True)
            candidates.append(pivots[:size].tolist())
        fitted = [(self._refit(units, layers.outer, sorted(chosen)), sorted(chosen)) for chosen in candidates]
        outer, chosen = min(fitted, key=lambda pair: float(self._risk(units, pair[0])))
        return Layers(layers.rows, outer), chosen

    def _refit(self, units: Tensor, outer: Tensor, chosen: list[int]) -> Tensor:
        columns = [*chosen, *range(units.shape[1] - self._bias[1], units.shape[1])]
        result = torch.zeros_like(outer)
        if not columns:
            return result
        start = outer[:, columns]
        if self._problem.per_sample.name == "squared":
            y = self._y
            target = y.double() if y.is_floating_point() else torch.nn.functional.one_hot(y, len(outer)).double()
            # Directions below 1e-6 of the largest are left out: weights that only noise asks for would be huge.
            fit = torch.linalg.lstsq(units[:, columns], target.flatten(1), rcond=1e-6, driver="gelsd").solution.T
        else:
            fit = self._descend(units[:, columns], start)
        result[:, columns] = self._shortened(units[:, columns], start, fit)
        return result

    def _shortened(self, units: Tensor, start: Tensor, fit: Tensor) -> Tensor:
        """Return the first point on the way from `start` to `fit` whose risk is at most the level, else the lower end.

        The risk is convex on the way, so that halving the interval finds it; it keeps the path short.
        """
        low, high = 0.0, 1.0
        if float(self._risk(units, fit)) > self.level:
            # Whatever the solver did: it may not be worse than what was there.
            return fit if float(self._risk(units, fit)) <= float(self._risk(units, start)) else start
        if float(self._risk(units, start)) <= self.level:
            return start
        for _ in range(20):
            middle = (low + high) / 2
            reached = float(self._risk(units, torch.lerp(start, fit, middle))) <= self.level
            low, high = (low, middle) if reached else (middle, high)
        return torch.lerp(start, fit, high)

    def _descend(self, units: Tensor, start: Tensor) -> Tensor:
        weights = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weights], max_iter=100, history_size=20, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            with torch.enable_grad():
                loss = self._risk(units, weights)
                (weights.grad,) = torch.autograd.grad(loss, [weights])
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        fit = weights.detach()
        return fit if bool(torch.isfinite(fit).all()) else start


def _between(giver: Layers, taker: Layers, n: int, fit: _Fit) -> tuple[list[Layers], list[Kind]]:
    """Return the stops from `giver`, n units of which are the oracle, to `taker`, and what each leg is."""
    width = len(giver.rows)
    oracle, slots = fit.best(giver, n)
    kept, used = fit.best(taker, width - n)
    free = [slot for slot in range(width) if slot not in used]
    # The oracle's units that already lie in a slot free on the other side stay; the others take what is left.
    moving = [slot for slot in slots if slot not in free]
    target = dict(zip(moving, [slot for slot in free if slot not in slots], strict=True))
    rows, outer = giver.rows.clone(), oracle.outer.clone()
    stops, kinds = [giver, oracle], ["convex"]
    for slot, place in target.items():
        rows[place] = giver.rows[slot]
    stops.append(Layers(rows.clone(), outer.clone()))  # copies in slots of output weight 0
    for slot, place in target.items():
        outer[:, place] += outer[:, slot]
        outer[:, slot] = 0
    stops.append(Layers(rows.clone(), outer.clone()))  # a unit's weight shifted to its copy
    there = taker.rows.clone()
    there[free] = rows[free]
    stops.append(Layers(there, outer.clone()))  # rows of output weight 0
    stops += [Layers(there, kept.outer), kept, taker]
    kinds += ["constant", "constant", "constant", "convex", "constant", "convex"]
    return stops, kinds  # type: ignore[return-value]  # the words are those of Kind


def _state(model: nn.Module, layers: Layers) -> State:
    model = copy.deepcopy(model)
    Chain.of(model).load([layers.rows, layers.outer])
    return model.state_dict()
