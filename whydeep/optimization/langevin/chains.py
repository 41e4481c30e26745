"""Many independent chains of SGLD on an energy of one dimension, and what an experiment with them returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.exhibit import Curve
from whydeep.core.measurement import Measurement

from .sgld import SGLD

Force = Callable[[Tensor], Tensor]
"""The derivative F' of the energy, coordinate by coordinate: (m,) -> (m,)."""


@dataclass(frozen=True)
class Point:
    """One setting: the number that was varied, what theory predicts for it, and what the chains measured."""

    x: float
    predicted: float
    measured: Measurement

    @property
    def inside(self) -> bool:
        """Whether the measured interval holds the prediction."""
        return self.measured.low <= self.predicted <= self.measured.high


@dataclass(frozen=True)
class Experiment:
    """The points of an experiment and the picture of them."""

    points: tuple[Point, ...]
    curve: Curve


def run_chains(
    force: Force,
    start: Tensor,
    *,
    lr: float,
    beta: float,
    steps: int,
    generator: torch.Generator,
    watch: Callable[[int, Tensor], bool | None] | None = None,
) -> Tensor:
    """Return where the chains stand after `steps` steps of SGLD, (m,).

    start: (m,), one chain a coordinate. watch: told (steps done, places) after every step; returning True stops.
    """
    chains = nn.Parameter(start.clone())
    optimizer = SGLD([chains], lr, beta=beta, generator=generator)
    for step in range(1, steps + 1):
        chains.grad = force(chains.detach())
        optimizer.step()
        if watch is not None and watch(step, chains.detach()):
            break
    return chains.detach()
