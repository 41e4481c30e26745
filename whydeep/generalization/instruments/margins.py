"""How sure is it: the distribution of margins on training and test samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.core.numbers import percent
from whydeep.generalization.capacity.chain import read_chain, why_no_chain
from whydeep.generalization.risk import margins

POINTS = 60
"""Points of each cumulative curve."""


def applies(subject: Subject) -> str | None:
    """Return why there are no margins, or None."""
    problem = subject.problem
    if problem.train.classes is None or problem.train.classes < 2:
        return "the data hold no two classes; a margin is between classes"
    if problem.test is None or problem.test.y is None:
        return "there are no test samples with labels to set beside the training samples"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Take the margins of the scores, in units of the median margin on the training samples."""
    problem = subject.problem
    assert problem.test is not None
    inside = margins(problem.model, problem.train.subsample(budget["samples"], generator)).cpu().numpy()
    outside = margins(problem.model, problem.test.subsample(budget["samples"], generator)).cpu().numpy()
    unit = float(np.median(np.abs(inside))) or 1.0
    measurements = [
        exact("median margin, training", float(np.median(inside)), method="scores"),
        exact("median margin, test", float(np.median(outside)), method="scores"),
        exact("below half, training", float((inside < unit / 2).mean()), unit="fraction"),
        exact("below half, test", float((outside < unit / 2).mean()), unit="fraction"),
    ]
    if why_no_chain(problem.model) is None:
        chain = read_chain(problem.model, problem.train.subsample(2_000, generator))
        if chain.product > 0 and chain.root_mean_square > 0:
            scaled = float(np.median(inside)) / (chain.product * chain.root_mean_square)
            measurements.append(exact("median margin over Lipschitz bound and input size", scaled))
    return Observation(tuple(measurements), (_curve(inside / unit, outside / unit),))


def _curve(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> Curve:
    low = min(float(np.quantile(values, 0.002)) for values in (inside, outside))
    high = max(float(np.quantile(values, 0.998)) for values in (inside, outside))
    grid = np.linspace(min(low, -0.1), max(high, 0.1), POINTS)

    def below(values: NDArray[np.float64]) -> list[float]:
        counts = np.searchsorted(np.sort(values), grid, side="right")
        return [100 * float(count) / len(values) for count in counts]

    return Curve(
        title="Samples with a margin below a value",
        x_label="margin, in medians of the training samples",
        y_label="samples below (%)",
        lines=(
            Line("test", grid.tolist(), below(outside)),
            Line("training", grid.tolist(), below(inside)),
            Line("mistakes to the left", [0.0, 0.0], [0.0, 100.0], role="reference"),
        ),
        alt=f"{percent(float((inside <= 0).mean()))} of the training samples and "
        f"{percent(float((outside <= 0).mean()))} of the test samples have a margin of at most 0.",
    )


def answer(seen: Observation) -> Answer:
    """Say how many samples have less than half the median margin, on both sets."""
    inside, outside = seen["below half, training"], seen["below half, test"]
    ratio = seen["median margin, test"].value / (seen["median margin, training"].value or 1.0)
    sentence = (
        f"{percent(outside.value)} of the test samples have less than half the median margin of the training samples "
        f"(training: {percent(inside.value)}); the test median is {ratio:.2f} times theirs."
    )
    close = outside.value - inside.value <= 0.05
    return Answer(
        sentence, "margins carry over" if close else "margins shrink", "good" if close else "caution", outside.name
    )


instrument = Instrument(
    name="margins",
    question="generalization",
    title="Margins on training and test samples",
    lecture="The bounds charge for capacity over margin: large margins on the training samples should mean few "
    "mistakes.",
    source='Slide "Traditional Learning Theory"; Bartlett, Foster and Telgarsky 2017',
    rule="margins carry over: at most 5 points more of the test than of the training samples lie below half the median "
    "margin; else margins shrink.",
    caveat="Margins of scores have no unit of their own: compare networks only after dividing by a Lipschitz bound.",
    rank=4,
    budgets={"quick": {"samples": 10_000}, "full": {"samples": 100_000}},
    applies=applies,
    run=run,
    answer=answer,
)
