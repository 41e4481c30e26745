"""The trace of a symmetric matrix, by random probes on what a basis has not captured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.measurement import Measurement, exact, mean
from whydeep.core.randomness import or_default

from .block_lanczos import BlockProduct

FIRST_LOOK = 12
"""Probes before the spread is trusted: its own error is then about 20 %."""


@dataclass(frozen=True)
class Trace:
    """captured: tr(Q A Q^T) on the basis; probes (k,): estimates of the rest, independent of it."""

    captured: float
    probes: Tensor

    @property
    def value(self) -> float:
        """The estimate of tr A, without bias for a given number of probes."""
        return self.captured + (float(self.probes.mean()) if len(self.probes) else 0.0)

    @property
    def error(self) -> float:
        """The standard error s / sqrt(k) over the probes; 0 when the basis is everything."""
        count = len(self.probes)
        return float(self.probes.std()) / math.sqrt(count) if count > 1 else 0.0

    @property
    def measurement(self) -> Measurement:
        """The trace with Student's 95 % interval."""
        if not len(self.probes):
            return exact("trace", self.captured, method="every direction visited")
        count = len(self.probes)
        method = f"Student, {count} random probes beside the basis"
        return mean("trace", self.captured + self.probes.numpy(), method=method, evaluations=count)


def deflated_trace(
    product: BlockProduct,
    basis: Tensor,
    *,
    captured: float = 0.0,
    tolerance: float = 0.02,
    probes: int = 200,
    block: int = 4,
    generator: torch.Generator | None = None,
) -> Trace:
    """Estimate tr A = tr(Q A Q^T) + E (P z)^T A (P z), P = I - Q^T Q, entries of z = +-1 (Hutchinson 1990).

    basis Q: (m, p), orthonormal rows chosen independently of the probes; captured = tr(Q A Q^T). The directions that
    Q has captured no longer cause variance: the idea of Hutch++ (Meyer et al. 2021), there with a random sketch of A
    for Q, here with the vectors of Lanczos' method, which are there already.

    Probes are taken in blocks until the standard error is at most tolerance * |estimate|, `FIRST_LOOK` at least and
    `probes` at most. A look at the error before stopping makes it smaller on average than it is, by a few percent.
    Raises `ValueError` for fewer than 2 probes. Cost: one product a probe.

    >>> nothing = torch.zeros(0, 5, dtype=torch.float64)
    >>> deflated_trace(lambda v: 2 * v, nothing).value
    10.0
    """
    if probes < 2:
        raise ValueError(f"probes={probes}; give at least 2, one alone tells nothing of its spread")
    generator = or_default(generator)
    size = basis.shape[1]
    values: list[float] = []
    while True:
        count = min(block, probes - len(values))
        signs = torch.randint(2, (count, size), generator=generator, dtype=torch.int8).to(basis) * 2 - 1
        signs = signs - (signs @ basis.T) @ basis
        values += (signs * product(signs)).sum(1, dtype=torch.float64).tolist()
        seen = Trace(captured, torch.tensor(values, dtype=torch.float64))
        enough = len(values) >= min(FIRST_LOOK, probes) and seen.error <= tolerance * abs(seen.value)
        if enough or len(values) >= probes:
            return seen
