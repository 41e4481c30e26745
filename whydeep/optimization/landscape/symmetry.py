"""Invariances F(theta) = F(g theta): found by tracing, checked by running, and the flat directions they explain."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating
from whydeep.core.exhibit import Table
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default

from .paths.unit_sets import Units
from .paths.units import Wiring, reordered, wiring

Kind = Literal["permutation", "sign", "rescaling", "general linear", "shift of the outputs"]

MEMORY = 2_000_000_000
"""Bytes that the tangents of one group may take."""

WHAT = {
    "permutation": "the units in any order",
    "sign": "a unit and its outgoing weights with the other sign",
    "rescaling": "a unit times c > 0, its outgoing weights times 1/c",
    "general linear": "the units times an invertible matrix, their outgoing weights times its inverse",
    "shift of the outputs": "the same vector added to the weights of every output",
}


@dataclass(frozen=True)
class Invariance:
    """A group that acts on the weights and leaves every sample's loss as it is.

    units: how many units it acts on. weights: names of the weights that it moves. deviation: the largest change of a
    loss that was seen under a random element, over the largest loss. tangents: directions (q, p) along which the group
    moves the weights, one for each dimension of the group, in the order of `Problem.vector`; (0, p) for finite groups.
    everywhere: whether the risk is flat along the tangents at every theta, to all orders; the orbits of the other
    groups are curved, and their tangents are zero modes of the Hessian where the gradient vanishes.
    """

    kind: Kind
    units: int
    weights: tuple[str, ...]
    deviation: float
    tangents: Tensor = field(repr=False)

    @property
    def everywhere(self) -> bool:
        """Whether the orbits are straight lines, so that the Hessian has these zero modes at every theta."""
        return self.kind == "shift of the outputs"


@dataclass(frozen=True)
class Symmetries:
    """The invariances that were found, and how many zero modes of the Hessian they explain at a critical point.

    zero_modes: rank of all tangents together, the dimension of the orbit through theta: so many eigenvalues of the
    Hessian are zero at a critical point for this reason alone. log10_orders: log10 of the number of permutations.
    """

    found: tuple[Invariance, ...]
    zero_modes: int
    log10_orders: float
    parameters: int

    def tangents(self) -> Tensor:
        """Return all tangents, (q, p)."""
        return torch.cat([each.tangents for each in self.found])

    def table(self) -> Table:
        """Return one row an invariance."""
        rows = tuple(
            (each.kind, WHAT[each.kind], each.units, ", ".join(each.weights), len(each.tangents)) for each in self.found
        )
        return Table(
            "What leaves the loss as it is",
            ("group", "what it does", "units", "weights", "dimensions"),
            rows,
            f"Together they explain {self.zero_modes:,} zero curvatures of {self.parameters:,} at critical points, and "
            f"10^{self.log10_orders:.0f} copies of every solution by permutations.",
        )


def symmetry(problem: Problem, *, samples: int = 32, generator: torch.Generator | None = None) -> Symmetries:
    """Find invariances of the loss in the weights, check each by random elements, and count what they explain.

    Candidates come from the wiring of the network (`wiring`): every set of units whose order is free may be permuted;
    if the network carries the factor through (rectifiers, linear units, pooling), each unit may be rescaled, c > 0, or,
    for odd activations, change sign; if there is nothing between two linear maps, the units may be mixed by any
    invertible matrix, GL(m); and all outputs may be shifted together where the loss does not notice (cross-entropy).
    A candidate is kept when the loss of each of at most `samples` training samples, in evaluation mode, stays within
    rounding: 1e-8 in double precision, 1e-3 in single, of the largest loss (the change itself is a factor of up to 2).
    Incoming weights of a unit behind batch norm are not scaled along, its own weight and bias are.

    Not searched: symmetries at one theta only (dead units), of the data, of attention's queries against keys.
    Raises `InputError` when the network has an operation whose treatment of units is not known, and when the tangents
    of a general linear group would take more than 2 GB; the size that fits is said.
    Cost: about 4 forward passes a set of units, memory of one vector (p,) a dimension; of GL(m) m^2 vectors.

    >>> from whydeep.core.data import Data
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    >>> data = Data(torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    >>> found = symmetry(Problem(model, data, loss="squared"))
    >>> [each.kind for each in found.found], found.zero_modes
    (['permutation', 'rescaling'], 3)
    """
    generator = or_default(generator)
    few = problem.train.take(torch.arange(min(samples, len(problem.train)))).in_memory()
    assert isinstance(few.x, Tensor)
    model = copy.deepcopy(problem.model)
    plan = wiring(model, few.x[:4])
    run = _Run(problem, model, few.x, few.targets)
    found: list[Invariance] = []
    for units in plan.free:
        found += _of_units(units, plan, run, generator)
    found += _shifts(plan, run, generator)
    orders = sum(math.lgamma(each.units + 1) for each in found if each.kind == "permutation") / math.log(10)
    total = torch.cat([each.tangents for each in found]) if found else torch.empty(0, run.size)
    return Symmetries(tuple(found), _rank(total), orders, run.size)


class _Run:
    """Losses of the samples at changed weights."""

    def __init__(self, problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self._problem, self._model, self._x, self._y = problem, model, x, y
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.trainable = [name for name, value in model.named_parameters() if value.requires_grad]
        self.size = sum(self.state[name].numel() for name in self.trainable)
        self._losses = self._at(self.state)
        self.tolerance = 1e-8 if self._losses.dtype == torch.float64 else 1e-3

    def _at(self, state: dict[str, Tensor]) -> Tensor:
        self._model.load_state_dict(state)
        with evaluating(self._model), torch.no_grad():
            return self._problem.per_sample(self._model(self._x), self._y)

    def deviation(self, changed: dict[str, Tensor]) -> float:
        """Return the largest change of a loss over the largest loss."""
        losses = self._at(self.state | changed)
        scale = max(float(self._losses.abs().max()), torch.finfo(losses.dtype).tiny)
        # A loss of zero has no scale of its own: outputs of size one make a loss of one half.
        return float((losses - self._losses).abs().max()) / max(scale, 1e-3)

    def vector(self, moved: dict[str, Tensor]) -> Tensor:
        """Return a tangent (p,) from its parts; what does not move is zero."""
        parts = [moved.get(name, torch.zeros_like(self.state[name])) for name in self.trainable]
        return torch.cat([part.reshape(-1) for part in parts]).double()


def _of_units(units: Units, plan: Wiring, run: _Run, generator: torch.Generator) -> list[Invariance]:
    owners = tuple(name for name in plan.owners(units) if name in run.trainable)
    none = torch.empty(0, run.size, dtype=torch.float64)
    found: list[Invariance] = []
    order = {id(units): torch.randperm(units.size, generator=generator)}
    changed = {name: reordered(run.state[name], plan.axes(name), order) for name in plan.owners(units)}
    deviation = run.deviation(changed)
    if deviation <= run.tolerance:
        found.append(Invariance("permutation", units.size, owners, deviation, none))
    exponents = _exponents(units, plan, run)
    signs = torch.randint(2, (units.size,), generator=generator) * 2.0 - 1
    signs[0] = -1  # at least one unit changes its sign
    deviation = run.deviation(_scaled(units, plan, run, exponents, signs))
    odd = deviation <= run.tolerance
    if odd:
        found.append(Invariance("sign", units.size, owners, deviation, none))
    factors = torch.exp2(2 * torch.rand(units.size, generator=generator) - 1)
    deviation = run.deviation(_scaled(units, plan, run, exponents, factors))
    if deviation > run.tolerance:
        return found
    # Units that may be both scaled and mixed need not be listed twice: the diagonal matrices are in GL(m).
    matrix = torch.eye(units.size) + 0.5 * torch.randn(units.size, units.size, generator=generator) / units.size**0.5
    mixed = run.deviation(_mixed(units, plan, run, exponents, matrix))
    if odd and mixed <= run.tolerance:
        needed = units.size**2 * run.size * 8
        if needed > MEMORY:
            raise InputError(
                f"the invertible matrices of {units.size} linear units have {units.size**2:,} directions of "
                f"{run.size:,} weights, {needed / 1e9:.0f} GB",
                f"give a network with at most {math.isqrt(MEMORY // (8 * run.size))} linear units a layer",
            )
        tangents = [
            run.vector(_generator(units, plan, run, exponents, i, j))
            for i in range(units.size)
            for j in range(units.size)
        ]
        found.append(Invariance("general linear", units.size, owners, mixed, torch.stack(tangents)))
    else:
        tangents = [run.vector(_generator(units, plan, run, exponents, i, i)) for i in range(units.size)]
        found.append(Invariance("rescaling", units.size, owners, deviation, torch.stack(tangents)))
    return found


def _exponents(units: Units, plan: Wiring, run: _Run) -> dict[str, list[int]]:
    """Return for each weight the power of a unit's factor along each of its axes: 1 where it is made, -1 where used."""
    owners = plan.owners(units)
    # Behind batch norm the scale of what comes in is undone; the norm's own weight and bias make the unit.
    normed = {name.rpartition(".")[0] for name in owners if name.endswith("running_var")}
    result = {}
    for name in owners:
        if name not in run.trainable:
            continue
        powers = []
        for axis, parts in enumerate(plan.layout[name]):
            used = plan.summed[name][axis]
            made = not used and (not normed or name.rpartition(".")[0] in normed)
            powers += [(-1 if used else int(made)) if one is units else 0 for one in parts]
        result[name] = powers
    return result


def _scaled(
    units: Units, plan: Wiring, run: _Run, exponents: dict[str, list[int]], factors: Tensor
) -> dict[str, Tensor]:
    changed = {}
    for name, powers in exponents.items():
        wide = run.state[name].reshape([one.size for one in plan.axes(name)])
        for axis, power in enumerate(powers):
            if power:
                shape = [-1 if k == axis else 1 for k in range(wide.ndim)]
                wide = wide * factors.to(wide).pow(power).reshape(shape)
        changed[name] = wide.reshape(run.state[name].shape)
    return changed


def _mixed(units: Units, plan: Wiring, run: _Run, exponents: dict[str, list[int]], matrix: Tensor) -> dict[str, Tensor]:
    """Return the weights with the units that are made times `matrix`, and used by its inverse."""
    inverse = torch.linalg.inv(matrix.double()).T
    changed = {}
    for name, powers in exponents.items():
        wide = run.state[name].reshape([one.size for one in plan.axes(name)])
        for axis, power in enumerate(powers):
            if power:
                acting = (matrix if power > 0 else inverse).to(wide)
                wide = torch.tensordot(acting, wide, dims=([1], [axis])).movedim(0, axis)
        changed[name] = wide.reshape(run.state[name].shape)
    return changed


def _generator(
    units: Units, plan: Wiring, run: _Run, exponents: dict[str, list[int]], i: int, j: int
) -> dict[str, Tensor]:
    """Return d/ds of the weights under exp(s E_ij) at s = 0: made unit i gains unit j, used unit j loses unit i."""
    moved = {}
    for name, powers in exponents.items():
        wide = run.state[name].reshape([one.size for one in plan.axes(name)])
        total = torch.zeros_like(wide)
        for axis, power in enumerate(powers):
            if power:
                to, of = (i, j) if power > 0 else (j, i)
                total.select(axis, to).add_(wide.select(axis, of), alpha=power)
        moved[name] = total.reshape(run.state[name].shape)
    return moved


def _shifts(plan: Wiring, run: _Run, generator: torch.Generator) -> list[Invariance]:
    """Return for each weight that makes the outputs whether the loss notices one vector added to all of them."""
    found = []
    for name in run.trainable:
        axes = plan.axes(name)
        places = [axis for axis, units in enumerate(axes) if any(units is one for one in plan.outputs)]
        if len(plan.outputs) != 1 or len(places) != 1 or plan.summed[name][0]:
            continue
        value = run.state[name].reshape([one.size for one in axes])
        shape = [1 if axis == places[0] else one.size for axis, one in enumerate(axes)]
        added = torch.randn(shape, generator=generator).to(value) * value.std().clamp_min(0.1)
        deviation = run.deviation({name: (value + added).reshape(run.state[name].shape)})
        if deviation > run.tolerance:
            continue
        tangents = []
        for k in range(added.numel()):
            unit = torch.zeros(added.numel()).index_fill_(0, torch.tensor([k]), 1.0).to(value).reshape(shape)
            tangents.append(run.vector({name: unit.expand_as(value).reshape(run.state[name].shape)}))
        found.append(
            Invariance("shift of the outputs", plan.outputs[0].size, (name,), deviation, torch.stack(tangents))
        )
    return found


def _rank(tangents: Tensor) -> int:
    """Return the number of independent tangents."""
    if not len(tangents):
        return 0
    length = tangents.norm(dim=1, keepdim=True)
    moving = tangents[length[:, 0] > 0] / length[length[:, 0] > 0]
    # Squares of singular values: 1e-10 of the largest is a singular value of 1e-5, far above rounding of weights that
    # were computed in double precision and far below those of independent directions.
    values = torch.linalg.eigvalsh(moving @ moving.T)
    return int((values > 1e-10 * values[-1]).sum()) if len(values) else 0
