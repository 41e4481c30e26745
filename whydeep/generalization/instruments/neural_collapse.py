"""How far have the last features collapsed to one point a class?"""

from __future__ import annotations

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.generalization.experiments.neural_collapse import NeuralCollapse, last_linear, neural_collapse

COLLAPSED = 0.1
"""NC1 at which the classes count as collapsed: within them a tenth of the spread between them, a direction."""

TITLES = ("NC1, spread within classes", "NC2, distance from a simplex", "NC3, distance of rows from means")
LAST = "NC4, decisions unlike the nearest mean"


def applies(subject: Subject) -> str | None:
    """Return why there are no features of classes to look at, or None."""
    train = subject.problem.train
    if train.classes is None:
        return "the data are for regression; neural collapse is of classes"
    if len(torch.unique(train.targets)) < 2:
        return "the training data hold one class only"
    if last_linear(subject.problem.model, train) is None:
        return "no Linear layer gives the network's scores, so its last features are not known"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Measure the four numbers on training samples, of the network and of its start where that is known."""
    data = subject.problem.train.subsample(budget["samples"], generator)
    now = neural_collapse(subject.problem.model, data)
    measurements = [
        exact(name, value, method="as defined") for name, value in zip(TITLES, now.numbers[:3], strict=True)
    ]
    measurements.append(exact(LAST, now.nearest_mean, unit="fraction"))
    start = None if subject.start is None else neural_collapse(subject.start, data)
    if start is not None:
        measurements.append(exact("NC1 before training", start.within_class))
    return Observation(tuple(measurements), (_curve(now, start),))


def _curve(now: NeuralCollapse, start: NeuralCollapse | None) -> Curve:
    # Bars without length: four numbers are not joined by lines.
    lines = [Line("trained", range(4), now.numbers, now.numbers, now.numbers, marks=True)]
    if start is not None:
        before = start.numbers
        lines.append(Line("before training", range(4), before, before, before, role="reference", marks=True))
    shown = ", ".join(f"NC{k + 1} {value:.2g}" for k, value in enumerate(now.numbers))
    return Curve(
        title="The four numbers of neural collapse; all are 0 when it is complete",
        x_label="",
        y_label="distance from collapse",
        lines=tuple(lines),
        alt=f"After training: {shown}.",
        x_ticks=("NC1 within classes", "NC2 simplex", "NC3 rows and means", "NC4 nearest mean"),
    )


def answer(seen: Observation) -> Answer:
    """Say the spread within classes against that between them, and how many decisions are those of the nearest mean."""
    first, last = seen[TITLES[0]], seen[LAST]
    before = ""
    if any(m.name == "NC1 before training" for m in seen.measurements):
        before = f" (before training {seen['NC1 before training'].value:.2g})"
    sentence = (
        f"Its last features spread {first.value:.2g} times as much within classes as between them{before}; "
        f"{100 * last.value:.2g} % of its decisions differ from the nearest class mean's."
    )
    if first.value <= COLLAPSED:
        return Answer(sentence, "collapsed", "neutral", TITLES[0])
    return Answer(sentence, "not collapsed", "neutral", TITLES[0])


instrument = Instrument(
    name="neural_collapse",
    question="generalization",
    title="Neural collapse",
    lecture="Trained on after the training error is zero, a network does not overfit the noise: its last features "
    "take the simplest shape, one point a class.",
    source='Slide "How to control generalization error?"; Papyan, Han and Donoho 2020',
    rule=f"collapsed: NC1 is at most {COLLAPSED}; else not collapsed. Neither is good or bad.",
    caveat="Measured on training samples, of which it speaks; new samples spread more.",
    rank=8,
    budgets={"quick": {"samples": 5_000}, "full": {"samples": 50_000}},
    applies=applies,
    run=run,
    answer=answer,
)
