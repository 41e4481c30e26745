"""Draws the filters of the first layer and counts those smoother than their own shuffled pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Image
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.representation.filters import first_filters, pictures, smoothness_p_values
from whydeep.representation.wording import percent

LEVEL = 0.05
"""A filter counts as smooth when its p-value is at most this, so noise gives this share."""

SHARE, AT_START, COUNT = "smooth filters", "smooth filters before training", "filters"


def applies(subject: Subject) -> str | None:
    """Give the reason why there are no filters to draw."""
    try:
        first_filters(subject.problem.model, subject.problem.train)
    except InputError as fault:
        return fault.reason
    return None


def _share(name: str, filters: Tensor, budget: Budget, generator: torch.Generator) -> Measurement:
    chosen = filters[torch.randperm(len(filters), generator=generator)[: budget["filters"]]]
    p_values = smoothness_p_values(chosen, permutations=budget["permutations"], generator=generator)
    return proportion(name, int((p_values <= LEVEL).sum()), len(p_values))


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Test the filters of the trained network, and of the untrained one where there is one."""
    filters = first_filters(subject.problem.model, subject.problem.train)
    measurements = [_share(SHARE, filters, budget, generator), exact(COUNT, len(filters))]
    if subject.start is not None:
        start = first_filters(subject.start, subject.problem.train)
        measurements.append(_share(AT_START, start, budget, generator))
    tiles = pictures(filters, most=budget["tiles"])
    alt = (
        f"The {len(tiles)} filters of largest norm out of {len(filters)}, {tiles.shape[1]} by {tiles.shape[2]} pixels, "
        f"grey is zero; {percent(measurements[0])} of those tested are smoother than their own shuffled pixels."
    )
    return Observation(tuple(measurements), (Image("Filters of the first layer", tiles, alt),))


def answer(seen: Observation) -> Answer:
    """Compare the share of smooth filters with what chance gives."""
    share = seen[SHARE]
    names = {measurement.name for measurement in seen.measurements}
    before = f"; before training {percent(seen[AT_START])}" if AT_START in names else ""
    sentence = (
        f"{percent(share, interval=True)} of the first layer's {int(seen[COUNT].value)} filters are smoother than "
        f"their own shuffled pixels, where chance gives {100 * LEVEL:.0f} %{before}."
    )
    if share.low > LEVEL:
        return Answer(sentence, "filters have spatial structure", "good", SHARE)
    return Answer(sentence, "no spatial structure detected", "neutral", SHARE)


instrument = Instrument(
    name="first_layer_filters",
    question="representation",
    title="What the first layer looks for",
    lecture="Filters in the first layer are easy to visualise; trained on photographs they look like Gabor functions.",
    source="lecture, slides Visualizing Deep Neural Networks and Visualizing VGG",
    rule="Structure: the 95 % interval of the share of filters with a permutation p-value of at most 0.05 lies above "
    "0.05, which is what pixels without order give.",
    caveat="Smooth is not yet meaningful: a blur is smooth, and pixels that never vary keep their random start.",
    rank=3,
    budgets={
        "quick": {"filters": 100, "permutations": 199, "tiles": 48},
        "full": {"filters": 1000, "permutations": 999, "tiles": 64},
    },
    applies=applies,
    run=run,
    answer=answer,
)
