"""Does a model of as many features as samples generalize worst, and a larger one better again?"""

from __future__ import annotations

import math

import torch
from torch import nn

from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.core.numbers import percent
from whydeep.core.randomness import global_seed
from whydeep.data.corruption import label_noise
from whydeep.generalization.experiments.double_descent import random_features, width_sweep
from whydeep.networks.mlp import mlp
from whydeep.optimization.backprop import Backprop

NOISE = 0.2
"""Fraction of wrong training labels: the peak is that of fitted noise, and small without it."""


def applies(subject: Subject) -> str | None:
    """Return why there is no test error of a classifier to follow, or None."""
    problem = subject.problem
    if problem.train.classes is None or problem.train.classes < 2:
        return "the data hold no two classes; it follows the error of classifiers"
    if problem.test is None or problem.test.y is None:
        return "there are no test samples with labels"
    if len(problem.train) < 20:
        return f"there are {len(problem.train)} training samples; a peak needs at least 20"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Sweep the number of random features on noisy labels; with the full budget the width of a real network, too."""
    problem = subject.problem
    assert problem.test is not None
    clean = problem.train.subsample(budget["samples"], generator).in_memory()
    train, test = label_noise(clean, NOISE, generator=generator), problem.test.subsample(2_000, generator)
    n = len(train)
    widths = sorted({max(1, round(n * factor)) for factor in (0.1, 0.25, 0.5, 0.8, 1.0, 1.15, 1.3, 1.6, 2.5, 4.0)})
    found = random_features(train, test, widths=widths, draws=budget["draws"], generator=generator)
    last = found.test_error[-1]
    measurements = [
        exact("test error at the peak", max(found.test_error), unit="fraction", method=f"width {found.peak}"),
        exact("test error, widest", last, unit="fraction", method=f"width {widths[-1]}"),
        exact("test error, narrow side", min(e for e, w in zip(found.test_error, widths, strict=True) if w < n)),
        exact("test error at the peak, tuned ridge", found.ridge_error[widths.index(found.peak)], unit="fraction"),
        exact("peak", found.peak, unit="features"),
        exact("samples", n, unit="samples"),
    ]
    if found.threshold is not None:
        measurements.append(exact("rank reaches the samples", found.threshold, unit="features"))
    exhibits = [found.curve()]
    if budget["passes"]:
        classes, inputs = train.classes or 2, math.prod(train.input_shape)
        # Around n samples of K classes, where the parameters per output are about as many as the samples.
        hidden = [1, 2, 4, 8, 16, 32, 64, 128, 256]

        def fresh(width: int, seeded: torch.Generator) -> nn.Module:
            with global_seed(seeded):
                return mlp((inputs, width, classes))

        solver = Backprop(torch.optim.Adam, lr=1e-3, epochs=budget["passes"], batch_size=64)
        sweep = width_sweep(train, test, solver, fresh=fresh, widths=hidden, seeds=budget["draws"], generator=generator)
        exhibits.append(sweep.curve())
        measurements.append(exact("test error, widest network", sweep.test_error[-1], unit="fraction"))
    return Observation(tuple(measurements), tuple(exhibits))


def answer(seen: Observation) -> Answer:
    """Say where the error peaked, where that was predicted, and what ridge makes of it."""
    peak, top, wide = seen["peak"].value, seen["test error at the peak"].value, seen["test error, widest"].value
    ridge, narrow = seen["test error at the peak, tuned ridge"].value, seen["test error, narrow side"].value
    names = {m.name for m in seen.measurements}
    reached = "rank reaches the samples"
    predicted = f"predicted by the rank: {seen[reached].value:,.0f}" if reached in names else "no peak predicted"
    sentence = (
        f"With {percent(NOISE)} wrong labels, random features err most at width {peak:,.0f} ({predicted}): "
        f"{percent(top)}, against {percent(wide)} for the widest and {percent(ridge)} with a tuned ridge."
    )
    there = top > wide and top > narrow
    return Answer(sentence, "double descent" if there else "no peak", "neutral", "test error at the peak")


instrument = Instrument(
    name="double_descent",
    question="generalization",
    title="Double descent on these data",
    lecture="A big model should fail, yet larger networks generalize better.",
    source='Slide "Big model should fail!"; Belkin, Hsu, Ma and Mandal 2019; Nakkiran et al. 2020',
    rule="double descent: the test error peaks between a smaller one at fewer and at more features; else no peak.",
    caveat="Of random features on these data with wrong labels added, not of the network at hand; widths are few, so "
    "the peak's place is known to a quarter.",
    rank=10,
    budgets={
        "quick": {"samples": 150, "draws": 3, "passes": 0},
        "full": {"samples": 500, "draws": 5, "passes": 400},
    },
    applies=applies,
    run=run,
    answer=answer,
)
