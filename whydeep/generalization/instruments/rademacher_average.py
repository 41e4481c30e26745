"""How well can this network follow pure noise: its own Rademacher average, from below."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact
from whydeep.generalization.capacity.rademacher_average import rademacher_average
from whydeep.optimization.backprop import Backprop

HALF = 0.5
"""A risk bound through the Rademacher average adds twice it, so from a half on it says nothing."""


def applies(subject: Subject) -> str | None:
    """Return why the network cannot be trained on signs, or None."""
    train = subject.problem.train
    if train.classes is None or train.classes < 2:
        return "the data hold no two classes; signs are followed by two scores"
    if subject.factory is None:
        return "it trains the network again on random signs, and only one instance was given; give a factory"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train on random signs of a quarter, a half and all of the samples."""
    train = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    # A sign that is not followed costs ln 2 or more, so at this risk one in a hundred is missed at most.
    goal = 0.00693 if subject.problem.per_sample.name == "cross_entropy" else None
    solver = Backprop(torch.optim.Adam, lr=3e-3, epochs=budget["passes"], batch_size=50, goal=goal)
    sizes = sorted({max(1, len(train) // 4), max(1, len(train) // 2), len(train)})
    found = [
        rademacher_average(
            train.take(torch.arange(size)),
            solver,
            fresh=subject.fresh,
            draws=budget["draws"],
            loss=subject.problem.per_sample,
            generator=generator,
        )
        for size in sizes
    ]
    last = found[-1]
    return Observation((last, exact("samples", len(train), unit="samples")), (_curve(sizes, found),))


def _curve(sizes: Sequence[int], found: Sequence[Measurement]) -> Curve:
    return Curve(
        title="Correlation with random signs that training reaches",
        x_label="samples (log scale)",
        y_label="Rademacher average, at least",
        lines=(
            Line(
                "found",
                sizes,
                [one.value for one in found],
                [one.low for one in found],
                [one.high for one in found],
                marks=True,
            ),
            Line("bounds say nothing", sizes, [HALF] * len(sizes), role="reference"),
        ),
        alt=f"Of {sizes[-1]} random signs the trained network follows {found[-1].value:.2f} more than it misses, as a "
        "fraction.",
        x_log=True,
    )


def answer(seen: Observation) -> Answer:
    """Say the average that was reached and what follows for bounds."""
    found, samples = seen["Rademacher average at least"], seen["samples"].value
    follows = "so every bound on its class through this average says nothing"
    less = "less than what would make such bounds empty, as far as this training sees"
    sentence = (
        f"On {samples:,.0f} samples the Rademacher average of its class is at least {max(0.0, found.low):.2f}, "
        f"{follows if found.low >= HALF else less}."
    )
    return Answer(sentence, "follows noise" if found.low >= HALF else "noise not followed", "neutral", found.name)


instrument = Instrument(
    name="rademacher_average",
    question="generalization",
    title="Its own Rademacher average",
    lecture="R <= R_n + 2 Rademacher average + ...: a class that can follow random signs has the average 1, and the "
    "bound says nothing.",
    source='Slides "Traditional Learning Theory" and "Big model should fail!"; Zhang et al. 2017',
    rule="follows noise: the interval of the average begins at a half or more, where a bound of twice it is empty; "
    "else noise not followed.",
    caveat="Training finds some network, not the best one, so the number is a lower bound of the average.",
    rank=7,
    budgets={
        "quick": {"samples": 200, "passes": 80, "draws": 2},
        "full": {"samples": 5_000, "passes": 400, "draws": 5},
    },
    applies=applies,
    run=run,
    answer=answer,
)
