"""How well a linear rule reads the class from each layer, against the raw inputs."""

from __future__ import annotations

import torch

from whydeep.core.evaluation import errors
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact, proportion
from whydeep.core.randomness import spawn
from whydeep.representation.features import OUTPUT, Layer, features, layers
from whydeep.representation.probe import gain, probe
from whydeep.representation.wording import percent

INPUT, LAST, NETWORK, GAIN = "probe of the inputs", "probe of the last hidden layer", "the network", "gain over inputs"
HIDDEN = "hidden layers"


def applies(subject: Subject) -> str | None:
    """Give the reason why there is no probe to fit."""
    train, test = subject.problem.train, subject.problem.test
    if train.classes is None:
        return "the data have no classes; a probe reads a class"
    if test is None:
        return "there are no test data; give some"
    return "there is one class only" if train.classes < 2 else None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Probe the inputs and the layers on the same samples."""
    problem = subject.problem
    assert problem.test is not None  # `applies` saw to it
    train = problem.train.subsample(budget["samples"], generator).in_memory()
    test = problem.test.subsample(budget["tested"], generator).in_memory()
    places = layers(problem.model, train, most=budget["layers"] + 1, limit=budget["width"], generator=generator)
    fitted, tested = features(problem.model, train, places), features(problem.model, test, places)
    probes = [
        probe(
            fitted[place.name],
            train.targets,
            test_features=tested[place.name],
            test_labels=test.targets,
            generator=spawn(generator),
        )
        for place in places
    ]
    titles = ["inputs", *(_title(place) for place in places[1:])]
    # Fixed in advance, so that no choice by test accuracy enters: the layer that the output is computed from.
    last = max(0, len(places) - 2)
    named = {0: INPUT, last: LAST} if last else {0: INPUT}
    accuracies = [each.accuracy(named.get(k, f"probe of {titles[k]}")) for k, each in enumerate(probes)]
    network = proportion(NETWORK, len(test) - int(errors(problem.model, test).sum()), len(test))
    measured = (*accuracies, network, gain(GAIN, probes[last].right, probes[0].right), exact(HIDDEN, last))
    positions = tuple(range(len(places)))
    curve = Curve(
        "A linear probe of each layer",
        "layer, in the order in which they run",
        "test accuracy (fraction)",
        (
            Line(
                "probe",
                positions,
                [m.value for m in accuracies],
                [m.low for m in accuracies],
                [m.high for m in accuracies],
                marks=True,
            ),
            Line("network", positions, [network.value] * len(places), role="reference"),
        ),
        f"Test accuracy of a linear probe, from {percent(accuracies[0])} on the inputs to {percent(accuracies[-1])} on "
        f"the output over {len(places) - 1} layers; the network itself reads {percent(network)} right.",
        x_ticks=tuple(titles),
    )
    rows = tuple(
        (title, "x".join(map(str, place.shape)), place.reduction, m.value, m.low, m.high, each.penalty)
        for title, place, m, each in zip(titles, places, accuracies, probes, strict=True)
    )
    columns = ("layer", "shape", "features used", "accuracy", "low", "high", "penalty")
    note = f"{len(train)} samples to fit, {len(test)} to test; 95 % intervals of Clopper and Pearson."
    return Observation(measured, (curve, Table("Probes by layer", columns, rows, note)))


def _title(place: Layer) -> str:
    return "output" if place.name == OUTPUT else f"{place.name} {place.kind}"


def answer(seen: Observation) -> Answer:
    """Compare the last hidden layer with the inputs, paired over the test samples."""
    inputs, difference = seen[INPUT], seen[GAIN]
    if seen[HIDDEN].value == 0:
        sentence = f"There is no hidden layer; a linear probe reads {percent(inputs, interval=True)} from the inputs."
        return Answer(sentence, "no hidden layer", "neutral", INPUT)
    last = seen[LAST]
    places = 1 if difference.high - difference.low < 0.01 else 0
    low, value, high = (
        f"{100 * v:+.{places}f}".replace("-", "−") for v in (difference.low, difference.value, difference.high)
    )
    points = f"{value} points ({low} to {high})"
    sentence = (
        f"A linear probe reads the class from the last hidden layer in {percent(last, interval=True)} of new samples, "
        f"from the inputs in {percent(inputs)}: {points}."
    )
    if difference.low > 0:
        return Answer(sentence, "layers separate the classes", "good", LAST)
    if difference.high < 0:
        return Answer(sentence, "layers lose the classes", "bad", LAST)
    return Answer(sentence, "no gain over the inputs detected", "neutral", LAST)


instrument = Instrument(
    name="linear_probe",
    question="representation",
    title="What a linear probe reads from each layer",
    lecture="Features learned in the first layers carry over from one task to another; only the upper ones need "
    "fitting anew.",
    source="lecture, slide Transfer Learning; linear probes as of Alain and Bengio 2016",
    rule="Paired over the test samples, last hidden layer against inputs: the layers separate the classes when the "
    "95 % interval of the gain lies above 0, lose them when below, else no gain is detected.",
    caveat="A probe shows what can be read linearly with so many samples, not what the network uses; wide layers are "
    "averaged or projected first.",
    rank=2,
    budgets={
        "quick": {"samples": 2000, "tested": 2000, "layers": 8, "width": 800},
        "full": {"samples": 20000, "tested": 10000, "layers": 30, "width": 2000},
    },
    applies=applies,
    run=run,
    answer=answer,
)
