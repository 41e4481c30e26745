"""The Rademacher average of all two-layer ReLU networks with ||v|| ||W||_F <= 1 is at most B (sqrt(2 ln 2) + 1) /
sqrt(n).

Statement (Golowich, Rakhlin and Shamir 2018, Theorem 1, with the constant derived in
`whydeep.generalization.capacity.peeling`): of L layers with Frobenius norms of product P, on inputs of root mean
square norm B, P B (sqrt(2 (L-1) ln 2) + 1) / sqrt(n).
Source: as said; slide "Traditional Learning Theory" (Rademacher, O(mu^L)).
Assumptions: the norms are those of the class; the activation is 1-Lipschitz and positively homogeneous.

The supremum is measured exactly in the plane: by homogeneity all of ||W||_F may stand in one unit, so it is the
largest |sum_i e_i relu(w'x_i)| over directions w.
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
from whydeep.generalization.capacity.peeling import golowich_rademacher


@dataclass(frozen=True)
class Case:
    """n samples on the unit circle, `draws` sign vectors. norm: the product of the norms of the networks measured.

    slope: the largest of the activation.
    """

    samples: int
    draws: int
    norm: float = 1.0
    activation: Callable[[Tensor], Tensor] = torch.relu
    slope: float = 1.0


def activation_is_a_contraction(case: Case) -> bool:
    """Whether its slope is at most 1."""
    return case.slope <= 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The bound at P = B = 1."""
    return Prediction("at most", golowich_rademacher(1.0, 1.0, depth=2, classes=1, samples=case.samples))


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The mean over signs of the largest |sum e_i act(w'x_i)| / n, over 512 directions w."""
    place = 2 * math.pi * torch.rand(case.samples, generator=generator, dtype=torch.float64)
    x = torch.stack([place.cos(), place.sin()], 1)
    angles = torch.arange(512, dtype=torch.float64) * 2 * math.pi / 512
    values = case.norm * case.activation(x @ torch.stack([angles.cos(), angles.sin()]))
    signs = (2 * torch.randint(2, (case.draws, case.samples), generator=generator) - 1).double()
    return mean("Rademacher average", (signs @ values).abs().amax(1) / case.samples)


def five_times_relu(z: Tensor) -> Tensor:
    """An activation of slope 5."""
    return 5 * torch.relu(z)


def holds_on() -> Case:
    """n = 60: the bound is 0.28; the average is near 0.10 with standard deviation 0.04 a draw, 0.0013 over 1,000."""
    return Case(samples=60, draws=1_000)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The Rademacher average of two-layer ReLU networks with norms of product P is at most "
    "P B (sqrt(2 ln 2) + 1) / sqrt(n).",
    source='Golowich, Rakhlin and Shamir 2018, Theorem 1; slide "Traditional Learning Theory"',
    assumptions={"the activation is 1-Lipschitz": activation_is_a_contraction},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), activation=five_times_relu, slope=5.0),
    corrupted=lambda: replace(holds_on(), norm=5.0),
    convincing=lambda: Case(samples=1_000, draws=4_000),
)
