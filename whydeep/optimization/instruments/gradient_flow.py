"""Do gradients reach the first layers? Their length layer by layer, at the start and at the end of the training."""

from __future__ import annotations

import math

import torch
from torch import nn

from whydeep.core.claim import Finding, judged
from whydeep.core.exhibit import Curve, Exhibit, Line, Role
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.verdict import Assumption, Prediction
from whydeep.optimization.gradient_flow import (
    GradientNorms,
    MeanField,
    dense_layers,
    gradient_norms,
    mean_field,
    weight_layers,
)

VANISHES, FADES = 1e-3, 1e-1
WIDE = 100
"""Hidden width from which the mean field is compared: its relative error is about 1 / width a layer."""


def applies(subject: Subject) -> str | None:
    """Return why there is no flow between layers, or None."""
    count = len(weight_layers(subject.problem.model))
    return None if count > 1 else f"the network has {count} layers with weights; a flow between layers needs two"


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Measure the gradient by layer in the trained network, at its start, and in fresh networks where there are any."""
    train = subject.problem.train.subsample(budget["samples"], spawn(generator)).in_memory()
    problem = Problem(subject.problem.model, train, None, subject.problem.loss)
    end = gradient_norms(problem)
    fresh: list[nn.Module] = []
    if subject.factory is not None:
        fresh = [subject.fresh(spawn(generator)) for _ in range(budget["networks"])]
    starts = [gradient_norms(problem.with_model(model)) for model in fresh]
    first = subject.start if subject.start is not None else fresh[0] if fresh else None
    start = None if first is None else gradient_norms(problem.with_model(first))
    field = None if first is None else _field(problem.with_model(first))
    measurements: list[Measurement] = []
    if start is not None:
        measurements.append(_ratio("gradient ratio at the start", start, starts))
        measurements.append(
            exact("first over last at the start", _first_over_last(start), method=f"{len(train)} samples")
        )
    measurements.append(_ratio("gradient ratio at the end", end, []))
    measurements.append(exact("first over last at the end", _first_over_last(end), method=f"{len(train)} samples"))
    findings = () if field is None or len(fresh) < 2 else (_finding(problem, fresh, starts),)
    if findings:
        measurements.append(findings[0].measured)
    exhibits: list[Exhibit] = [_profile(start, end, field)]
    if subject.training is not None and len(subject.training.history.get("loss", ())) > 1:
        exhibits.append(_history(subject))
    return Observation(tuple(measurements), tuple(exhibits), findings)


def _ratio(name: str, here: GradientNorms, others: list[GradientNorms]) -> Measurement:
    """Return smallest over largest: the geometric mean over fresh networks with its interval, or of one network."""
    ratios = [norms.ratio for norms in others]
    if len(ratios) < 2 or min(ratios) == 0:
        return exact(name, here.ratio, method="of this network, on the samples taken")
    logs = mean(name, [math.log(ratio) for ratio in ratios])
    low, value, high = (math.exp(end) for end in (logs.low, logs.value, logs.high))
    return Measurement(
        name, value, low, high, method=f"Student on logarithms, {len(ratios)} fresh networks", evaluations=len(ratios)
    )


def _first_over_last(norms: GradientNorms) -> float:
    last = float(norms.norms[-1])
    return float(norms.norms[0]) / last if last > 0 else 0.0


def _field(problem: Problem) -> MeanField | None:
    """Return the mean field of the network at its own weights, None where it has no formula."""
    try:
        layers = dense_layers(problem.model)
        x = problem.train.in_memory().x[torch.arange(len(problem.train))]
        return mean_field(layers, input_square=float(x.double().square().mean()))
    except ValueError:
        return None


def _finding(problem: Problem, fresh: list[nn.Module], starts: list[GradientNorms]) -> Finding:
    fields = [_field(problem.with_model(model)) for model in fresh]
    factors = [field.factor for field in fields if field is not None]
    predicted = sum(factors) / len(factors)
    hidden = [m.out_features for m in fresh[0].modules() if isinstance(m, nn.Linear)][:-1]
    return judged(
        "gradient_factor_per_layer_is_mean_field",
        question="optimization",
        statement="From layer to layer the gradient of a wide random network changes by the factor sqrt(chi).",
        source="Schoenholz et al. (2017)",
        # 10 %: widths are finite, samples differ in length where the mean field takes their mean square, and the
        # loss's gradient at the output depends a little on the last weights.
        predicted=Prediction("equals", predicted, tolerance=0.1 * predicted, constants={"narrowest": min(hidden)}),
        measured=mean(
            "gradient factor per layer at the start",
            [norms.factor for norms in starts],
            method=f"Student, {len(starts)} fresh networks",
            evaluations=len(starts),
        ),
        assumptions={
            f"hidden layers at least {WIDE} wide": Assumption.CHECKED if min(hidden) >= WIDE else Assumption.BROKEN,
            "independent weights": Assumption.ON_TRUST,
        },
    )


def _profile(start: GradientNorms | None, end: GradientNorms, field: MeanField | None) -> Curve:
    def line(label: str, values: torch.Tensor, role: Role = "measured") -> Line:
        shown = [value if value > 0 else math.nan for value in values.tolist()]  # a logarithm has no place for zero
        return Line(label, list(range(len(shown))), shown, role=role, marks=True)

    lines = [] if start is None else [line("start", start.norms)]
    lines.append(line("end", end.norms))
    if start is not None and field is not None:
        lines.append(line("mean field", field.lengths * start.norms[-1], "theory"))
    spoken = "" if start is None else f"At the start the smallest is {start.ratio:.2g} of the largest, "
    return Curve(
        "Gradient by layer",
        "layer with weights, from input to output",
        "length of the gradient (log scale)",
        tuple(lines),
        alt=f"Length of the loss's gradient at the outputs of {len(end.names)} layers, root mean square over samples. "
        f"{spoken}{'at' if spoken else 'At'} the end {end.ratio:.2g}.",
        y_log=True,
        x_ticks=tuple(str(k + 1) for k in range(len(end.names))) if len(end.names) <= 20 else None,
    )


def _history(subject: Subject) -> Curve:
    assert subject.training is not None
    loss = subject.training.history["loss"]
    positive = bool((loss > 0).all())
    return Curve(
        "Risk during the training",
        "passes over the data",
        "risk on the training data" + (" (log scale)" if positive else ""),
        (Line("training", list(range(len(loss))), loss.tolist()),),
        alt=f"The risk goes from {float(loss[0]):.2g} to {float(loss[-1]):.2g} in {len(loss) - 1} passes.",
        y_log=positive,
    )


def answer(seen: Observation) -> Answer:
    """Judge the ratio of smallest to largest gradient at the start, or at the end where the start is unknown."""
    names = [measurement.name for measurement in seen.measurements]
    when = "start" if "gradient ratio at the start" in names else "end"
    ratio, forward = seen[f"gradient ratio at the {when}"], seen[f"first over last at the {when}"].value
    spread = f"At the {when} the smallest gradient of a layer is {ratio.value:.2g} of the largest"
    if when == "start":
        spread += f", at the end {seen['gradient ratio at the end'].value:.2g}"
    factor = ""
    for finding in seen.findings:
        factor = (
            f"; per layer it changes by {finding.measured.value:.2g}, the mean field says {finding.predicted.value:.2g}"
        )
    sentence = f"{spread}{factor}."
    if ratio.value >= FADES:
        return Answer(sentence, "gradients flow", "good", ratio.name)
    if ratio.value >= VANISHES:
        return Answer(sentence, "gradients fade" if forward <= 1 else "gradients grow", "caution", ratio.name)
    return Answer(sentence, "gradients vanish" if forward <= 1 else "gradients explode", "bad", ratio.name)


instrument = Instrument(
    name="gradient_flow",
    question="optimization",
    title="The gradient from layer to layer",
    lecture="Back-propagation suffers from vanishing gradients: the chain rule multiplies by one matrix and one "
    "derivative a layer.",
    source="Schoenholz et al. (2017); lecture, Better Optimization Algorithms?",
    rule="Smallest over largest gradient among the layers, at the start if it is known: gradients flow from 0.1 "
    "upwards, fade down to 0.001 and vanish below; grow and explode where the first layer's is the larger one.",
    caveat="The mean field describes wide networks with independent weights: it speaks of the start, not of the "
    "trained network, and batch norm is taken with its running statistics.",
    rank=4,
    budgets={
        "quick": {"samples": 500, "networks": 5},
        "full": {"samples": 5000, "networks": 20},
    },
    applies=applies,
    run=run,
    answer=answer,
)
