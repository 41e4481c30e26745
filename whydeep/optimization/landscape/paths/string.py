"""Dynamic string sampling: a polygon of trained networks between two solutions, refined where the risk is too high."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver
from whydeep.optimization.backprop import Backprop

from .leg import Path
from .profile import State, along, between


def strung(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    level: float | None = None,
    alpha: float = 0.8,
    insert: Literal["highest", "middle"] = "highest",
    most: int = 16,
    looks: int = 9,
    solver: Solver | None = None,
    trainings: int = 40,
    generator: torch.Generator | None = None,
    data: Data | None = None,
    points: int = 9,
    refinements: int = 0,
    recompute_statistics: bool = True,
) -> Path:
    """Return a polygon between two networks on which the training risk is at most `level` wherever it was looked at.

    Freeman and Bruna (2017), algorithm 1 (Dynamic String Sampling): while a segment exceeds the level L0, a bead is put
    on it, trained to a risk of alpha L0, alpha < 1, and both halves are looked at in turn.
    level: L0, by default the larger risk of the two ends. insert: where the bead starts, at the "highest" of the
    `looks` positions inside the segment or in its "middle" (more stable, more beads; both are in the paper).
    most: beads at most. solver: trains a bead, again and again up to `trainings` times until its risk is at most
    alpha L0; by default Adam at 1e-3, one pass at a time, which stops there.
    Departures: the level of the paper is one that both ends were trained to; here it is given or taken from the ends.

    `connected` is whether every segment passed; that certifies the path at the positions looked at only, and a failure
    proves nothing: another path may exist. The remark tells how it ended.
    Raises `ValueError` when alpha lies outside (0, 1), or the level is not above zero or below the risk of an end.
    Cost: looks + 2 passes a segment, and the trainings; the number of beads may grow exponentially with depth.
    """
    generator = or_default(generator)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; give a number in (0, 1)")
    worse = max(problem.with_model(end).risk() for end in (a, b))
    level = worse if level is None else level
    # The ends' risks are sums in another order when they are taken along the path: a rounding is no rise.
    if not level > 0 or worse > level * (1 + 1e-9):
        raise ValueError(f"the level is {level:g} and the worse end has risk {worse:g}; give a level above both")
    if insert not in ("highest", "middle"):
        raise ValueError(f"insert is {insert!r}; give highest or middle")
    solver = Backprop(torch.optim.Adam, lr=1e-3, epochs=1, goal=alpha * level) if solver is None else solver
    beads: list[State] = [a.state_dict(), b.state_dict()]
    passed, spent = 0, 0
    remark = ""
    while passed < len(beads) - 1:
        ends = (beads[passed], beads[passed + 1])
        profile = along(
            problem,
            partial(between, *ends),
            positions=looks + 2,
            refinements=refinements,
            recompute_statistics=recompute_statistics,
        )
        # Single precision sums the same losses to seven digits.
        if profile.highest <= level * (1 + 1e-6):
            passed += 1
            continue
        if len(beads) - 2 >= most:
            remark = f"a segment still reached {profile.highest:.3g} when {most} beads were spent"
            break
        start = 0.5 if insert == "middle" else float(profile.positions[1:-1][profile.risk[1:-1].argmax()])
        bead, risk, used = _trained(problem, between(*ends, start), alpha * level, solver, trainings, generator)
        spent += used
        if risk > level:
            remark = f"a bead stayed at {risk:.3g} after {used} trainings"
            break
        beads.insert(passed + 1, bead)
    connected = passed == len(beads) - 1
    found = f"{len(beads) - 2} beads, {spent} trainings, level {level:.3g}"
    return Path.through(
        "dynamic_string",
        problem,
        beads,
        data=data,
        points=points,
        refinements=refinements,
        recompute_statistics=recompute_statistics,
        connected=connected,
        remark=found if connected else f"{found}; {remark}",
    )


def _trained(
    problem: Problem, start: State, goal: float, solver: Solver, trainings: int, generator: torch.Generator
) -> tuple[State, float, int]:
    """Train a bead until its risk is at most `goal`; return the best one with its risk and how often it was trained."""
    model: Any = problem.copy()
    model.load_state_dict(start)
    best, least = model, problem.with_model(model).risk()
    used = 0
    while least > goal and used < trainings:
        training = solver.train(problem.with_model(model), generator=spawn(generator))
        used += 1
        if training.outcome.diverged:
            break
        model = training.model
        risk = problem.with_model(model).risk()
        if risk < least:
            best, least = model, risk
    return best.state_dict(), least, used
