"""Does the same network fit random labels, and how much later than the true ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from whydeep.core.data import Data
from whydeep.core.evaluation import errors
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean, proportion
from whydeep.core.numbers import percent
from whydeep.core.training import Solver
from whydeep.generalization.experiments.random_labels import CORRUPTIONS, FITTED, Fit, fit_corrupted
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


QUICK = ("true labels", "half of the labels random", "random labels", "gaussian pixels")
REGULARISED = 1e-2
"""Weight decay of the regularised run, strong for Adam."""


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train on true and on corrupted data from the same start, `seeds` times; with the full budget regularised, too."""
    train = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    solver = _solver(subject, budget)
    kinds = QUICK if budget["kinds"] <= len(QUICK) else tuple(CORRUPTIONS)

    def fitted(solver: Solver, names: Sequence[str]) -> dict[str, Fit]:
        loss = subject.problem.per_sample
        return fit_corrupted(train, solver, fresh=subject.fresh, corruptions=names, loss=loss, generator=generator)

    found = [fitted(solver, kinds) for _ in range(budget["seeds"])]
    measurements = [
        *_passes("random", [one["random labels"] for one in found]),
        *_passes("true", [one["true labels"] for one in found]),
        exact("passes allowed", budget["passes"], unit="passes"),
        exact("samples", len(train), unit="samples"),
        _final("training error, random labels", [one["random labels"] for one in found]),
        _final("training error, true labels", [one["true labels"] for one in found]),
    ]
    first = dict(found[0])
    if budget["kinds"] > len(QUICK):
        regularised = fitted(_solver(subject, budget, weight_decay=REGULARISED), ("random labels",))
        first["random labels, weight decay"] = regularised["random labels"]
    test = subject.problem.test
    if test is not None and test.y is not None:
        wrong = errors(first["random labels"].model, test)
        measurements.append(proportion("test error after random labels", int(wrong.sum()), len(wrong)))
    return Observation(tuple(measurements), (_curve(first, len(train)), _table(first, test)))


def _solver(subject: Subject, budget: Budget, *, weight_decay: float = 0.0) -> Solver:
    """The subject's own optimizer where it is back-propagation, Adam otherwise; no early stopping, more passes."""
    extra = {"weight_decay": weight_decay} if weight_decay else {}
    given = subject.solver
    cost = LEAST_COST.get(subject.problem.per_sample.name)
    goal = None if cost is None else FITTED * cost
    if isinstance(given, Backprop):
        return Backprop(
            given.optimizer,
            lr=given.lr,
            epochs=budget["passes"],
            batch_size=given.batch_size,
            options=dict(given.options) | extra,
            goal=goal,
        )
    return Backprop(torch.optim.Adam, lr=1e-3, epochs=budget["passes"], batch_size=64, goal=goal, options=extra)


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


def _curve(found: Mapping[str, Fit], samples: int) -> Curve:
    lines = tuple(
        Line(
            label,
            range(len(fit.error)),
            (100 * fit.error).tolist(),
            role="measured" if label in ("true labels", "random labels") else "reference",
        )
        for label, fit in found.items()
        if len(fit.error) > 1
    )
    ends = ", ".join(f"{percent(float(line.y[-1]) / 100)} on {line.label}" for line in lines)
    return Curve(
        title=f"The same start and solver on true and on corrupted data ({samples:,} samples)",
        x_label="passes over the data",
        y_label="training error (%)",
        lines=lines,
        alt=f"Training error falls with the passes, ending at {ends}.",
    )


def _table(found: Mapping[str, Fit], test: Data | None) -> Table:
    rows = []
    for name, fit in found.items():
        # Networks of other pixels are not for the test samples, which have theirs in the old order.
        tested = None
        if test is not None and test.y is not None and "pixels" not in name:
            tested = percent(float(errors(fit.model, test).double().mean()))
        rows.append((name, fit.passes, percent(float(fit.error[-1])), tested))
    return Table(
        title="Passes until at most 1 % of the training labels are wrong",
        columns=("trained on", "passes to fit", "training error at the end", "test error"),
        rows=tuple(rows),
        note="No passes: not fitted within those allowed. Test error where the samples were left as they are.",
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
        "quick": {"samples": 300, "passes": 300, "seeds": 1, "kinds": 4},
        "full": {"samples": 10_000, "passes": 500, "seeds": 3, "kinds": 7},
    },
    applies=applies,
    run=run,
    answer=answer,
)
