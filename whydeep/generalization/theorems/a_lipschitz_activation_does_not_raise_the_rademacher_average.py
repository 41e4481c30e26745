"""Contraction: a 1-Lipschitz activation on top of a class does not raise its Rademacher average.

Statement: E sup_f sum_i e_i act(f(x_i)) <= E sup_f sum_i e_i f(x_i) for any class of real functions f and |act(u) -
act(v)| <= |u - v|. For the linear functions with ||w|| <= 1 the right side is E ||sum_i e_i x_i||.
Source: Ledoux and Talagrand 1991, Theorem 4.12; Mohri, Rostamizadeh and Talwalkar 2018, Lemma 5.7 (Talagrand's
lemma); used layer by layer for the slide's Rademacher row O(mu^L).
Assumptions: the activation is 1-Lipschitz.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, mean
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """n fixed samples in the plane, the same for predict and measure. lipschitz: what is known of the activation.

    damage: a factor on the activation's values that nobody accounted for.
    """

    samples: int
    draws: int
    activation: Callable[[Tensor], Tensor] = torch.relu
    lipschitz: float = 1.0
    damage: float = 1.0


def activation_is_lipschitz(case: Case) -> bool:
    """Whether the activation's slope is at most 1."""
    return case.lipschitz <= 1


def points(case: Case) -> Tensor:
    """Return the samples, on three circles: fixed by their number."""
    k = torch.arange(case.samples, dtype=torch.float64)
    radius = 1 + k.remainder(3)
    angle = 2.4 * k  # near the golden angle, so that directions are spread evenly
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def signs(case: Case, generator: torch.Generator) -> Tensor:
    """Return random signs (draws, n)."""
    return (2 * torch.randint(2, (case.draws, case.samples), generator=generator) - 1).double()


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """1/n E ||sum_i e_i x_i|| over 40,000 draws, plus four standard errors of this mean."""
    sums = signs(replace(case, draws=40_000), generator) @ points(case) / case.samples
    sizes = sums.norm(dim=1)
    return Prediction("at most", float(sizes.mean() + 4 * sizes.std() / math.sqrt(len(sizes))))


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The mean of sup over w of 1/n sum e_i act(w'x_i), on a grid of 256 directions and 3 lengths of w."""
    angles = torch.arange(256, dtype=torch.float64) * 2 * math.pi / 256
    directions = torch.stack([angles.cos(), angles.sin()])
    values = torch.cat(
        [case.damage * case.activation(size * points(case) @ directions) for size in (0.01, 0.5, 1.0)], 1
    )
    largest = (signs(case, generator) @ values / case.samples).amax(1)
    return mean("Rademacher average after the activation", largest)


def step(z: Tensor) -> Tensor:
    """A threshold unit of height 4: its slope is not bounded."""
    return 4 * (z > 0).double()


def holds_on() -> Case:
    """50 samples: about 0.27 before and 0.16 after ReLU, whose standard deviation of 0.08 is 0.0025 over 1,000 draws.

    The distance is 40 of them; three times the activation is near 0.5, and the step of height 4 near 0.6.
    """
    return Case(samples=50, draws=1_000)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="A 1-Lipschitz activation does not raise the Rademacher average of the class below it.",
    source="Ledoux and Talagrand 1991, Theorem 4.12",
    assumptions={"the activation is 1-Lipschitz": activation_is_lipschitz},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), activation=step, lipschitz=math.inf),
    corrupted=lambda: replace(holds_on(), damage=3.0),
    convincing=lambda: Case(samples=500, draws=4_000),
)
