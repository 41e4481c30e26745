"""Subjects, observations and instruments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import small_problem

from whydeep.core import Instrument, Observation, Subject
from whydeep.networks import mlp
from whydeep.optimization import Backprop


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_observation_finds_its_measurements(seen: Observation) -> None:
    assert seen["b"].value == 3.0
    with pytest.raises(KeyError, match="no measurement 'c'; there are a, b"):
        _ = seen["c"]


def test_fresh_networks_follow_the_generator_and_leave_the_global_one() -> None:
    problem = small_problem()
    subject = Subject(problem, Backprop(epochs=1), factory=lambda: mlp((3, 5, 4, 3)))
    before = torch.random.get_rng_state()
    first, again, other = (
        torch.cat([p.detach().reshape(-1) for p in subject.fresh(seeded(seed)).parameters()]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_without_a_factory_there_is_no_fresh_network() -> None:
    with pytest.raises(ValueError, match="only one instance was given"):
        Subject(small_problem(), Backprop(epochs=1)).fresh(seeded(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "depth"}, "give one of representation, approximation"),
        ({"budgets": {"quick": {}}}, r"budgets \['quick'\]; give quick and full"),
        ({"budgets": {"quick": {}, "full": {}, "endless": {}}}, "give quick and full"),
    ],
)
def test_what_an_instrument_needs(instrument: Instrument, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(instrument, **change)
