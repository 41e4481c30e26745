"""Trained on and on: does the test loss rise, and does the test error?"""

from __future__ import annotations

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.core.numbers import percent
from whydeep.core.training import Solver
from whydeep.generalization.experiments.learning_curve import Overtraining, overtrain
from whydeep.optimization.backprop import Backprop

RISEN = 1.1
"""The test loss counts as risen when it ends a tenth above its least value."""


def applies(subject: Subject) -> str | None:
    """Return why the training cannot be followed on test data, or None."""
    problem = subject.problem
    if problem.train.classes is None:
        return "the data are for regression; it sets the loss against the classification error"
    if problem.test is None or problem.test.y is None:
        return "there are no test samples with labels"
    if subject.factory is None:
        return "it trains the network again from a fresh start, and only one instance was given; give a factory"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train a fresh network for 1, 2, 4, ... passes and measure loss and error each time."""
    problem = subject.problem
    assert problem.test is not None
    train = problem.train.subsample(budget["samples"], generator).in_memory()
    fresh = type(problem)(subject.fresh(generator), train, problem.test.subsample(5_000, generator), problem.loss)

    def solver(passes: int) -> Solver:
        return Backprop(torch.optim.Adam, lr=1e-3, epochs=passes, batch_size=64)

    counts = [2**k for k in range(budget["doublings"] + 1)]
    found = overtrain(fresh, solver, passes=counts, generator=generator)
    assert fresh.test is not None
    best = min(range(len(counts)), key=lambda k: found.test_risk[k])
    measurements = (
        exact("least test loss", found.test_risk[best], method=f"after {counts[best]} passes"),
        exact("test loss at the end", found.test_risk[-1], method=f"after {counts[-1]} passes"),
        exact("test error at the least test loss", found.test_error[best], unit="fraction"),
        exact("test error at the end", found.test_error[-1], unit="fraction"),
        exact("passes to the least test loss", counts[best], unit="passes"),
        exact("passes", counts[-1], unit="passes"),
        exact("test samples", len(fresh.test), unit="samples"),
    )
    return Observation(measurements, (_losses(found), _errors(found)))


def _losses(found: Overtraining) -> Curve:
    floor = min(v for v in (*found.train_risk, *found.test_risk, 1.0) if v > 0)
    return Curve(
        title="Loss while training goes on",
        x_label="passes over the data (log scale)",
        y_label="mean loss (log scale)",
        lines=(
            Line("test", found.passes, [max(v, floor) for v in found.test_risk], marks=True),
            Line("training", found.passes, [max(v, floor) for v in found.train_risk], marks=True),
        ),
        alt=f"The training loss falls to {found.train_risk[-1]:.2g}; the test loss is {min(found.test_risk):.2g} at "
        f"least and {found.test_risk[-1]:.2g} at the end.",
        x_log=True,
        y_log=True,
    )


def _errors(found: Overtraining) -> Curve:
    return Curve(
        title="Error while training goes on",
        x_label="passes over the data (log scale)",
        y_label="error (%)",
        lines=(
            Line("test", found.passes, [100 * e for e in found.test_error], marks=True),
            Line("training", found.passes, [100 * e for e in found.train_error], marks=True),
        ),
        alt=f"The training error ends at {percent(found.train_error[-1])}, the test error at "
        f"{percent(found.test_error[-1])}.",
        x_log=True,
    )


def answer(seen: Observation) -> Answer:
    """Say how the test loss and the test error moved after the best pass."""
    least, last = seen["least test loss"].value, seen["test loss at the end"].value
    at, end = seen["test error at the least test loss"], seen["test error at the end"]
    samples = seen["test samples"].value
    # The difference of two errors on the same samples: two standard errors if every mistake were independent.
    noise = 2 * ((at.value * (1 - at.value) + end.value * (1 - end.value)) / samples) ** 0.5
    worse = end.value - at.value > max(noise, 1 / samples)
    rise = f"rises from {least:.2g} to {last:.2g}" if last > RISEN * least else f"stays near {last:.2g}"
    first, final = seen["passes to the least test loss"].value, seen["passes"].value
    sentence = (
        f"After {final:,.0f} passes the test loss is at its least, {last:.2g}; the test error is {percent(end.value)}."
        if first == final
        else f"From pass {first:,.0f} to {final:,.0f} the test loss {rise}, "
        f"the test error goes from {percent(at.value)} to {percent(end.value)}."
    )
    if last <= RISEN * least:
        return Answer(sentence, "no overfitting seen", "good", end.name)
    if worse:
        return Answer(sentence, "loss and error overfit", "caution", end.name)
    return Answer(sentence, "loss overfits, error does not", "neutral", end.name)


instrument = Instrument(
    name="overtraining",
    question="generalization",
    title="Test loss and test error while training goes on",
    lecture="Deep networks trained far beyond zero training error do not overfit in the error they make.",
    source='Slide "How to control generalization error?"; Zhang et al. 2017; Poggio et al. 2018',
    rule="no overfitting seen: the test loss ends at most a tenth above its least value; loss and error overfit: the "
    "test error has risen beyond two standard errors; else loss overfits, error does not.",
    caveat="With Adam at a constant step of 1e-3 from a fresh start; the examined network may have been trained "
    "otherwise.",
    rank=5,
    budgets={"quick": {"samples": 600, "doublings": 7}, "full": {"samples": 20_000, "doublings": 10}},
    applies=applies,
    run=run,
    answer=answer,
)
