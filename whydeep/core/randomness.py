"""Explicit generators, and the one place where the global generator of PyTorch is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def or_default(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a new one seeded with 0 when it is None."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def spawn(generator: torch.Generator) -> torch.Generator:
    """Return a new generator seeded by the next draw of `generator`.

    Work that uses the child does not shift the numbers that the parent gives afterwards.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator().manual_seed(seed)


@contextmanager
def global_seed(generator: torch.Generator) -> Iterator[None]:
    """Seed PyTorch's global generators from `generator` inside the block, and restore them after it.

    PyTorch offers nothing else for the initialisation of layers and for dropout.
    The CPU generator and those of CUDA devices are restored; MPS has one that cannot be forked.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
