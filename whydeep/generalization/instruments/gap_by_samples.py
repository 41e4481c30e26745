"""How does the generalization gap fall with more training samples?"""

from __future__ import annotations

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.numbers import interval
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
    # Parts of one seed are nested and share the test samples: the difference is taken seed by seed.
    fall = mean(
        "fall of the gap",
        found.gaps[:, 0] - found.gaps[:, -1],
        unit="fraction difference",
        method=f"gap at {sizes[0]:,} minus gap at {sizes[-1]:,} samples; Student, {budget['seeds']} seeds",
    )
    extra = [
        fall,
        exact("fewest", sizes[0], unit="samples"),
        exact("most", sizes[-1], unit="samples"),
        exact("seeds", budget["seeds"]),
    ]
    if found.exponents is not None:
        method = f"least squares in logarithms; Student on the jackknife of {budget['seeds']} seeds"
        extra.append(mean("exponent of the gap", found.exponents, method=method))
    return Observation((*gaps, *extra), (_curve(found, gaps),))


def _curve(found: LearningCurve, gaps: list[Measurement]) -> Curve:
    centre = [100 * gap.value for gap in gaps]
    low, high = [100 * gap.low for gap in gaps], [100 * gap.high for gap in gaps]
    inverse = [float(centre[-1]) * found.sizes[-1] / size for size in found.sizes]
    root = [float(centre[-1]) * (found.sizes[-1] / size) ** 0.5 for size in found.sizes]
    positive = all(gap > 0 for gap in centre)
    logarithmic = all(end > 0 for end in low)  # a band that reaches below zero has no place on a log scale
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
        y_label="gap (points, log scale)" if logarithmic else "gap (points)",
        lines=(Line("measured, 95 % interval over seeds", found.sizes, centre, low, high, marks=True), *references),
        alt=f"The gap goes from {centre[0]:.2g} points at {found.sizes[0]} samples to {centre[-1]:.2g} at "
        f"{found.sizes[-1]}.",
        x_log=True,
        y_log=logarithmic,
    )


def answer(seen: Observation) -> Answer:
    """Say the gap at both ends, by how much it falls, and the exponent between them; judge by the fall's interval."""
    few, most = round(seen["fewest"].value), round(seen["most"].value)
    first, last = seen[f"gap at {few} samples"], seen[f"gap at {most} samples"]
    fall = seen["fall of the gap"]
    sentence = (
        f"From {few:,} to {most:,} training samples the gap goes from {100 * first.value:.1f} to "
        f"{100 * last.value:.1f} points, "
    )
    shown = interval(abs(fall.value), *_ends(fall), fall.unit)
    if fall.low > 0 or fall.high < 0:
        sentence += f"a {'fall' if fall.low > 0 else 'rise'} of {shown}"
        for measured in seen.measurements:
            if measured.name == "exponent of the gap":
                power = interval(measured.value, measured.low, measured.high)
                sentence += f"; its exponent in the number of samples is {power}"
        verdict = "gap falls" if fall.low > 0 else "gap grows"
        return Answer(f"{sentence}.", verdict, "neutral", fall.name)
    sentence += (
        f"but {seen['seeds'].value:.0f} seeds do not tell this {'fall' if fall.value >= 0 else 'rise'} of {shown} from "
        "none."
    )
    return Answer(sentence, "fall not detectable", "neutral", fall.name)


def _ends(fall: Measurement) -> tuple[float, float]:
    """Return the interval of the fall, or of the rise where it is one."""
    return (fall.low, fall.high) if fall.value >= 0 else (-fall.high, -fall.low)


instrument = Instrument(
    name="gap_by_samples",
    question="generalization",
    title="The gap against the number of samples",
    lecture="Capacity bounds let the gap fall like 1/sqrt(n); stability bounds like 1/n.",
    source='Slides "Traditional Learning Theory" and "Stability"; Mou, Wang, Zhai and Zheng 2018',
    rule="gap falls: the 95 % interval over seeds of (gap with the fewest samples - gap with all) lies above zero; "
    "gap grows: below zero; otherwise fall not detectable.",
    caveat="Intervals are over seeds, on these test samples; the exponent is fitted to a few sizes and reported as "
    "measured, for no theorem predicts it here.",
    rank=6,
    budgets={
        "quick": {"samples": 2_000, "halvings": 3, "steps": 300, "seeds": 5},
        "full": {"samples": 60_000, "halvings": 7, "steps": 3_000, "seeds": 5},
    },
    applies=applies,
    run=run,
    answer=answer,
)
