"""Two trainings from different starts: is there a valley between their solutions, straight, matched or bent?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.exhibit import Cell, Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.optimization.landscape.paths.learned import learned, too_little
from whydeep.optimization.landscape.paths.leg import Path
from whydeep.optimization.landscape.paths.path import path
from whydeep.optimization.landscape.paths.profile import Profile, along

CONNECTED = 0.02
"""Joined by a path when its barrier is at most this fraction of what the network has learned."""

KINDS = {"straight": "straight line", "matched": "units matched", "bent": "bent"}


@dataclass(frozen=True)
class Pair:
    """The paths between the given solution and a new one, by kind, with the risk along each, by data set."""

    paths: dict[str, Path]
    profiles: dict[tuple[str, str], Profile]
    refusal: str = ""


def applies(subject: Subject) -> str | None:
    """Return why there is no second solution, or None."""
    if subject.factory is None:
        return "a second solution needs a factory that makes a fresh network; only one instance was given"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train again from fresh starts and follow three paths from the given solution to each new one."""
    problem = subject.problem
    part = problem.train.subsample(budget["retraining"], spawn(generator))
    data = {"training": problem.train.subsample(budget["samples"], spawn(generator)).in_memory()}
    if problem.test is not None:
        data["test"] = problem.test.subsample(budget["samples"], spawn(generator)).in_memory()
    # Where batch norm needs its statistics anew at every position, the training samples looked at provide them.
    local = Problem(problem.model, data["training"], data.get("test"), problem.loss)
    pairs = []
    for _ in range(budget["solutions"]):
        fresh = Problem(subject.fresh(spawn(generator)), part, None, problem.loss)
        again = subject.solver.train(fresh, generator=spawn(generator))
        if again.outcome.diverged:
            raise InputError(f"the second training diverged: {again.outcome.reason}", "give a smaller step size")
        pairs.append(_between(local, again.model, data, budget, spawn(generator)))
    measurements = []
    for kind in pairs[0].paths:
        for name in data:
            barriers = [pair.profiles[kind, name].barrier for pair in pairs]
            measurements.append(_over_pairs(_name(kind, name), barriers))
    measurements.append(
        exact("learned risk", learned(local), method="risk of the best constant guess minus the risk, training data")
    )
    measurements.append(exact("risk", local.risk(), method="of the given solution, training data"))
    if problem.train.classes is not None:
        for name in data:
            bumps = [_error_bump(pair.profiles["straight", name]) for pair in pairs]
            unit, method = "fraction", f"largest of {len(bumps)} lines"
            measurements.append(exact(f"error barrier on {name} data", max(bumps), unit=unit, method=method))
    curves = [_curve(pairs, "risk", "training")]
    if problem.train.classes is not None:
        curves.append(_curve(pairs, "error", "test" if "test" in data else "training"))
    trained = "all training samples" if len(part) == len(problem.train) else f"{len(part):,} training samples"
    notes = [f"The new solutions were trained on {trained} from their own starts."]
    notes += [f"The units were not matched: {pairs[0].refusal}."] if pairs[0].refusal else []
    table = Table(
        "Paths between two solutions",
        ("pair", "path", "data", "risk at the given end", "risk at the new end", "barrier", "at position", "length"),
        tuple(_row(n + 1, pair, kind, name) for n, pair in enumerate(pairs) for kind in pair.paths for name in data),
        " ".join(notes) + " Length: of the path, in straight distances between the two.",
    )
    return Observation(tuple(measurements), (*curves, table))


def _between(
    local: Problem, other: nn.Module, data: dict[str, Data], budget: Budget, generator: torch.Generator
) -> Pair:
    look: dict[str, Any] = {"points": 11, "refinements": budget["refinements"]}
    paths = {"straight": path(local, local.model, other, **look)}
    refusal = ""
    try:
        paths["matched"] = path(local, local.model, other, method="permute", generator=spawn(generator), **look)
    except InputError as fault:
        refusal = fault.reason
    steps = budget["bending"]
    paths["bent"] = path(local, local.model, other, method="bezier", steps=steps, generator=spawn(generator), **look)
    profiles = {(kind, "training"): found.profile for kind, found in paths.items()}
    for name, each in data.items():
        if name != "training":
            for kind, found in paths.items():
                profiles[kind, name] = along(
                    local, found.at, data=each, positions=11, refinements=budget["refinements"]
                )
    return Pair(paths, profiles, refusal)


def _name(kind: str, data: str) -> str:
    return {
        "straight": f"barrier on {data} data",
        "matched": f"barrier with matched units on {data} data",
        "bent": f"barrier of a bent path on {data} data",
    }[kind]


def _over_pairs(name: str, barriers: list[Measurement]) -> Measurement:
    """Return the one barrier under its name, or the mean over several pairs of solutions."""
    if len(barriers) > 1:
        values = [barrier.value for barrier in barriers]
        return mean(name, values, method=f"Student, {len(values)} pairs of solutions", evaluations=len(values))
    (one,) = barriers
    return Measurement(name, one.value, one.low, one.high, method=one.method, evaluations=1)


def _error_bump(profile: Profile) -> float:
    assert profile.error is not None
    return float((profile.error - torch.lerp(profile.error[0], profile.error[-1], profile.positions)).max())


def _row(number: int, pair: Pair, kind: str, name: str) -> tuple[Cell, ...]:
    profile = pair.profiles[kind, name]
    barrier = profile.barrier.value
    ends = (float(profile.risk[0]), float(profile.risk[-1]))
    at = profile.summit if barrier > 0 else None
    return (number, KINDS[kind], name, *ends, barrier, at, pair.paths[kind].length)


def _curve(pairs: list[Pair], what: str, name: str) -> Curve:
    lines = []
    for index, pair in enumerate(pairs):
        for kind in pair.paths:
            profile = pair.profiles[kind, name]
            values = profile.risk if what == "risk" else profile.error
            label = KINDS[kind] if len(pairs) == 1 else f"{KINDS[kind]} {index + 1}"
            assert values is not None
            lines.append(Line(label, profile.positions.tolist(), values.tolist()))
    first = lines[0].y
    lines.append(Line("no barrier", [0.0, 1.0], [first[0], first[-1]], role="reference"))
    reached = ", ".join(f"{plain(max(line.y), 2)} ({line.label})" for line in lines[: len(pairs[0].paths)])
    low = max(max(line.y[0], line.y[-1]) for line in lines)
    return Curve(
        f"{what.capitalize()} between two solutions, {name} data",
        "position between the solutions, by distance travelled",
        "risk" if what == "risk" else "misclassified fraction",
        tuple(lines),
        alt=f"From the given solution to a new one the {what} reaches {reached}; at the ends it is at most "
        f"{plain(low, 2)}.",
    )


def answer(seen: Observation) -> Answer:
    """Compare the barriers on the training data with what the network has learned: straight, matched, bent."""
    line, removed = seen["barrier on training data"], seen["learned risk"].value
    if too_little(removed, seen["risk"].value):
        sentence = (
            f"The straight line between two trainings costs {plain(line.value, 2)}, but neither learned anything."
        )
        return Answer(sentence, "nothing learned", "caution", line.name)
    share = f"{plain(100 * line.value / removed, 2)} % of what was learned"
    if line.high <= CONNECTED * removed:
        sentence = f"Two trainings are joined by a straight line that costs {plain(line.value, 2)} in risk, {share}."
        return Answer(sentence, "connected by a line", "good", line.name)
    sentence = f"The straight line between two trainings crosses a barrier of {plain(line.value, 2)} in risk, {share}"
    names = {measurement.name: measurement for measurement in seen.measurements}
    matched = names.get(_name("matched", "training"))
    bent = names.get(_name("bent", "training"))
    if matched is not None:
        sentence += f"; with their units matched it is {plain(matched.value, 2)}"
    if bent is not None:
        sentence += (
            f", on a bent path {plain(bent.value, 2)}"
            if matched is not None
            else (f"; on a bent path it is {plain(bent.value, 2)}")
        )
    sentence += "."
    if matched is not None and matched.high <= CONNECTED * removed:
        return Answer(sentence, "connected once matched", "good", matched.name)
    if bent is not None and bent.high <= CONNECTED * removed:
        return Answer(sentence, "connected by a bent path", "good", bent.name)
    if line.low > CONNECTED * removed:
        return Answer(sentence, f"a barrier of {plain(line.value, 2)}", "neutral", line.name)
    return Answer(sentence, "a barrier within the error", "neutral", line.name)


instrument = Instrument(
    name="straight_path",
    question="optimization",
    title="Paths between two solutions",
    lecture="If the sets below every level of the risk are connected, there are no poor local minima; two solutions "
    "are then joined by a path on which the risk does not rise.",
    source="Freeman and Bruna (2017); the barrier as in Entezari et al. (2022), units matched as in Ainsworth et al. "
    "(2023), bent paths as in Garipov et al. (2018); lecture, Topology of Nonconvex Landscape",
    rule="Barrier: the largest excess of the training risk on a path over the straight interpolation of its ends. "
    "Connected: its interval lies at or below 2 % of the learned risk (risk of the best constant guess minus the "
    "network's), by a line, else by the line once the units of one solution are matched to the other's (which changes "
    "no output), else by a trained bend; a barrier: the line's lies above; otherwise a barrier within the error.",
    caveat="The risk is sampled at some 20 positions a path, and a barrier on all three excludes no other path; one "
    "new solution is one pair.",
    rank=2,
    budgets={
        "quick": {"solutions": 1, "samples": 5000, "retraining": 60_000, "refinements": 4, "bending": 200},
        "full": {"solutions": 4, "samples": 20_000, "retraining": 1_000_000, "refinements": 8, "bending": 1000},
    },
    applies=applies,
    run=run,
    answer=answer,
)
