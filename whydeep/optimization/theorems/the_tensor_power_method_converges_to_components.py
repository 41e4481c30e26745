"""The tensor power method converges to components, from almost every start, and the start says to which.

Statement: for T = sum_i lambda_i a_i x a_i x a_i with orthonormal a_i and lambda_i > 0, x -> T(I, x, x)/|T(I, x, x)|
converges to the a_i with the largest lambda_i |<a_i, x>|.
Source: Anandkumar, Ge, Hsu, Kakade and Telgarsky (2014), lemma on orthogonal decompositions (recalled, not checked
against the paper); lecture, "A Dream" (tensor factorization).
Assumptions: orthonormal components, positive strengths, order three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.tensor_power import power_iteration


@dataclass(frozen=True)
class Case:
    """`starts` for `rank` components in `size` dimensions.

    lean: how much of the first component each other one gets before all are normalised. mixed: the contraction forgets
    one of its two arguments and takes the mean vector instead, so that the map is linear.
    """

    size: int = 8
    rank: int = 6
    starts: int = 300
    lean: float = 0.0
    mixed: bool = False


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    # Every start: a tie between components has probability zero. The sum over starts is exact.
    return Prediction("equals", 1.0, constants={"components": float(case.rank)})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    drawn = torch.randn(case.size, case.size, generator=generator, dtype=torch.float64)
    components = torch.linalg.qr(drawn)[0][: case.rank]
    components = components + case.lean * components[:1]
    components = components / components.norm(dim=1, keepdim=True)
    strengths = 1 + torch.rand(case.rank, generator=generator, dtype=torch.float64)
    whole = torch.zeros(case.size, case.size, case.size, dtype=torch.float64)
    for strength, a in zip(strengths, components, strict=True):
        whole += strength * a[:, None, None] * a[None, :, None] * a[None, None, :]
    starts = torch.randn(case.starts, case.size, generator=generator, dtype=torch.float64)
    starts = starts / starts.norm(dim=1, keepdim=True)
    ends = _linear(whole, starts) if case.mixed else power_iteration(whole, starts)
    winners = (strengths * (starts @ components.T).abs()).argmax(1)
    hits = (ends - components[winners]).norm(dim=1) < 1e-6  # quadratic convergence ends at roundings, 1e-15
    reached = len(set(winners[hits].tolist()))
    return exact(
        "share of starts that reach the component foretold",
        float(hits.double().mean()),
        method=f"{case.starts} random starts, {reached} of {case.rank} components reached",
        evaluations=case.starts,
    )


def _linear(whole: Tensor, points: Tensor) -> Tensor:
    matrix = whole.mean(0)
    for _ in range(30):
        points = points @ matrix
        points = points / points.norm(dim=1, keepdim=True)
    return points


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The tensor power method converges to the component that leads at its start.",
    source="Anandkumar et al. (2014); lecture, A Dream",
    assumptions={"orthonormal components": lambda case: case.lean == 0},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(lean=0.5),
    corrupted=lambda: Case(mixed=True),
    convincing=lambda: Case(size=30, rank=30, starts=3000),
)
