"""How many linear pieces the network has between two samples, of those it could have."""

from __future__ import annotations

import math

import torch

from whydeep.approximation.pieces import kinks, pieces
from whydeep.approximation.piecewise import obstacle
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.randomness import spawn

MOST_UNITS = 60_000
"""Beyond this a segment takes minutes: its cost grows like the square of the units (pieces times units)."""
FEWEST_SEGMENTS = 5
"""With fewer, the interval of the mean says nothing."""


def applies(subject: Subject) -> str | None:
    """Return why the pieces cannot be counted, or None."""
    reason = obstacle(subject.problem.model)
    if reason is not None:
        return reason
    try:
        units = kinks(subject.problem.model, subject.problem.train.input_shape)
    except (RuntimeError, ValueError, IndexError) as fault:
        return f"the network cannot be followed in float64: {str(fault).splitlines()[0]}"
    if not units:
        return "the network has no units that switch: it is affine, one piece everywhere"
    if sum(units) > MOST_UNITS:
        return f"the network has {sum(units):,} units that switch; counting is feasible up to {MOST_UNITS:,}"
    data = subject.problem.test or subject.problem.train
    return None if len(data) >= 4 else f"{data.name} has {len(data)} samples; two segments need 4"


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Count the pieces along segments between disjoint random pairs, in the trained and in an untrained network."""
    problem = subject.problem
    data = problem.test or problem.train
    bends = kinks(problem.model, data.input_shape)
    units = sum(bends)
    # Large networks take fewer segments: one costs about as many forward passes as it has pieces.
    count = min(budget["segments"], max(FEWEST_SEGMENTS, budget["passes"] // units), len(data) // 2)
    chosen = data.subsample(2 * count, generator).in_memory().x[torch.arange(2 * count)]
    ends = list(zip(chosen[:count], chosen[count:], strict=True))
    trained = [pieces(problem.model, start, end).count for start, end in ends]
    start_model = subject.start
    if start_model is None and subject.factory is not None:
        start_model = subject.fresh(spawn(generator))
    lines = [_distribution("trained", trained)]
    measurements: list[Measurement] = [
        mean("linear pieces a segment", trained, unit="pieces", evaluations=sum(trained)),
        exact("units that switch", units, unit="units", method="counted"),
        exact("largest possible, decimal logarithm", sum(math.log10(n + 1) for n in bends), method="prod (units + 1)"),
        exact("segments", count),
    ]
    if start_model is not None and obstacle(start_model) is None:
        untrained = [pieces(start_model, start, end).count for start, end in ends]
        lines.append(_distribution("untrained", untrained, reference=True))
        measurements.append(mean("linear pieces a segment, untrained", untrained, unit="pieces"))
    lines.append(Line("one a unit", [units + 1, units + 1], [0, 1], role="theory"))
    curve = Curve(
        "Linear pieces between two samples",
        "linear pieces along a segment (log scale)",
        "fraction of segments with at most so many",
        tuple(lines),
        alt=f"Between two samples the trained network has {min(trained)} to {max(trained)} linear pieces in "
        f"{count} segments; its units could bend it {units} times if each switched once.",
        x_log=True,
    )
    layers = Table(
        "Units that can bend the network",
        ("layer", "bends a piece"),
        tuple((index + 1, n) for index, n in enumerate(bends)),
        "A layer of n units cuts a linear piece into at most n + 1; a line has at most the product over layers.",
    )
    return Observation(tuple(measurements), (curve, layers))


def answer(seen: Observation) -> Answer:
    """Compare the mean number of pieces with one a unit, and with the largest possible."""
    found, units = seen["linear pieces a segment"], seen["units that switch"].value
    bound = seen["largest possible, decimal logarithm"].value
    possible = f"{10**bound:,.0f}" if bound < 6 else f"10^{bound:.0f}"
    sentence = (
        f"Between two samples the network has {_rounded(found)} linear pieces on average, "
        f"{_times(found.value / units)} per unit, where {possible} are possible."
    )
    names = [measurement.name for measurement in seen.measurements]
    if "linear pieces a segment, untrained" in names:
        untrained = seen["linear pieces a segment, untrained"]
        sentence += f" Before its training it had {_rounded(untrained)}."
    if found.high <= units + 1:
        verdict = "fewer pieces than units"
    elif found.low > units + 1:
        verdict = "more pieces than units"
    else:
        verdict = "about one piece a unit"
    return Answer(sentence, verdict, "neutral", "linear pieces a segment")


def _rounded(measured: Measurement) -> str:
    """Return the value in whole pieces, rounded to the place of the half-interval's first digit."""
    half = (measured.high - measured.low) / 2
    place = max(0, math.floor(math.log10(half))) if 0 < half < math.inf else 0
    return f"{round(measured.value, -place):,.0f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _distribution(label: str, counts: list[int], reference: bool = False) -> Line:
    ordered = sorted(counts)
    steps = [(k + 1) / len(ordered) for k in range(len(ordered))]
    return Line(label, ordered, steps, role="reference" if reference else "measured", marks=len(ordered) <= 30)


instrument = Instrument(
    name="linear_pieces",
    question="approximation",
    title="Linear pieces between two samples",
    lecture="Composition can fold space: k layers of two units can have 2^k linear pieces, which one layer would need "
    "about 2^k units for.",
    source="Telgarsky (2015), Theorem 1.1; Montufar et al. (2014); Hanin and Rolnick (2019)",
    rule="fewer pieces than units: the interval of the mean lies at or below units + 1, which one layer could make; "
    "more pieces than units: it lies above; otherwise about one piece a unit.",
    caveat="Pieces are counted on straight lines between samples; few pieces there do not exclude more elsewhere.",
    rank=2,
    budgets={
        "quick": {"segments": 20, "passes": 60_000},
        "full": {"segments": 200, "passes": 1_200_000},
    },
    applies=applies,
    run=run,
    answer=answer,
)
