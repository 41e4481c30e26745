"""A ridge leaves the level sets of wide linear networks connected: two layers, and more hidden units than one side has.

Statement: for E(W_1, W_2) = 1/2 E |W_2 W_1 X - Y|^2 + ridge (|W_1|^2 + |W_2|^2) with n_1 > min(n_0, n_2), the sublevel
sets {E <= u} are connected, N_u = 1 for all u. Measured on networks and their mirror images (hidden units turned by an
orthogonal matrix of determinant -1), which lie at one height, so that a path has no room at all.
Source: lecture, "Simple Topology of Linear Networks", item 2; Freeman and Bruna (2017), proposition 2.2.
With one hidden unit between one input and one output it fails: E >= 1/2 E Y^2 wherever w_1 = 0, which every path from
(c, c) to (-c, -c) passes; the straight line goes no higher.
Assumption: more hidden units than inputs or than outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.paths.path import path


@dataclass(frozen=True)
class Case:
    """Pairs of two-layer linear networks of these widths, mirror images of each other, and the path between them.

    method: "linear" is the constructed path; "line" goes straight through the weights.
    """

    widths: tuple[int, int, int] = (3, 4, 2)
    ridge: float = 0.05
    pairs: int = 3
    samples: int = 20
    method: str = "linear"


def wide(case: Case) -> bool:
    """Whether the hidden layer is wider than the narrower of inputs and outputs."""
    return case.widths[1] > min(case.widths[0], case.widths[2])


def predict(case: Case, _generator: torch.Generator) -> Prediction:
    """Return that nothing is climbed; 1e-9 is for some thousand roundings of objectives of size 1 to 10."""
    return Prediction("at most", 1e-9, constants={"narrower side": min(case.widths[0], case.widths[2])})


def _ends(case: Case, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a network with fitted output weights and its mirror image, as vectors (p,)."""
    inner = torch.randn(case.widths[1], case.widths[0], generator=generator, dtype=torch.float64)
    outer = torch.linalg.lstsq(x @ inner.T, y, driver="gelsd").solution.T
    # Both layers of one length: a long one would put the ends higher than anything in between.
    scale = (outer.norm() / inner.norm()).sqrt()
    inner, outer = scale * inner, outer / scale
    drawn = torch.randn(case.widths[1], case.widths[1], generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(drawn)
    if torch.linalg.det(turn) > 0:
        turn[0] *= -1
    pairs = (inner, outer), (turn @ inner, outer @ turn.T)
    first, second = (torch.cat([one.reshape(-1), other.reshape(-1)]) for one, other in pairs)
    return first, second


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Walk the paths and return how far the objective rises above the ends, at the most."""
    climbed, looked = 0.0, 0
    layers = [
        nn.utils.skip_init(nn.Linear, *sizes, bias=False).double()  # type: ignore[no-untyped-call]
        for sizes in pairwise(case.widths)
    ]
    for layer in layers:
        nn.init.zeros_(layer.weight)
    for _ in range(case.pairs):
        x = torch.randn(case.samples, case.widths[0], generator=generator, dtype=torch.float64)
        noise = torch.randn(case.samples, case.widths[2], generator=generator, dtype=torch.float64)
        y = x.sum(1, keepdim=True) + 0.5 * noise
        problem = Problem(nn.Sequential(*layers), Data(x, y), loss="squared")
        ends = _ends(case, x, y, generator)
        found = path(problem, *ends, method=case.method, ridge=case.ridge, points=5, refinements=0)  # type: ignore[arg-type]
        risks = found.profile.risk
        climbed = max(climbed, found.profile.highest - float(torch.maximum(risks[0], risks[-1])))
        looked += len(risks)
    return exact(
        "largest rise above the ends",
        climbed,
        method=f"{looked} positions on {case.pairs} paths",
        evaluations=looked,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Between any two parameters of a two-layer linear network with more hidden units than the narrower side "
    "there is a path on which risk plus ridge never exceeds the worse end.",
    source='Freeman and Bruna (2017), proposition 2.2; lecture, "Simple Topology of Linear Networks"',
    assumptions={"the hidden layer is wider than inputs or outputs": wide},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # One hidden unit: the line through zero is the lowest way to change the sign of w_1.
    fails_on=lambda: Case(widths=(1, 1, 1), method="line"),
    # Straight through the weights, where hidden units cancel.
    corrupted=lambda: Case(method="line"),
    convincing=lambda: Case(widths=(6, 8, 5), pairs=10, samples=60),
)
