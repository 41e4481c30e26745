"""A ReLU network of k layers with two units each computes a sawtooth of exactly 2^k linear pieces on [0, 1].

Statement: every layer folds [0, 1] onto itself, so it doubles the number of pieces. One hidden layer makes at most one
new piece a unit, so it needs 2^k - 1 units for what 2k units do in depth.
Source: Telgarsky (2015), Theorem 1.1 and its construction.
Assumptions: the segment is all of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from whydeep.approximation.constructive import sawtooth
from whydeep.approximation.pieces import pieces
from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Sawtooth of `layers` hidden layers on [low, high], with the second coefficient of its tooth."""

    layers: int
    low: float = 0.0
    high: float = 1.0
    second: float = -4.0


def whole_unit_interval(case: Case) -> bool:
    """Return whether the pieces are counted on [0, 1]."""
    return case.low == 0 and case.high == 1


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return 2^k; a count has no tolerance."""
    return Prediction("equals", 2.0**case.layers, constants={"k": case.layers})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Return the number of pieces found by following the segment through the network, layer by layer."""
    network = sawtooth(case.layers, coefficients=(2.0, case.second))
    low, high = (torch.tensor([end], dtype=torch.float64) for end in (case.low, case.high))
    return exact("linear pieces", float(pieces(network, low, high).count), unit="pieces", method="counted")


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="approximation",
    statement="A ReLU network with k layers of two units can have 2^k linear pieces on [0, 1].",
    source="Telgarsky (2015), Representation benefits of deep feedforward networks, Theorem 1.1",
    assumptions={"the segment is [0, 1]": whole_unit_interval},
    predict=predict,
    measure=measure,
    holds_on=lambda: Case(10),
    fails_on=lambda: Case(10, high=0.5),  # half of the interval holds half of the teeth
    corrupted=lambda: Case(10, second=-3.0),  # the tooth no longer comes back to zero
    convincing=lambda: Case(18),
)
