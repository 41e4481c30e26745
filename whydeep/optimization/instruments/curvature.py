"""Is the solution sharp? The spectrum of the curvature there, and what a small step in its worst direction costs."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.numbers import plain
from whydeep.core.parameters import named
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.optimization.landscape.paths.learned import learned, too_little
from whydeep.optimization.landscape.slices.line import rise
from whydeep.optimization.landscape.spectra.hessian import Hessian
from whydeep.optimization.landscape.spectra.matrix_spectrum import matrix_spectrum
from whydeep.optimization.landscape.spectra.spectrum import parameters_by_layer, spectrum

STEP = 0.01
"""The length of the step, as a fraction of the length of the weights."""

SHARP = 0.1
"""The solution is sharp when that step loses more than this fraction of what the network has learned."""


def applies(subject: Subject) -> str | None:
    """Return why the curvature cannot be measured, or None."""
    if not named(subject.problem.model):
        return "no parameter of the network is trainable"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Measure the ends of the Hessian's spectrum and its trace; step along the sharpest and along random directions."""
    problem = subject.problem
    data = problem.train.subsample(budget["samples"], spawn(generator)).in_memory()
    ends = spectrum(
        problem,
        data=data,
        steps=budget["steps"],
        probes=budget["probes"],
        tolerance=1e-3,  # a tenth of a percent of the largest: more digits than the sample of the data supports
        generator=spawn(generator),
    )
    length = float(problem.vector().norm())
    draws = spawn(generator)
    like = ends.sharpest
    randoms = [torch.randn(like.shape, generator=draws, dtype=like.dtype).to(like) for _ in range(budget["directions"])]
    step = STEP * length
    both = [rise(problem, sign * ends.sharpest, step, data=data) for sign in (1, -1)]
    worst = max(both, key=lambda losses: float(losses.mean()))
    removed, risk = learned(problem, data=data), problem.risk(data)
    low = -0.01 * abs(ends.largest)
    measurements = [
        *ends.measurements,
        ends.quadrature.below(low, name="negative eigenvalues beyond 1 % of the largest"),
        exact("learned risk", removed, method="risk of the best constant guess minus the risk"),
        exact("risk", risk, method=f"{len(data)} training samples"),
        exact("gradient norm", float(problem.gradient(data).norm()), evaluations=1),
        exact("length of the weights", length),
        mean("rise along the sharpest direction", worst, method=f"Student, {len(data)} samples"),
        mean(
            "rise along a random direction",
            [float(rise(problem, direction, step, data=data).mean()) for direction in randoms],
            method=f"Student, {len(randoms)} directions",
        ),
    ]
    if not too_little(removed, risk):
        cost = next(m for m in measurements if m.name.startswith("rise along the sharpest"))
        measurements.append(
            Measurement(
                "cost of a 1 % step",
                cost.value / removed,
                cost.low / removed,
                cost.high / removed,
                unit="fraction",
                method=f"{cost.method}; the rise over the learned risk",
            )
        )
    exhibits = (
        ends.curve("Density of the eigenvalues of the Hessian"),
        _slices(problem, data, ends.sharpest, randoms[0], ends.largest, length),
        _table(measurements),
        _layers(problem, data, budget, spawn(generator)),
    )
    return Observation(tuple(measurements), exhibits)


def _layers(problem: Problem, data: Data, budget: Budget, generator: torch.Generator) -> Table:
    """Every layer's own block of the Hessian: all other weights held fixed."""
    rows = []
    layers = parameters_by_layer(problem)
    for name, parameters in list(layers.items())[: budget["layers"]]:
        block = Hessian(problem, data=data, only=parameters)
        seen = matrix_spectrum(
            block,
            torch.empty(block.size, dtype=problem.vector().dtype, device=problem.vector().device),
            top=1,
            density=False,
            tolerance=1e-2,
            trace_tolerance=0.05,
            steps=budget["steps"],
            probes=budget["probes"],
            generator=spawn(generator),
        )
        rows.append((name, seen.size, seen.largest, seen.smallest, seen.trace, seen.trace_error))
    left = len(layers) - len(rows)
    return Table(
        "Curvature layer by layer",
        ("layer", "parameters", "largest", "smallest", "trace", "standard error of the trace"),
        tuple(rows),
        "The diagonal block of each layer's own weights."
        + (f" {left} further layers were not measured in this budget." if left else ""),
    )


def _slices(problem: Problem, data: Data, sharpest: Tensor, other: Tensor, curvature: float, length: float) -> Curve:
    percents = [k / 4 for k in range(-8, 9)]
    slope = float(problem.gradient(data) @ sharpest)

    def along(direction: Tensor) -> list[float]:
        return [float(rise(problem, direction, p / 100 * length, data=data).mean()) for p in percents]

    steps = [p / 100 * length for p in percents]
    seen = along(sharpest)
    return Curve(
        "Risk around the solution",
        "step (percent of the length of the weights)",
        "rise of the risk",
        (
            Line("sharpest", percents, seen, marks=True),
            Line("quadratic", percents, [slope * s + curvature * s * s / 2 for s in steps], role="theory"),
            Line("random", percents, along(other), role="reference"),
        ),
        alt=f"Within 2 percent of the weights' length the risk rises by up to {plain(max(seen), 2)} along the sharpest "
        "direction; the quadratic of its slope and curvature and a random direction are drawn beside it.",
    )


def _table(measurements: list[Measurement]) -> Table:
    rows = tuple((m.name, m.value, m.low, m.high, m.method) for m in measurements)
    return Table("Curvature of the risk at the solution", ("quantity", "value", "low", "high", "method"), rows)


def answer(seen: Observation) -> Answer:
    """Judge the cost of a step of one percent; say the curvature, and whether it has a way down."""
    largest, smallest = seen["largest curvature"], seen["smallest curvature"]
    curved = f"its largest curvature is {plain(largest.value, 2)}"
    down = ""
    if smallest.high < -0.01 * largest.value:
        down = f" It is no strict minimum: the smallest curvature is {plain(smallest.value, 2)}."
    if too_little(seen["learned risk"].value, seen["risk"].value):
        sentence = f"The network does no better than a constant guess, so sharpness has no scale; {curved}.{down}"
        return Answer(sentence, "nothing learned", "caution", "largest curvature")
    cost = seen["cost of a 1 % step"]
    moved = f"a step of 1 % of the weights' length that way costs {plain(100 * cost.value, 2)} % of what was learned"
    if cost.low > SHARP:
        return Answer(f"The solution is sharp: {curved}, and {moved}.{down}", "sharp", "bad", cost.name)
    if cost.high <= SHARP:
        return Answer(f"The solution is not sharp: {curved}, and {moved}.{down}", "not sharp", "good", cost.name)
    return Answer(
        f"The solution is at the edge of sharp: {curved}, and {moved}.{down}", "borderline", "caution", cost.name
    )


instrument = Instrument(
    name="curvature",
    question="optimization",
    title="Curvature at the solution",
    lecture="The landscape of the empirical risk is read from the Hessian at its critical points: flat minima, where "
    "imprecise weights do no harm, are sought by local entropy.",
    source="Hochreiter and Schmidhuber (1997); Pennington and Bahri (2017); Chaudhari et al. (2017); lecture, The "
    "Landscape of Risks",
    rule="Weights are moved by 1 % of their length along the direction of largest curvature, to the worse side. Sharp: "
    "the interval of the rise lies above 10 % of the learned risk (risk of the best constant guess minus the "
    "network's); not sharp: at or below; borderline otherwise. A smallest curvature below minus 1 % of the "
    "largest is said.",
    caveat="Curvature depends on how a network is parametrised (Dinh et al. 2017); the step is relative to the weights "
    "to lessen that, and sharpness alone decides nothing about generalization.",
    rank=1,
    budgets={
        "quick": {"samples": 1500, "steps": 100, "probes": 40, "directions": 5, "layers": 6},
        "full": {"samples": 10_000, "steps": 100, "probes": 400, "directions": 20, "layers": 200},
    },
    applies=applies,
    run=run,
    answer=answer,
)
