"""A claim, an instrument and an observation that are as small as they can be."""

from __future__ import annotations

import pytest
import torch

from whydeep.core import Answer, Claim, Instrument, Measurement, Observation, Prediction


def noisy(case: float, generator: torch.Generator) -> Measurement:
    """The case itself, and a draw too small to matter."""
    value = case + 1e-9 * float(torch.rand((), generator=generator))
    return Measurement("x", value, value, value, confidence=1.0)


@pytest.fixture
def claim() -> Claim:
    return Claim(
        id="a_number_is_at_most_one",
        question="optimization",
        statement="A number below one is at most one.",
        source="Arithmetic.",
        assumptions={"below one": lambda case: case < 1, "a number at all": None},
        predict=lambda case, generator: Prediction("at most", 1.0),
        measure=noisy,
        holds_on=lambda: 0.5,
        fails_on=lambda: 2.0,
        corrupted=lambda: 0.9,
    )


@pytest.fixture
def seen() -> Observation:
    return Observation((Measurement("a", 1.0, 0.0, 2.0), Measurement("b", 3.0, 2.0, 4.0)))


@pytest.fixture
def instrument(seen: Observation) -> Instrument:
    return Instrument(
        name="counter",
        question="optimization",
        title="What it counts",
        lecture="The lecture counts.",
        source="A slide",
        rule="good when it counts",
        caveat="It only counts.",
        rank=1,
        budgets={"quick": {"samples": 1}, "full": {"samples": 2}},
        applies=lambda subject: None,
        run=lambda subject, budget, generator: seen,
        answer=lambda observation: Answer("It counts.", "counted", "good", "a"),
    )
