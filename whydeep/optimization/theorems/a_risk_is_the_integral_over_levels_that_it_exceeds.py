"""A risk is the integral over the levels that it exceeds: the layer-cake form of the landscape.

Statement: for E >= 0, E(theta) = Int_0^inf 1(theta not in Omega_u) du with Omega_u = {E <= u}.
The lecture's slide prints the integrand as 1(theta in Omega_u); that integral is infinite, and up to a level U it is
U - E(theta). The corrupted case computes it, and is found to be wrong.
Source: lecture, "Topology of Nonconvex Landscape"; the layer-cake representation, Lieb and Loss (2001), theorem 1.13
(number recalled, not checked against the book).
Predicted: the mean of E over random networks. Measured: the mean measure of the levels that they exceed, from
membership in sublevel sets on a grid of levels.
Assumption: E is nowhere below zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Risks of random two-layer linear networks, less `offset`; levels from 0 to above the largest.

    inside: whether the integrand is that of the slide, theta in Omega_u.
    """

    networks: int = 500
    samples: int = 30
    levels: int = 4000
    offset: float = 0.0
    inside: bool = False

    def risks(self, generator: torch.Generator) -> Tensor:
        """Return E(theta) = 1/(2n) sum (w_2 w_1 x_i - y_i)^2 for normal w_1, w_2 in 3 and 1 dimensions, (networks,)."""
        x, y, first, second = (
            torch.randn(*shape, generator=generator, dtype=torch.float64)
            for shape in ((self.samples, 2), (self.samples, 1), (self.networks, 2, 3), (self.networks, 3, 1))
        )
        outputs = x @ first @ second
        return 0.5 * (outputs - y).square().mean((1, 2)) - self.offset


def not_negative(case: Case) -> bool:
    """Whether E >= 0: true of every squared risk, and not when something is taken off it."""
    return case.offset <= 0


def _draws(generator: torch.Generator) -> torch.Generator:
    """Return a generator for the networks, the same one in both routes."""
    return torch.Generator().manual_seed(generator.initial_seed())


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the mean risk."""
    risks = case.risks(_draws(generator))
    # Midpoints of equal steps: a level is counted or not up to one step.
    return Prediction("equals", float(risks.mean()), tolerance=2 * _top(risks) / case.levels)


def _top(risks: Tensor) -> float:
    return 1.01 * max(float(risks.max()), 1e-3)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Integrate the indicators over the levels, and give the width of a step as the error."""
    risks = case.risks(_draws(generator))
    step = _top(risks) / case.levels
    total = 0.0
    for k in range(case.levels):
        member = risks <= (k + 0.5) * step
        total += float((member if case.inside else ~member).double().mean()) * step
    return Measurement(
        "mean measure of the levels exceeded", total, total - step, total + step, confidence=1.0,
        method=f"{case.levels:,} levels, +- one step", evaluations=case.levels,
    )  # fmt: skip


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A risk E >= 0 is the integral over all levels u of 1(theta not in Omega_u), Omega_u = {E <= u}.",
    source='Lecture, "Topology of Nonconvex Landscape" (with its integrand corrected); Lieb and Loss 2001',
    assumptions={"the risk is nowhere below zero": not_negative},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # What lies below zero is cut off: the integral is the mean of max(E, 0).
    fails_on=lambda: Case(offset=1.0),
    # The integrand as printed.
    corrupted=lambda: Case(inside=True),
    convincing=lambda: Case(networks=20_000, levels=40_000),
)
