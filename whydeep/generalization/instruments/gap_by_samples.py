"""How does the generalization gap fall with more training samples?"""

from __future__ import annotations

import numpy as np
import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact, mean
from whydeep.generalization.experiments.learning_curve import LearningCurve, gap_by_samples
from whydeep.optimization.backprop import Backprop

LEAST = 16
"""The fewest samples a part may have."""


def applies(subject: Subject) -> str | None:
    """Return why the network cannot be trained on parts of the data, or None."""
    problem = subject.problem
    if problem.train.classes is None:
        return "the data are for regression; the gap is that of the classification error"
    if problem.test is None or problem.test.y is None:
        return "there are no test samples with labels"
    if subject.factory is None:
        return "it trains the network again on parts of the data, and only one instance was given; give a factory"
    if len(problem.train) < 4 * LEAST:
        return f"there are {len(problem.train)} training samples; parts of at least {LEAST} need {4 * LEAST}"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train on an eighth, a quarter, a half and all of at most `samples` samples for the same number of steps."""
    problem = subject.problem
    assert problem.test is not None
    train = problem.train.subsample(budget["samples"], generator).in_memory()
    sizes = sorted({max(LEAST, round(len(train) / 2**k)) for k in range(budget["halvings"] + 1)})
    # The same number of steps for every size: what differs is what is seen, not how long.
    solver = Backprop(torch.optim.Adam, lr=1e-3, steps=budget["steps"], batch_size=64)
    test = problem.test.subsample(10_000, generator)
    found = gap_by_samples(
        train,
        test,
        solver,
        fresh=subject.fresh,
        sizes=sizes,
        seeds=budget["seeds"],
        loss=problem.per_sample,
        generator=generator,
    )
    gaps = [
        mean(f"gap at {size} samples", found.gaps[:, k], unit="fraction difference") for k, size in enumerate(sizes)
    ]
    extra = [exact("fewest", sizes[0], unit="samples"), exact("most", sizes[-1], unit="samples")]
    if found.exponent is not None:
        extra.append(exact("exponent of the gap", found.exponent, method="least squares in logarithms"))
    return Observation((*gaps, *extra), (_curve(found),))


def _curve(found: LearningCurve) -> Curve:
    gaps = 100 * found.gaps
    centre = gaps.mean(0)
    half = 2 * gaps.std(0, ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else 0 * centre
    inverse = [float(centre[-1]) * found.sizes[-1] / size for size in found.sizes]
    root = [float(centre[-1]) * (found.sizes[-1] / size) ** 0.5 for size in found.sizes]
    positive = bool((centre > 0).all())
    references = (
        (
            Line("like 1/n", found.sizes, inverse, role="theory"),
            Line("like 1/sqrt(n)", found.sizes, root, role="reference"),
        )
        if positive
        else ()
    )
    return Curve(
        title="Test minus training error of networks trained on parts of the data",
        x_label="training samples (log scale)",
        y_label="gap (points, log scale)" if positive else "gap (points)",
        lines=(Line("measured", found.sizes, centre, centre - half, centre + half, marks=True), *references),
        alt=f"The gap goes from {centre[0]:.2g} points at {found.sizes[0]} samples to {centre[-1]:.2g} at "
        f"{found.sizes[-1]}.",
        x_log=True,
        y_log=positive and bool((centre - half > 0).all()),
    )


def answer(seen: Observation) -> Answer:
    """Say the gap at both ends and the exponent between them."""
    few, most = round(seen["fewest"].value), round(seen["most"].value)
    first, last = seen[f"gap at {few} samples"], seen[f"gap at {most} samples"]
    names = {m.name for m in seen.measurements}
    power = ""
    if "exponent of the gap" in names:
        power = f", about like n to the power {seen['exponent of the gap'].value:.1f}"
    sentence = (
        f"From {few:,} to {most:,} training samples the gap goes from {100 * first.value:.1f} to "
        f"{100 * last.value:.1f} points{power}."
    )
    verdict = "gap falls" if last.value < first.value else "gap does not fall"
    return Answer(sentence, verdict, "neutral", last.name)


instrument = Instrument(
    name="gap_by_samples",
    question="generalization",
    title="The gap against the number of samples",
    lecture="Capacity bounds let the gap fall like 1/sqrt(n); stability bounds like 1/n.",
    source='Slides "Traditional Learning Theory" and "Stability"; Mou, Wang, Zhai and Zheng 2018',
    rule="gap falls: the mean gap with all samples is below that with the fewest; else gap does not fall.",
    caveat="The exponent is fitted to a few sizes and seeds, and is reported as measured: no theorem predicts it here.",
    rank=6,
    budgets={
        "quick": {"samples": 2_000, "halvings": 3, "steps": 300, "seeds": 2},
        "full": {"samples": 60_000, "halvings": 7, "steps": 3_000, "seeds": 5},
    },
    applies=applies,
    run=run,
    answer=answer,
)
