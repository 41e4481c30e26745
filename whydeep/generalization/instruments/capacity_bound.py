"""What do the capacity bounds of the lecture promise for this network, constants included?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from whydeep.core.claim import judged
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.core.verdict import Assumption, Prediction
from whydeep.generalization.capacity.chain import why_no_chain
from whydeep.generalization.capacity.table import CapacityTable, capacity_table
from whydeep.generalization.risk import mistakes

DELTA = 0.05
FAMILIES = {"VC": "VC", "covering": "covering", "Rademacher": "Rademacher", "PAC-Bayes": "PAC-Bayes"}
"""First words of the rows' names -> labels in the picture, which shows the smallest of each."""


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
    """Compute every bound of the table and judge the smallest against the test error."""
    problem = subject.problem
    assert problem.test is not None
    table = capacity_table(problem.model, problem.train, start=subject.start, delta=DELTA)
    wrong = mistakes(problem.model, problem.test)
    test_error = proportion("test error", int(wrong.sum()), len(wrong))
    best = table.smallest
    finding = judged(
        "capacity_bound",
        question="generalization",
        statement="The risk is at most margin loss plus capacity.",
        source='Slide "Traditional Learning Theory"; Bartlett, Harvey, Liaw and Mehrabian 2019; Bartlett, Foster and '
        "Telgarsky 2017; Golowich, Rakhlin and Shamir 2018; constants derived here",
        predicted=Prediction("at most", best.value, trivial=1.0, constants=_constants(table)),
        measured=test_error,
        assumptions={"training samples are independent draws": Assumption.ON_TRUST}
        | ({} if subject.start is None else {"the start is independent of the data": Assumption.ON_TRUST}),
    )
    bounds = [
        exact(f"bound, {b.name}", b.value, unit="fraction", method=f"largest term: {b.dominated_by}") for b in table
    ]
    smallest = Measurement(
        "smallest capacity bound",
        best.value,
        0.0,
        best.value,
        confidence=1 - DELTA,
        unit="fraction",
        method=best.name,
    )
    extra = (
        exact("samples needed", best.samples_needed, unit="samples", method="same norms and margins"),
        exact("training samples", len(problem.train), unit="samples"),
        exact("Lipschitz bound", table.chain.product, method="product of spectral norms"),
    )
    return Observation(
        (smallest, test_error, *bounds, *extra),
        (_curve(table, test_error.value), _bound_table(table), _layer_table(table)),
        (finding,),
    )


def _constants(table: CapacityTable) -> Mapping[str, float]:
    best = table.smallest
    return {
        "margin": best.margin or 0.0,
        "margin loss": best.margin_loss,
        "complexity": best.complexity,
        "confidence term": best.confidence_term,
        "delta": DELTA,
    }


def _curve(table: CapacityTable, test_error: float) -> Curve:
    samples = table.rows[0].samples
    family = {
        label: min((row for row in table if row.name.startswith(word)), key=lambda row: row.value)
        for word, label in FAMILIES.items()
        if any(row.name.startswith(word) for row in table)
    }
    needed = [row.samples_needed for row in family.values() if math.isfinite(row.samples_needed)]
    decades = math.log10(max([10.0 * samples, *needed]) / samples) + 1
    sizes = [round(samples * 10 ** (decades * step / 20)) for step in range(21)]
    lines = [
        Line(label, sizes, [table.value_at(row.name, size) for size in sizes], role="theory")
        for label, row in family.items()
    ]
    best = table.smallest
    return Curve(
        title="The smallest bound of each kind at other sample sizes, with the same norms and margins",
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


def _bound_table(table: CapacityTable) -> Table:
    rows = tuple(
        (
            row.name,
            _short(row.value),
            None if row.margin is None else _short(row.margin),
            _short(row.margin_loss),
            _short(row.complexity),
            _short(row.confidence_term),
            _short(row.samples_needed),
            row.largest_factor,
            row.source,
        )
        for row in table
    )
    left_out = " ".join(f"Not here: {name}, because {reason}." for name, reason in table.left_out.items())
    return Table(
        title="The bounds, all constants and union bounds included",
        columns=(
            "bound",
            "value, times too big",
            "margin",
            "margin loss",
            "complexity",
            "confidence",
            "samples needed",
            "largest factor",
            "source",
        ),
        rows=rows,
        note="Too big: compared with 1, which holds without any theory. Needed: samples that would bring it below 1. "
        f"All hold at once with probability 95 %. {_dimension(table)} {left_out}".strip(),
    )


def _dimension(table: CapacityTable) -> str:
    """The VC dimension beside the slide's formula for it."""
    edges = table.edges
    slide = f"The slide's E log2 E is {edges * math.log2(max(edges, 2)):.2g} for E = {edges:,} weights and biases"
    remark = "it is for threshold units or a fixed depth, for deep ReLU networks a factor of the depth is missing"
    if table.vc_dimension is None:
        return f"{slide}; {remark}."
    return (
        f"VC dimension of one output: at most {table.vc_dimension:.2g} (by the paper's formula, recalled, "
        f"{table.recalled_vc_dimension or 0:.2g}). {slide}; {remark}."
    )


def _layer_table(table: CapacityTable) -> Table:
    chain = table.chain
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
    title="Capacity bounds",
    lecture="R(w) <= R_n(w) + sqrt(capacity / n), the capacity measured by covering numbers or Rademacher averages "
    "of all networks with these norms.",
    source='Slide "Traditional Learning Theory"; Bartlett, Harvey, Liaw and Mehrabian 2019; Bartlett, Foster and '
    "Telgarsky 2017; Golowich, Rakhlin and Shamir 2018; Neyshabur, Bhojanapalli and Srebro 2018",
    rule="not vacuous: the smallest bound is below 1; else vacuous. A vacuous bound says nothing about the network, "
    "good or bad.",
    caveat="A bound that is too big speaks of the worst network with these norms, not of this one.",
    rank=2,
    budgets={"quick": {}, "full": {}},
    applies=applies,
    run=run,
    answer=answer,
)
