"""How large a perturbation must be to break the decisions, when it is chosen against the network and when it is not."""

from __future__ import annotations

import math

import numpy as np
import torch

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import outputs
from whydeep.core.exhibit import Curve, Exhibit, Image, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.core.randomness import spawn
from whydeep.representation.adversarial import Attack, attack, checked_bounds, halving_radius, random_signs
from whydeep.representation.wording import percent, significant

RADII = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Radii as fractions of the range of the inputs."""

SURVIVORS = 0.1
"""At a radius of the whole range every input may be turned into every other, so the true robust accuracy is 0 (unless
the network only knows one answer). More survivors than this mean that the attack failed."""

FRAGILE, STABLE = 0.1, 0.25
"""Halving radii, as fractions of the range, up to which a network is called fragile and from which it withstands."""

CLEAN, HALVING, NOISE, WHOLE = (
    "accuracy without perturbation",
    "halving radius",
    "accuracy under random signs at the halving radius",
    "accuracy attacked over the whole range",
)
RANGE, COMMON, ANSWERS = "range of the inputs", "share of the commonest class", "classes answered"


def applies(subject: Subject) -> str | None:
    """Give the reason why nothing can be attacked."""
    test = subject.problem.test
    if test is None:
        return "there are no test data; give some"
    if test.classes is None or test.classes < 2:
        return "the data have fewer than two classes, so there is no decision to change"
    if test.bounds is None:
        return "the bounds of the inputs are unknown; pass --bounds LOW HIGH"
    if not all(math.isfinite(bound) for bound in test.bounds):
        return "the inputs are unbounded; pass --bounds LOW HIGH"
    try:
        checked_bounds(test.take(torch.arange(1)))
    except InputError as fault:
        return str(fault)
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Attack test samples over the grid of radii, and perturb the same ones at random by as much."""
    test = subject.problem.test
    assert test is not None  # `applies` saw to it
    data = test.subsample(budget["samples"], generator).in_memory()
    low, high = checked_bounds(data)
    model = subject.problem.model
    found = attack(
        model,
        data,
        [fraction * (high - low) for fraction in RADII],
        steps=budget["steps"],
        restarts=budget["restarts"],
        halvings=budget["halvings"],
        generator=spawn(generator),
    )
    noise = {r: random_signs(model, data, r, generator=spawn(generator)) for r in found.radii}
    n = len(data)
    attacked = [proportion(f"accuracy attacked by {r:.3g}", found.right(r), n) for r in found.radii]
    perturbed = [proportion(f"accuracy under random signs of {r:.3g}", noise[r], n) for r in found.radii]
    common = float(torch.bincount(data.targets).max()) / n
    measured: list[Measurement] = [
        proportion(CLEAN, found.right(0.0), n),
        proportion(WHOLE, found.right(high - low), n),
        exact(RANGE, high - low, unit="input units"),
        exact(COMMON, common, unit="fraction"),
        *attacked[1:],
        *perturbed[1:],
    ]
    if found.right(0.0):
        halving = halving_radius(found)
        measured.append(halving)
        if math.isfinite(halving.value):
            kept = random_signs(model, data, halving.value, generator=spawn(generator))
            measured.append(proportion(NOISE, kept, n))
    exhibits: list[Exhibit] = [_curve(found.radii, attacked, perturbed)]
    pictures = _pictures(model, data, found, (low, high), budget["pictures"])
    if pictures is not None:
        exhibits.append(pictures)
    return Observation(tuple(measured), tuple(exhibits))


def _curve(radii: tuple[float, ...], attacked: list[Measurement], perturbed: list[Measurement]) -> Curve:
    clean = attacked[0]
    lines = (
        _line("chosen against the network", radii, attacked, reference=False),
        _line("random, same size", radii, perturbed, reference=True),
        Line("none", radii[1:], [clean.value] * (len(radii) - 1), role="reference"),
    )
    worst = ", ".join(f"{percent(m)} at {r:.2g}" for r, m in list(zip(radii, attacked, strict=True))[1:])
    alt = (
        f"Accuracy against the size of the perturbation: {percent(clean)} without one; chosen against the network at "
        f"most {worst}; random signs of the largest size leave {percent(perturbed[-1])}."
    )
    title, y_label = "Accuracy under perturbation", "test accuracy (fraction), at most"
    return Curve(title, "largest change of an input entry (input units, log scale)", y_label, lines, alt, x_log=True)


def _line(label: str, radii: tuple[float, ...], values: list[Measurement], *, reference: bool) -> Line:
    kept = values[1:]  # radius 0 has no place on a logarithmic axis
    return Line(
        label,
        radii[1:],
        [m.value for m in kept],
        [m.low for m in kept],
        [m.high for m in kept],
        role="reference" if reference else "measured",
        marks=True,
    )


def _pictures(
    model: torch.nn.Module, data: Data, found: Attack, bounds: tuple[float, float], most: int
) -> Image | None:
    """Draw the samples that were fooled at the smallest radii, each beside the perturbed one; None without images."""
    shape = data.input_shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
        return None
    order = found.fooled_at.argsort(stable=True)
    chosen = [int(k) for k in order if 0 < float(found.fooled_at[k]) < math.inf][:most]
    if not chosen:
        return None
    before, after = data.x[torch.tensor(chosen)], found.examples[torch.tensor(chosen)]

    answers = outputs(model, Data(after, None, data.name)).argmax(1)
    pairs = torch.stack([before, after], 1).flatten(0, 1).reshape(2 * len(chosen), -1, *shape[-2:])
    scaled = 255 * (pairs.double().cpu() - bounds[0]) / (bounds[1] - bounds[0])
    tiles = scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    captions = []
    for k, read in zip(chosen, answers.tolist(), strict=True):
        captions += [f"is {_label(data, int(data.targets[k]))}", f"read as {_label(data, read)}"]
    return Image(
        "Before and after: the first to be fooled",
        np.ascontiguousarray(tiles if tiles.shape[3] == 3 else tiles[..., 0]),
        f"{len(chosen)} test images that the network reads right, each followed by itself changed by at most "
        f"{float(found.fooled_at[chosen[-1]]):.2g} an entry, which it reads wrong.",
        tuple(captions),
    )


def _label(data: Data, number: int) -> str:
    return data.labels[number] if number < len(data.labels) else str(number)


def answer(seen: Observation) -> Answer:
    """State the halving radius against random noise, unless the attack or the network itself failed."""
    names = {measurement.name for measurement in seen.measurements}
    clean, whole, width, common = seen[CLEAN], seen[WHOLE], seen[RANGE].value, seen[COMMON].value
    if clean.low <= common:
        sentence = (
            f"The network reads {percent(clean, interval=True)} of new samples right, not detectably more than always "
            f"naming the commonest class ({100 * common:.0f} %); there is no decision worth attacking."
        )
        return Answer(sentence, "no better than guessing", "neutral", CLEAN)
    if whole.value > SURVIVORS:
        sentence = (
            f"The attack failed: free over the whole range of {width:g} it left {percent(whole)} right, where a sound "
            "one leaves none; the network hides its gradient, and nothing follows about its stability."
        )
        return Answer(sentence, "attack failed: no conclusion", "neutral", WHOLE)
    halving = seen[HALVING]
    noise = f"; random noise of that size leaves {percent(seen[NOISE])}" if NOISE in names else ""
    sentence = (
        f"A change of {significant(halving, interval=True)} an entry (inputs span {width:g}), chosen against the "
        f"network, halves its accuracy from {percent(clean)}{noise}."
    )
    if halving.high <= FRAGILE * width:
        return Answer(sentence, "fragile", "bad", HALVING)
    if halving.low >= STABLE * width:
        return Answer(sentence, "withstands this attack", "good", HALVING)
    return Answer(sentence, "sensitive", "caution", HALVING)


instrument = Instrument(
    name="adversarial_stability",
    question="representation",
    title="How small a perturbation breaks its decisions",
    lecture="Small but malicious perturbations can result in severe misclassification.",
    source="lecture, slide on fragility against noise; attack of Madry et al. 2018",
    rule="Halving radius over the range of the inputs, 95 % interval: fragile when it ends by 0.1, withstands this "
    "attack when it starts at 0.25 or more, else sensitive. No conclusion when more than 10 % stay right at a radius "
    "of the whole range, where the truth is 0, or when the accuracy is not detectably above the commonest class.",
    caveat="Accuracies under attack are upper bounds, so the true halving radius is at most this: "
    "a stronger attack may break more.",
    rank=1,
    budgets={
        "quick": {"samples": 500, "steps": 20, "restarts": 3, "halvings": 6, "pictures": 6},
        "full": {"samples": 5000, "steps": 100, "restarts": 10, "halvings": 10, "pictures": 12},
    },
    applies=applies,
    run=run,
    answer=answer,
)
