"""Two trainings from different starts: does the straight line between their solutions cross a barrier?"""

from __future__ import annotations

import torch

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Cell, Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn

from ..landscape.learned import learned, too_little
from ..landscape.paths import straight
from ..landscape.profile import Profile

CONNECTED = 0.02
"""Joined by a line when the barrier is at most this fraction of what the network has learned."""


def applies(subject: Subject) -> str | None:
    """Return why there is no second solution, or None."""
    if subject.factory is None:
        return "a second solution needs a factory that makes a fresh network; only one instance was given"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train again from fresh starts and follow the straight lines from the given solution to the new ones."""
    problem = subject.problem
    part = problem.train.subsample(budget["retraining"], spawn(generator))
    data = {"training": problem.train.subsample(budget["samples"], spawn(generator)).in_memory()}
    if problem.test is not None:
        data["test"] = problem.test.subsample(budget["samples"], spawn(generator)).in_memory()
    # Where batch norm needs its statistics anew at every position, the training samples looked at provide them.
    local = Problem(problem.model, data["training"], data.get("test"), problem.loss)
    profiles: list[dict[str, Profile]] = []
    for _ in range(budget["solutions"]):
        fresh = Problem(subject.fresh(spawn(generator)), part, None, problem.loss)
        again = subject.solver.train(fresh, generator=spawn(generator))
        if again.outcome.diverged:
            raise InputError(f"the second training diverged: {again.outcome.reason}", "give a smaller step size")
        profiles.append(
            {
                name: straight(local, again.model, data=each, refinements=budget["refinements"])
                for name, each in data.items()
            }
        )
    measurements = [_over_pairs(f"barrier on {name} data", [pair[name].barrier for pair in profiles]) for name in data]
    measurements.append(
        exact("learned risk", learned(local), method="risk of the mean output minus the risk, training data")
    )
    measurements.append(exact("risk", local.risk(), method="of the given solution, training data"))
    if problem.train.classes is not None:
        for name in data:
            bumps = [_error_bump(pair[name]) for pair in profiles]
            unit, method = "fraction", f"largest of {len(bumps)} lines"
            measurements.append(exact(f"error barrier on {name} data", max(bumps), unit=unit, method=method))
    curves = [_curve(profiles, "risk")] + ([_curve(profiles, "error")] if problem.train.classes is not None else [])
    trained = "all training samples" if len(part) == len(problem.train) else f"{len(part):,} training samples"
    table = Table(
        "Lines between two solutions",
        ("line", "data", "risk at the given end", "risk at the new end", "barrier", "at position"),
        tuple(_row(index + 1, name, profile) for index, pair in enumerate(profiles) for name, profile in pair.items()),
        f"The new solutions were trained on {trained} from their own starts.",
    )
    return Observation(tuple(measurements), (*curves, table))


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


def _row(line: int, name: str, profile: Profile) -> tuple[Cell, ...]:
    ends = (float(profile.risk[0]), float(profile.risk[-1]))
    return (line, name, *ends, profile.barrier.value, profile.summit if profile.barrier.value > 0 else None)


def _curve(profiles: list[dict[str, Profile]], what: str) -> Curve:
    lines = []
    for index, pair in enumerate(profiles):
        for name, profile in pair.items():
            values = profile.risk if what == "risk" else profile.error
            label = name if len(profiles) == 1 else f"{name} {index + 1}"
            assert values is not None
            lines.append(Line(label, profile.positions.tolist(), values.tolist()))
    first = lines[0].y
    lines.append(Line("no barrier", [0.0, 1.0], [first[0], first[-1]], role="reference"))
    highest = max(max(line.y) for line in lines)
    low = max(max(line.y[0], line.y[-1]) for line in lines)
    return Curve(
        f"{what.capitalize()} between two solutions",
        "position between the solutions",
        "risk" if what == "risk" else "misclassified fraction",
        tuple(lines),
        alt=f"From the given solution to a new one the {what} reaches {plain(highest, 2)}; at the ends it is at most "
        f"{plain(low, 2)}.",
    )


def answer(seen: Observation) -> Answer:
    """Compare the barrier on the training data with what the network has learned."""
    barrier, removed = seen["barrier on training data"], seen["learned risk"].value
    if too_little(removed, seen["risk"].value):
        sentence = (
            f"The straight line between two trainings costs {plain(barrier.value, 2)}, but neither learned anything."
        )
        return Answer(sentence, "nothing learned", "caution", barrier.name)
    share = f"{plain(100 * barrier.value / removed, 2)} % of what was learned"
    if barrier.high <= CONNECTED * removed:
        sentence = f"Two trainings are joined by a straight line that costs {plain(barrier.value, 2)} in risk, {share}."
        return Answer(sentence, "connected by a line", "good", barrier.name)
    sentence = (
        f"The straight line between two trainings crosses a barrier of {plain(barrier.value, 2)} in risk, {share}."
    )
    if barrier.low > CONNECTED * removed:
        return Answer(sentence, f"a barrier of {plain(barrier.value, 2)}", "neutral", barrier.name)
    return Answer(sentence, "a barrier within the error", "neutral", barrier.name)


instrument = Instrument(
    name="straight_path",
    question="optimization",
    title="The straight line between two solutions",
    lecture="If the sets below every level of the risk are connected, there are no poor local minima; two solutions "
    "are then joined by a path on which the risk does not rise.",
    source="Freeman and Bruna (2017); the barrier as in Entezari et al. (2022); lecture, Topology of Nonconvex "
    "Landscape",
    rule="Barrier: the largest excess of the training risk on the line over the straight interpolation of its ends. "
    "Connected by a line: its interval lies at or below 2 % of the learned risk (risk of the network's mean output "
    "minus its risk); a barrier: above; otherwise a barrier within the error.",
    caveat="A barrier on the straight line excludes neither a curved path without one nor a straight one after the "
    "units are permuted; one line is one pair of solutions.",
    rank=2,
    budgets={
        "quick": {"solutions": 1, "samples": 5000, "retraining": 60_000, "refinements": 4},
        "full": {"solutions": 4, "samples": 20_000, "retraining": 1_000_000, "refinements": 8},
    },
    applies=applies,
    run=run,
    answer=answer,
)
