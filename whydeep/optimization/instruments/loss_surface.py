"""How wide is the valley? The surface of the risk around the solution, along filter-normalised random directions."""

from __future__ import annotations

import math

import torch

from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.numbers import plain
from whydeep.core.parameters import named
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.optimization.landscape.paths.learned import learned, too_little
from whydeep.optimization.landscape.slices.line import Slice, line_slice
from whydeep.optimization.landscape.slices.plane import Plane, random_direction
from whydeep.optimization.landscape.slices.surface import Surface, curvature_map, surface

LOST = 0.1
"""The valley ends where the risk has risen by this fraction of what the network has learned."""

WIDE, NARROW = 0.11, 0.007
"""What rounding to 4 and to 8 bits does: normal weights within +-3 deviations in 2^b steps err by 1.73 2^-b of one."""

POSITIONS = tuple((step / 24) ** 2 for step in range(25))
"""Distances up to a filter's length, closer together near the solution: the rise grows as their square."""


def applies(subject: Subject) -> str | None:
    """Return why there are no filters to move, or None."""
    weights = named(subject.problem.model).values()
    if not any(value.ndim > 1 and bool((value != 0).any()) for value in weights):
        return "no trainable weight has filters: there is no weight matrix or kernel other than zero"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Follow random directions until a tenth of what was learned is lost; map the plane of the first two."""
    problem = subject.problem
    data = problem.train.subsample(budget["samples"], spawn(generator)).in_memory()
    draws = spawn(generator)
    directions = [random_direction(problem, generator=draws) for _ in range(budget["directions"])]
    removed, risk = learned(problem, data=data), problem.risk(data)
    sides = [
        line_slice(problem, sign * direction, positions=POSITIONS, data=data)
        for direction in directions
        for sign in (1, -1)
    ]
    measurements = [exact("learned risk", removed, method="risk of the best constant guess minus the risk")]
    measurements.append(exact("risk", risk, method=f"{len(data)} training samples"))
    if not too_little(removed, risk):
        # Both sides of one direction are not independent: their mean is one value.
        reached = [_reach(side, LOST * removed) for side in sides]
        pairs = [(one + other) / 2 for one, other in zip(reached[::2], reached[1::2], strict=True)]
        method = f"Student, {len(pairs)} random directions, not beyond {POSITIONS[-1]}"
        measurements.append(_positive(mean("half-width of the valley", pairs, unit="fraction", method=method)))
    plane = _plane(problem, directions)
    width = measurements[-1].value if len(measurements) > 2 else POSITIONS[-1]
    extent = min(1.0, max(1.5 * width, 0.02))
    seen = surface(problem, plane, extent=extent, points=budget["points"], data=data)
    few = data.subsample(budget["curved"], spawn(generator))
    largest, smallest = curvature_map(
        problem,
        plane,
        extent=max(width, 0.01) / math.sqrt(2),  # the corners lie at the end of the valley
        points=budget["map"],
        data=few,
        generator=spawn(generator),
    )
    measurements += _convexity(largest, smallest)
    exhibits = (
        seen.curve("Risk over two random directions", count=4),
        _profiles(sides, risk, LOST * removed),
        _map_table(largest, smallest),
    )
    return Observation(tuple(measurements), exhibits)


def _reach(side: Slice, allowed: float) -> float:
    """Return the distance at which the risk has risen by `allowed`, between two positions by interpolation."""
    over = (side.risk - side.risk[0]) > allowed
    if not bool(over.any()):
        return float(side.positions[-1])
    first = int(over.nonzero()[0])
    before, after = (float(side.risk[k] - side.risk[0]) for k in (first - 1, first))
    start, end = (float(side.positions[k]) for k in (first - 1, first))
    return start if not math.isfinite(after) else start + (end - start) * (allowed - before) / (after - before)


def _positive(width: Measurement) -> Measurement:
    """Cut the interval at 0: a distance is not negative."""
    low, high = max(0.0, width.low), min(width.high, POSITIONS[-1])
    return Measurement(width.name, width.value, low, max(high, width.value), unit=width.unit, method=width.method)


def _plane(problem: Problem, directions: list[torch.Tensor]) -> Plane:
    names = ("first direction (lengths of each filter)", "second direction (lengths of each filter)")
    return Plane(problem.vector(), directions[0], directions[1], names)


def _convexity(largest: Surface, smallest: Surface) -> list[Measurement]:
    ratios = (-smallest.values).clamp(min=0) / largest.values.abs().clamp(min=1e-300)
    ratios = ratios[torch.isfinite(ratios)]
    if not len(ratios):
        return []
    method = f"largest over {len(ratios)} points of the plane, from Lanczos on part of the samples"
    return [exact("downward over upward curvature", float(ratios.max()), unit="fraction", method=method)]


def _profiles(sides: list[Slice], risk: float, allowed: float) -> Curve:
    positions = list(POSITIONS)
    rises = torch.stack([side.risk - side.risk[0] for side in sides])
    middle = rises.median(0).values
    low, high = rises.min(0).values, rises.max(0).values
    lines = [Line("median", positions, middle.tolist(), low.tolist(), high.tolist())]
    if allowed > 0:
        lines.append(Line("10 % of what was learned", [0.0, positions[-1]], [allowed, allowed], role="reference"))
    last = float(middle[-1])
    return Curve(
        "Rise of the risk along random directions",
        "distance from the solution (lengths of each filter)",
        "rise of the risk",
        tuple(lines),
        alt=f"At a filter's whole length the risk has risen by {plain(last, 2) if math.isfinite(last) else 'no end'}, "
        f"from {plain(risk, 2)}; the band holds all {len(sides)} sides.",
    )


def _map_table(largest: Surface, smallest: Surface) -> Table:
    rows = tuple(
        (float(a), float(b), float(largest.values[i, j]), float(smallest.values[i, j]))
        for i, a in enumerate(largest.a)
        for j, b in enumerate(largest.b)
        if bool(torch.isfinite(largest.values[i, j]))
    )
    return Table(
        "Curvature over the plane",
        ("first direction", "second direction", "largest curvature", "smallest curvature"),
        rows,
        "Ritz values: the largest is approached from below and the smallest from above.",
    )


def answer(seen: Observation) -> Answer:
    """Judge the half-width of the valley; say how far the surface is from convex."""
    if too_little(seen["learned risk"].value, seen["risk"].value):
        return Answer(
            "The network does no better than a constant guess, so its valley has no width.",
            "nothing learned",
            "caution",
            "learned risk",
        )
    width = seen["half-width of the valley"]
    share = f"{plain(100 * width.value, 2)} %"
    sentence = f"Moving every filter by {share} of its length in a random direction loses a tenth of what was learned."
    if width.value >= POSITIONS[-1] * (1 - 1e-9):
        sentence = f"Moving every filter by {share} of its length in a random direction loses less than a tenth."
    for measurement in seen.measurements:
        if measurement.name == "downward over upward curvature":
            ratio = f"{plain(100 * measurement.value, 2)} %"
            sentence += f" Within that distance the surface curves down at most {ratio} as strongly as up."
    if width.low >= WIDE:
        return Answer(sentence, "a wide valley", "good", width.name)
    if width.high < NARROW:
        return Answer(sentence, "a narrow valley", "bad", width.name)
    return Answer(sentence, "a valley of moderate width", "neutral", width.name)


instrument = Instrument(
    name="loss_surface",
    question="optimization",
    title="The surface around the solution",
    lecture="The landscape of the empirical risk is pictured as a surface whose valleys are sought; how wide they are "
    "decides how precisely the weights must be known.",
    source="Li, Xu, Taylor, Studer and Goldstein (2018); lecture, The Landscape of Risks",
    rule="Every filter is moved in random directions by a fraction of its own length; the half-width is where the risk "
    "has risen by 10 % of the learned risk (risk of the best constant guess minus the network's). "
    "Wide: its interval lies at or above 11 %, what rounding weights to 4 bits does; narrow: below 0.7 %, 8 bits; "
    "moderate otherwise.",
    caveat="Two directions of many cannot show convexity, and random ones hardly meet the sharpest; biases and "
    "normalisation are held fixed, batch norm with its statistics at the solution.",
    rank=7,
    budgets={
        "quick": {"samples": 500, "directions": 5, "points": 21, "map": 3, "curved": 300},
        "full": {"samples": 5000, "directions": 20, "points": 41, "map": 9, "curved": 2000},
    },
    applies=applies,
    run=run,
    answer=answer,
)
