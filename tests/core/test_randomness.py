"""Explicit generators, and the one fork of the global one."""

from __future__ import annotations

import pytest
import torch

from whydeep.core import global_seed, or_default, spawn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_none_is_seed_zero_and_a_generator_is_itself() -> None:
    generator = seeded(5)
    assert or_default(generator) is generator
    assert torch.equal(torch.rand(3, generator=or_default(None)), torch.rand(3, generator=seeded(0)))


def test_a_child_does_not_shift_its_parent() -> None:
    one, other = seeded(), seeded()
    torch.rand(1000, generator=spawn(one))
    spawn(other)
    assert torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=other))


def test_children_are_reproducible_and_differ() -> None:
    generator = seeded()
    first, second = (torch.rand(4, generator=spawn(generator)) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.rand(4, generator=spawn(seeded())))


def test_the_global_generator_is_seeded_inside_and_restored() -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    with global_seed(seeded()):
        first = torch.rand(4)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(321)
    with global_seed(seeded()):
        assert torch.equal(first, torch.rand(4))
    with global_seed(seeded(1)):
        assert not torch.equal(first, torch.rand(4))


def test_it_is_restored_after_an_error() -> None:
    before = torch.random.get_rng_state()

    def fail() -> None:
        with global_seed(seeded()):
            torch.rand(4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(before, torch.random.get_rng_state())
