"""What do norm-based capacity bounds promise for this network, constants included?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from whydeep.core.claim import judged
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.core.verdict import Assumption, Prediction
from whydeep.generalization.capacity import Ledger, capacity_ledger
from whydeep.generalization.chain import why_no_chain
from whydeep.generalization.risk import mistakes

DELTA = 0.05
TITLES = {"counting": "covering, counting parameters", "spectral": "covering, spectral norms"}


def applies(subject: Subject) -> str | None:
    """Return why the bounds cannot be computed, naming the module, or None."""
    problem = subject.problem
    if problem.train.classes is None:
        return "the data are for regression; the bounds are for margins between classes"
    if problem.train.classes < 2:
        return "there is one class only; a margin needs two"
    if problem.test is None or problem.test.y is None:
        return "there are no test samples with labels to compare the bounds with"
    reason = why_no_chain(problem.model)
    return None if reason is None else f"the bounds are for a chain of layers, and {reason}"


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Compute every bound of the ledger and judge the smallest against the test error."""
    problem = subject.problem
    assert problem.test is not None
    ledger = capacity_ledger(problem.model, problem.train, start=subject.start, delta=DELTA)
    wrong = mistakes(problem.model, problem.test)
    test_error = proportion("test error", int(wrong.sum()), len(wrong))
    best = ledger.smallest
    finding = judged(
        "capacity_bound",
        question="generalization",
        statement="The risk is at most margin loss plus capacity.",
        source='Slide "Traditional Learning Theory"; Bartlett, Foster and Telgarsky 2017; constants derived here',
        predicted=Prediction("at most", best.value, trivial=1.0, constants=_constants(ledger)),
        measured=test_error,
        assumptions={"training samples are independent draws": Assumption.ON_TRUST}
        | ({} if subject.start is None else {"the start is independent of the data": Assumption.ON_TRUST}),
    )
    bounds = [
        exact(f"bound, {TITLES[b.name]}", b.value, unit="fraction", method=f"largest term: {b.dominated_by}")
        for b in ledger.bounds
    ]
    smallest = Measurement(
        "smallest capacity bound",
        best.value,
        0.0,
        best.value,
        confidence=1 - DELTA,
        unit="fraction",
        method=TITLES[best.name],
    )
    extra = (
        exact("samples needed", best.samples_needed, unit="samples", method="same norms and margins"),
        exact("training samples", len(problem.train), unit="samples"),
        exact("Lipschitz bound", ledger.chain.product, method="product of spectral norms"),
    )
    return Observation(
        (smallest, test_error, *bounds, *extra),
        (_curve(ledger, test_error.value), _ledger_table(ledger), _layer_table(ledger)),
        (finding,),
    )


def _constants(ledger: Ledger) -> Mapping[str, float]:
    best = ledger.smallest
    return {
        "margin": best.margin,
        "margin loss": best.margin_loss,
        "complexity": best.complexity,
        "confidence term": best.confidence_term,
        "delta": DELTA,
    }


def _curve(ledger: Ledger, test_error: float) -> Curve:
    samples = ledger.bounds[0].samples
    needed = [bound.samples_needed for bound in ledger.bounds if math.isfinite(bound.samples_needed)]
    decades = math.log10(max([10.0 * samples, *needed]) / samples) + 1
    sizes = [round(samples * 10 ** (decades * step / 20)) for step in range(21)]
    lines = [
        Line(bound.name, sizes, [ledger.value_at(bound.name, size) for size in sizes], role="theory")
        for bound in ledger.bounds
    ]
    best = ledger.smallest
    return Curve(
        title="The bounds at other sample sizes, with the same norms and margins",
        x_label="training samples (log scale)",
        y_label="bound on the error (log scale)",
        lines=(
            *lines,
            Line("says nothing", sizes, [1.0] * len(sizes), role="reference"),
            Line("test error", [samples], [test_error], marks=True),
        ),
        alt=(
            f"At {samples} samples the smallest bound is {best.value:.2g}, the test error {test_error:.2g}; "
            f"the smallest bound falls below 1 at about {best.samples_needed:.1g} samples."
        ),
        x_log=True,
        y_log=True,
    )


def _ledger_table(ledger: Ledger) -> Table:
    rows = tuple(
        (
            TITLES[b.name],
            _short(b.value),
            _short(b.too_big),
            _short(b.margin),
            _short(b.margin_loss),
            _short(b.complexity),
            _short(b.confidence_term),
            _short(b.samples_needed),
        )
        for b in ledger.bounds
    )
    return Table(
        title="The bounds, all constants and union bounds included",
        columns=(
            "bound",
            "value",
            "times too big",
            "margin",
            "margin loss",
            "complexity",
            "confidence",
            "samples needed",
        ),
        rows=rows,
        note="Too big: compared with 1, which holds without any theory. Needed: samples that would bring it below 1. "
        "All hold at once with probability 95 %.",
    )


def _layer_table(ledger: Ledger) -> Table:
    chain = ledger.chain
    rows = tuple(
        (
            link.name,
            link.parameters,
            _short(link.spectral),
            _short(link.distance),
            _short(link.distance / link.spectral) if link.spectral else None,
            _short(link.bias),
            _short(size),
            _short(rest),
        )
        for link, size, rest in zip(chain.links, chain.sizes, chain.rests, strict=True)
    )
    return Table(
        title="What the bounds know of the network",
        columns=("layer", "parameters", "spectral norm", "(2,1) norm", "ratio", "bias", "input norm", "stretch after"),
        rows=rows,
        note="Norms rounded up to the grid for which the union bound is paid; the (2,1) norm is that of the distance "
        f"to the start where it is known. Product of the spectral norms and slopes: {_short(chain.product)}.",
    )


def _short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def answer(seen: Observation) -> Answer:
    """Say whether the smallest bound is below 1, and what would bring it there."""
    bound, error = seen["smallest capacity bound"], seen["test error"]
    needed, samples = seen["samples needed"].value, seen["training samples"].value
    if bound.value < 1:
        sentence = (
            f"The smallest capacity bound says something: {bound.value:.2f}; the error measures {error.value:.2g}."
        )
        return Answer(sentence, "not vacuous", "good", bound.name)
    factor = f"{bound.value:,.0f}" if bound.value >= 100 else f"{bound.value:.2g}"
    more = "no number of samples would help"
    if math.isfinite(needed):
        times = float(f"{needed / samples:.2g}")
        more = f"with the same norms it would need about {times:,.0f} times as many samples"
    sentence = (
        f"The capacity bounds of the lecture are vacuous here, the smallest too big by a factor of {factor}; {more}."
    )
    return Answer(sentence, "vacuous", "neutral", bound.name)


instrument = Instrument(
    name="capacity_bound",
    question="generalization",
    title="Norm-based capacity bounds",
    lecture="R(w) <= R_n(w) + sqrt(capacity / n), the capacity measured by covering numbers or Rademacher averages "
    "of all networks with these norms.",
    source='Slide "Traditional Learning Theory"; Bartlett, Foster and Telgarsky 2017, with constants derived here',
    rule="not vacuous: the smallest bound is below 1; else vacuous. A vacuous bound says nothing about the network, "
    "good or bad.",
    caveat="A bound that is too big speaks of the worst network with these norms, not of this one.",
    rank=2,
    budgets={"quick": {}, "full": {}},
    applies=applies,
    run=run,
    answer=answer,
)
