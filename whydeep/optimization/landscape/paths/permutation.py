"""Bringing the units of one network into the order of another's: permutations that leave the function as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating
from whydeep.core.randomness import or_default

from .profile import State
from .same_kind import check_same_kind
from .unit_sets import Units
from .units import Wiring, reordered, unfolded, wiring

Matching = Literal["weights", "activations"]
Cost = Callable[[int, dict[int, Tensor]], Tensor]


@dataclass(frozen=True)
class Aligned:
    """A network with its units in another order.

    model: computes the same function as before, in evaluation mode. state: its parameters and buffers.
    orders: for each set of units, new place -> old place (size,). moved: how many units changed places.
    agreement: sum over the weights of the inner product with the other network's, before and after.
    """

    model: nn.Module
    state: State
    orders: tuple[Tensor, ...]
    moved: int
    agreement: tuple[float, float]


def align(
    model: nn.Module,
    target: nn.Module,
    data: Data,
    *,
    by: Matching = "weights",
    samples: int = 256,
    sweeps: int = 50,
    starts: int = 3,
    generator: torch.Generator | None = None,
) -> Aligned:
    """Return `model` with its units in the order that is nearest to `target`'s; its function is the same.

    by "weights": maximises sum_w <w_target, P w_model> over the permutations P of all sets of units, one set after the
    other in random order, each by a linear assignment, until none improves (Ainsworth, Hayase and Srinivasa 2023,
    Git Re-Basin, algorithm 1). The best of `starts` ascents from the order given, by different random orders of the
    sets, and of one more from a start of its own: there each set is matched by what the orders of the others do not
    change, its units' weights sorted along all other free axes. (The inner product of two sorted vectors is the largest
    over all orders, so no set is judged before the others have found theirs; a shuffled copy is recognised at once.)
    A local maximum only, even so.
    by "activations": maximises for each set of units the summed correlation of their activations over at most `samples`
    samples of `data` and all places (Li et al. 2016; same paper, section 3.1), sorted along other free axes, such as
    the units of a head where heads are matched; no sweeps are needed.
    Which axes belong together is traced (`wiring`): chains, convolutions, batch norm, residual blocks (one order along
    the whole stream), attention (heads as wholes, and the units within all heads alike). No specification is given.

    Raises `InputError` when the networks are not of one kind (`check_same_kind`), when an operation is not known, or
    when the network with permuted units does not compute the same (checked on the samples, to 1e-9 in double and
    1e-3 in single precision of the largest output).
    Cost: one forward pass, then per sweep and set of m units O(m^3) and one product with the weights.
    """
    if by not in ("weights", "activations"):
        raise ValueError(f"unknown matching {by!r}; give weights or activations")
    if min(samples, sweeps, starts) < 1:
        raise ValueError(f"samples={samples}, sweeps={sweeps}, starts={starts}; give at least 1 of each")
    check_same_kind(target, model, data)
    generator = or_default(generator)
    x = data.x[torch.arange(min(samples if by == "activations" else 8, len(data)))]
    # Two networks of one kind are wired alike: the tensors of both runs correspond one by one.
    plan = wiring(model, x, keep=by == "activations")
    source, goal = model.state_dict(), target.state_dict()
    given = {id(units): torch.arange(units.size) for units in plan.free}
    before = _agreement(plan, source, goal, given)
    if by == "weights":
        cost = _weight_cost(plan, source, goal)
    else:
        cost, sweeps, starts = _activation_cost(plan, wiring(target, x, keep=True)), 1, 1

    def agreement(orders: dict[int, Tensor]) -> float:
        return _agreement(plan, source, goal, orders)

    watched = agreement if by == "weights" else None
    ascents = [_ascended(plan, cost, watched, given, sweeps, generator) for _ in range(starts)]
    if watched is not None and len(plan.free) > 1:
        recognised = _ascended(plan, _sorted_cost(plan, source, goal), None, given, 1, generator)
        ascents.append(_ascended(plan, cost, watched, recognised, sweeps, generator))
    orders = max(ascents, key=agreement)
    state = {name: reordered(value, plan.axes(name), orders) for name, value in source.items() if name in plan.layout}
    result = copy.deepcopy(model)
    result.load_state_dict({**source, **state})
    _check_same_function(model, result, x[:8])
    moved = sum(int((order != torch.arange(len(order))).sum()) for order in orders.values())
    return Aligned(
        result,
        result.state_dict(),
        tuple(orders[id(units)] for units in plan.free),
        moved,
        (before, _agreement(plan, source, goal, orders)),
    )


def _ascended(
    plan: Wiring,
    cost: Cost,
    agreement: Callable[[dict[int, Tensor]], float] | None,
    start: dict[int, Tensor],
    sweeps: int,
    generator: torch.Generator,
) -> dict[int, Tensor]:
    """Return orders that no linear assignment of a single set of units improves, found from `start` by sweeps."""
    orders = dict(start)
    for _ in range(sweeps):
        improved = False
        for index in torch.randperm(len(plan.free), generator=generator).tolist():
            gain = cost(index, orders)
            units = plan.free[index]
            _, best = linear_sum_assignment(gain.numpy(), maximize=True)
            order = torch.from_numpy(best)
            rows = torch.arange(units.size)
            rise = float(gain[rows, order].sum() - gain[rows, orders[id(units)]].sum())
            # Rounding alone must not keep the sweeps going.
            if rise <= 1e-9 * float(gain.abs().max()) * units.size:
                continue
            changed = {**orders, id(units): order}
            # Of a weight with these units along two axes the assignment sees one at a time: look at both.
            twice = any(sum(one is units for one in plan.axes(name)) > 1 for name in plan.layout)
            if agreement is None or not twice or agreement(changed) > agreement(orders):
                orders, improved = changed, True
        if not improved:
            break
    return orders


def _parameters(plan: Wiring, source: State) -> list[str]:
    # Running statistics are no weights; they follow the order that the weights get.
    return [
        name
        for name in plan.layout
        if name in source and source[name].is_floating_point() and "running_" not in name.rsplit(".", 1)[-1]
    ]


def _agreement(plan: Wiring, source: State, goal: State, orders: dict[int, Tensor]) -> float:
    total = 0.0
    for name in _parameters(plan, source):
        total += float((reordered(source[name], plan.axes(name), orders).double() * goal[name].double()).sum())
    return total


def _weight_cost(plan: Wiring, source: State, goal: State) -> Cost:
    names = _parameters(plan, source)

    def cost(index: int, orders: dict[int, Tensor]) -> Tensor:
        units = plan.free[index]
        total = torch.zeros(units.size, units.size, dtype=torch.float64)
        for name in names:
            axes = plan.axes(name)
            for axis, one in enumerate(axes):
                if one is units:
                    # Along a second axis with the same units their present order stands in.
                    moved = reordered(source[name], axes, orders, but=axis)
                    total += _gram(unfolded(goal[name], axes, axis), unfolded(moved, axes, axis))
        return total

    return cost


def _sorted_cost(plan: Wiring, source: State, goal: State) -> Cost:
    """Return the agreement of each pair of units if every other set of units were in its best order for that pair."""
    names = _parameters(plan, source)

    def cost(index: int, _orders: dict[int, Tensor]) -> Tensor:
        units = plan.free[index]
        total = torch.zeros(units.size, units.size, dtype=torch.float64)
        for name in names:
            axes = plan.axes(name)
            for axis, one in enumerate(axes):
                if one is units:
                    total += _gram(_sorted(goal[name], axes, axis), _sorted(source[name], axes, axis))
        return total

    return cost


def _sorted(value: Tensor, axes: list[Units], axis: int) -> Tensor:
    """Return a matrix with the units of axis number `axis` as rows, each sorted along all other free axes together."""
    fixed = [k for k, one in enumerate(axes) if one.fixed]
    free = [k for k, one in enumerate(axes) if not one.fixed and k != axis]
    wide = value.reshape([one.size for one in axes]).permute(axis, *fixed, *free)
    if free:
        wide = wide.flatten(1 + len(fixed)).sort(-1).values
    return wide.reshape(len(wide), -1)


def _gram(first: Tensor, second: Tensor) -> Tensor:
    return (first.double() @ second.double().T).cpu()


def _activation_cost(plan: Wiring, other: Wiring) -> Cost:
    costs = []
    for units in plan.free:
        total = torch.zeros(units.size, units.size, dtype=torch.float64)
        for (mine, axes), (theirs, _) in zip(plan.seen, other.seen, strict=True):
            flat = [each for axis in axes for each in axis]
            for axis, each in enumerate(flat):
                if each is units:
                    # Other sets of units along the same tensor are not aligned yet: sorted, it does not depend on them.
                    total += _gram(_standard(_sorted(theirs, flat, axis)), _standard(_sorted(mine, flat, axis)))
        costs.append(total)
    return lambda index, orders: costs[index]


def _standard(rows: Tensor) -> Tensor:
    """Return rows with mean 0 and length 1; a row without variance is zero."""
    rows = rows.double() - rows.double().mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length.clamp_min(1e-300), 0.0)


def _check_same_function(model: nn.Module, permuted: nn.Module, x: Tensor) -> None:
    with evaluating(model), evaluating(permuted), torch.no_grad():
        one, other = model(x).double(), permuted(x).double()
    # Sums are taken in another order: a few hundred roundings of the largest output.
    tolerance = 1e-9 if next(model.parameters()).dtype == torch.float64 else 1e-3
    if float((one - other).abs().max()) > tolerance * max(1.0, float(one.abs().max())):
        raise InputError(
            "the network with permuted units computes something else", 'give method="line"; its units are not symmetric'
        )
