"""The minima of a spherical spin glass lie in a band above the ground state.

Statement: for the spherical p-spin glass of L spins, critical values of low index lie in [-L E_0, -L E_inf], but for a
probability that vanishes with L; E_inf = 2 sqrt((p - 1)/p), E_0 the zero of the complexity. At finite L the upper end
is -E_inf (1 + xi/(2 L^(2/3))), xi of Tracy and Widom: -E_inf + 3.5 L^(-2/3) holds 99 % of it (xi > -4.3); the lower
end moves by O(log L/L), for which 0.1 is left.
Source: Choromanska, Henaff, Mathieu, Ben Arous and LeCun (2015); Auffinger, Ben Arous and Cerny (2013); lecture, "A
Deep Dream". Formulas recalled, not checked against the papers.
Assumptions: independent Gaussian couplings of variance one. That a network's risk is such a polynomial is not claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable import spin_glass


@dataclass(frozen=True)
class Case:
    """`starts` descents on one draw of the couplings of `spins` spins, order 3.

    planted: strength of a hidden direction v, -planted L (w.v/L)^3 in H. scale: of the couplings; 1 is right.
    """

    spins: int = 45
    starts: int = 120
    steps: int = 250
    planted: float = 0.0
    scale: float = 1.0


def _predict(_case: Case, _generator: torch.Generator) -> Prediction:
    constants = {"E_inf": spin_glass.threshold(3), "E_0": spin_glass.critical_energy(0, 3)}
    return Prediction("at least", 0.9, constants=constants)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    size = case.spins
    drawn = case.scale * torch.randn(size, size, size, generator=generator, dtype=torch.float64)
    if case.planted:
        direction = torch.zeros(size, dtype=torch.float64)
        direction[0] = 1
        drawn = drawn - case.planted * math.sqrt(size) * torch.einsum("i,j,k->ijk", direction, direction, direction)
    symmetric = (drawn + drawn.permute(1, 2, 0) + drawn.permute(2, 0, 1)) / 3
    symmetric = (symmetric + symmetric.transpose(1, 2)) / 2
    points = torch.randn(case.starts, size, generator=generator, dtype=torch.float64)
    points = math.sqrt(size) * points / points.norm(dim=1, keepdim=True)
    values = torch.zeros(case.starts, dtype=torch.float64)
    for _ in range(case.steps):
        # H and its derivative by contraction: sum X w w w / L, three times the contraction with two.
        twice = _contract(symmetric, points)
        values = (twice * points).sum(1) / size**2
        slope = 3 * twice / size
        slope = slope - (slope * points).sum(1, keepdim=True) * points / size
        moved = points - 0.1 * slope
        points = math.sqrt(size) * moved / moved.norm(dim=1, keepdim=True)
    edge, ground = 2 * math.sqrt(2 / 3), 1.65700  # of order 3, written out
    inside = (values <= -edge + 3.5 * size ** (-2 / 3)) & (values >= -ground - 0.1)
    return proportion("share of descents that end in the band", int(inside.sum()), case.starts, confidence=0.99)


def _contract(symmetric: Tensor, points: Tensor) -> Tensor:
    """Return sum_jk X_ijk w_j w_k, (b, L)."""
    size = len(symmetric)
    once = (points @ symmetric.reshape(size, -1)).view(-1, size, size)
    return torch.einsum("bij,bj->bi", once, points)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The minima of a spherical spin glass lie in a narrow band above its ground state.",
    source="Choromanska et al. (2015); Auffinger, Ben Arous and Cerny (2013); lecture, A Deep Dream",
    assumptions={"couplings are independent and Gaussian": lambda case: case.planted == 0},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # A hidden direction makes one deep well far below the band.
    fails_on=lambda: Case(planted=60.0, starts=60),
    corrupted=lambda: Case(scale=math.sqrt(2), starts=60),
    convincing=lambda: Case(spins=90, starts=150, steps=400),
)
