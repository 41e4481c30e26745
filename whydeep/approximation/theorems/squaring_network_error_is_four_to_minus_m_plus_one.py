"""A ReLU network of depth m and width 4 approximates x^2 on [0, 1] with sup error exactly 4^-(m+1).

Statement: f_m(x) = x - sum_{s=1..m} g_s(x) / 4^s, g_s the tooth composed s times, is the piecewise linear interpolant
of x^2 on the grid k 2^-m; on a cell of length h the interpolant of x^2 errs by h^2/4 at most, at the middle, so that
sup_{[0,1]} |f_m(x) - x^2| = 4^-m / 4.
Source: Yarotsky (2017), Proposition 2. There the statement is "at most"; the interpolant's error is attained.
Assumptions: inputs in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from whydeep.approximation.constructive import squaring
from whydeep.approximation.pieces import pieces
from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Squaring network of `depth` on the interval [low, high], with the middle coefficient of its tooth."""

    depth: int
    low: float = 0.0
    high: float = 1.0
    middle: float = -4.0


def inputs_in_unit_interval(case: Case) -> bool:
    """Return whether the whole interval lies in [0, 1] and covers a cell of the grid, where the error is attained."""
    return case.low >= 0 and case.high <= 1 and case.high - case.low >= 2 * 2.0**-case.depth


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return 4^-(m+1). The tolerance is zero: all numbers are dyadic with at most 53 bits, so nothing is rounded."""
    return Prediction("equals", 4.0 ** -(case.depth + 1), tolerance=0.0, constants={"m": case.depth})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Return the sup error of the network as it stands, with no use of how it was built.

    On each of its linear pieces the error s x + c - x^2 is concave: it is largest in size at the ends or at x = s / 2.
    """
    network = squaring(case.depth, coefficients=(2.0, case.middle, 2.0))
    low, high = (torch.tensor([end], dtype=torch.float64) for end in (case.low, case.high))
    found = pieces(network, low, high)
    ends = case.low + (case.high - case.low) * found.positions
    slopes = found.slopes[:, 0] / (case.high - case.low)
    tops = torch.minimum(torch.maximum(slopes / 2, ends[:-1]), ends[1:])
    points = torch.cat([ends, tops])[:, None]
    with torch.no_grad():
        error = (network(points) - points**2).abs().max()
    return exact("sup error", float(error), method=f"at ends and tops of {found.count} pieces", evaluations=len(points))


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="approximation",
    statement="A ReLU network with m hidden layers of 4 units approximates x^2 on [0, 1] with sup error 4^-(m+1).",
    source="Yarotsky (2017), Error bounds for approximations with deep ReLU networks, Proposition 2",
    assumptions={"inputs in [0, 1]": inputs_in_unit_interval},
    predict=predict,
    measure=measure,
    holds_on=lambda: Case(10),
    fails_on=lambda: Case(10, high=1.5),  # beyond 1 the network is the identity, and 1.5^2 - 1.5 = 0.75
    corrupted=lambda: Case(10, middle=-3.9),
    convincing=lambda: Case(16),
)
