"""Does the same network fit random labels, and how much later than the true ones?"""

from __future__ import annotations

import torch

from whydeep.core.evaluation import errors
from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean, proportion
from whydeep.core.numbers import percent
from whydeep.core.training import Solver
from whydeep.generalization.random_labels import FITTED, Comparison, Fit, compare_labels
from whydeep.optimization.backprop import Backprop

# A misclassified sample costs at least ln 2 (cross-entropy), 1/4 (squared) or 1 (hinge), so at this risk at most
# FITTED of the samples are misclassified, and the training may stop.
LEAST_COST = {"cross_entropy": 0.693, "squared": 0.25, "hinge": 1.0}


def applies(subject: Subject) -> str | None:
    """Return why labels cannot be made random or the network not trained again, or None."""
    if subject.problem.train.classes is None:
        return "the data are for regression; random labels need classes"
    if len(torch.unique(subject.problem.train.targets)) < 2:
        return "the training data hold one class only; random labels would be the true ones"
    if subject.factory is None:
        return "it trains the network again from a fresh start, and only one instance was given; give a factory"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train on true and on random labels from the same start, `seeds` times."""
    train = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    solver = _solver(subject, budget)
    found = [
        compare_labels(train, solver, fresh=subject.fresh, loss=subject.problem.per_sample, generator=generator)
        for _ in range(budget["seeds"])
    ]
    measurements = [
        *_passes("random", [one.random for one in found]),
        *_passes("true", [one.true for one in found]),
        exact("passes allowed", budget["passes"], unit="passes"),
        exact("samples", len(train), unit="samples"),
        _final("training error, random labels", [one.random for one in found]),
        _final("training error, true labels", [one.true for one in found]),
    ]
    test = subject.problem.test
    if test is not None and test.y is not None:
        wrong = errors(found[0].random.model, test)
        measurements.append(proportion("test error after random labels", int(wrong.sum()), len(wrong)))
    return Observation(tuple(measurements), (_curve(found[0], len(train)),))


def _solver(subject: Subject, budget: Budget) -> Solver:
    """The subject's own optimizer where it is back-propagation, Adam otherwise; no early stopping, more passes."""
    given = subject.solver
    cost = LEAST_COST.get(subject.problem.per_sample.name)
    goal = None if cost is None else FITTED * cost
    if isinstance(given, Backprop):
        return Backprop(
            given.optimizer,
            lr=given.lr,
            epochs=budget["passes"],
            batch_size=given.batch_size,
            options=given.options,
            goal=goal,
        )
    return Backprop(torch.optim.Adam, lr=1e-3, epochs=budget["passes"], batch_size=64, goal=goal)


def _passes(name: str, fits: list[Fit]) -> list[Measurement]:
    """How many runs fitted, and the passes of those that did."""
    needed = [fit.passes for fit in fits if fit.passes is not None]
    counted = exact(f"runs that fitted {name} labels", len(needed), unit="runs", method=f"of {len(fits)}")
    if not needed:
        return [counted]
    title = f"passes to fit {name} labels"
    if len(needed) == 1:
        return [counted, exact(title, needed[0], unit="passes", method="one run")]
    return [counted, mean(title, needed, unit="passes")]


def _final(name: str, fits: list[Fit]) -> Measurement:
    values = [float(fit.error[-1]) for fit in fits]
    if len(values) == 1:
        return exact(name, values[0], unit="fraction", method="one run")
    return mean(name, values, unit="fraction")


def _curve(found: Comparison, samples: int) -> Curve:
    lines = tuple(
        Line(label, range(len(fit.error)), (100 * fit.error).tolist())
        for label, fit in (("random labels", found.random), ("true labels", found.true))
        if len(fit.error) > 1
    )
    ends = ", ".join(f"{percent(float(line.y[-1]) / 100)} on {line.label}" for line in lines)
    return Curve(
        title=f"The same start and solver on true and on random labels ({samples:,} samples)",
        x_label="passes over the data",
        y_label="training error (%)",
        lines=lines,
        alt=f"Training error falls with the passes, ending at {ends}.",
    )


def answer(seen: Observation) -> Answer:
    """Say after how many passes random labels were fitted, against the true ones."""
    names = {m.name for m in seen.measurements}
    allowed = round(seen["passes allowed"].value)
    samples = round(seen["samples"].value)

    def passes(name: str) -> str:
        key = f"passes to fit {name} labels"
        return f"{seen[key].value:,.0f}" if key in names else f"not within {allowed:,}"

    headline = "training error, random labels"
    if "passes to fit random labels" in names:
        sentence = (
            f"The same network fits {samples:,} random labels in {passes('random')} passes "
            f"(true labels: {passes('true')})"
        )
        verdict, headline = "fits random labels", "passes to fit random labels"
    else:
        left = percent(seen[headline].value)
        sentence = (
            f"It does not fit {samples:,} random labels within {allowed:,} passes "
            f"({left} still wrong; true labels: {passes('true')})"
        )
        verdict = "random labels not fitted"
    if "test error after random labels" in names:
        after = seen["test error after random labels"].value
        sentence += f"; trained on them, it errs on {percent(after)} of the test samples"
    return Answer(f"{sentence}.", verdict, "neutral", headline)


instrument = Instrument(
    name="random_labels",
    question="generalization",
    title="Random labels",
    lecture="Networks that generalize can also fit random labels, so a capacity that counts what they can fit does "
    "not explain why they generalize.",
    source='Slide "How to control generalization error?"; Zhang, Bengio, Hardt, Recht and Vinyals, ICLR 2017',
    rule="fits random labels: in some run at most 1 % of the randomly labelled samples stay misclassified within the "
    "passes allowed; else random labels not fitted. Neither is good or bad.",
    caveat="Not fitted within the passes allowed does not mean that it cannot be done with more.",
    rank=3,
    budgets={
        "quick": {"samples": 500, "passes": 300, "seeds": 1},
        "full": {"samples": 10_000, "passes": 500, "seeds": 3},
    },
    applies=applies,
    run=run,
    answer=answer,
)
