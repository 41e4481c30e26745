"""Wide linear networks have connected level sets: between any two runs a path that never rises above the worse one.

Statement: for R(W_1, ..., W_K) = E |W_K ... W_1 X - Y|^2 with every hidden width n_k > min(n_0, n_K), the sublevel sets
{R <= u} are connected, N_u = 1 for all u.
Source: lecture, "Simple Topology of Linear Networks", item 1; Freeman and Bruna (2017), proposition 2.2. With
n_k >= min(n_0, n_K) it fails: of 1/2 (w_2 w_1 - 1)^2 the set below 1/2 falls into w_1 > 0 and w_1 < 0.
Assumption: all hidden widths above the narrower of inputs and outputs.
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
    """Pairs of linear networks of these widths, each with its output weights fitted, and the path between them.

    method: "linear" is the path modulo the general linear group; "line" goes straight through the weights.
    """

    widths: tuple[int, ...] = (3, 4, 5, 4)
    pairs: int = 3
    samples: int = 20
    positions: int = 31
    method: str = "linear"


def wide(case: Case) -> bool:
    """Whether every hidden layer is wider than the narrower of inputs and outputs."""
    return min(case.widths[1:-1]) > min(case.widths[0], case.widths[-1])


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return that nothing is climbed; 1e-10 is for some hundred roundings of risks of size 1."""
    return Prediction("at most", 1e-10, constants={"narrower side": min(case.widths[0], case.widths[-1])})


def _network(case: Case, x: Tensor, y: Tensor, generator: torch.Generator) -> nn.Sequential:
    layers = [
        nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False).double()  # type: ignore[no-untyped-call]
        for inputs, outputs in pairwise(case.widths)
    ]
    hidden = x
    with torch.no_grad():
        for layer in layers[:-1]:
            nn.init.normal_(layer.weight, generator=generator)
            hidden = layer(hidden)
        layers[-1].weight.copy_(torch.linalg.lstsq(hidden, y, driver="gelsd").solution.T)
    return nn.Sequential(*layers)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Walk the paths and return how far the risk rises above the worse end, at the most."""
    climbed = 0.0
    for _ in range(case.pairs):
        x = torch.randn(case.samples, case.widths[0], generator=generator, dtype=torch.float64)
        y = x.sum(1, keepdim=True) + torch.randn(
            case.samples, case.widths[-1], generator=generator, dtype=torch.float64
        )
        a, b = (_network(case, x, y, generator) for _ in range(2))
        if case.widths[0] == case.widths[1]:
            # Square factors: the pair with determinants of opposite sign, which is the one that can be parted.
            with torch.no_grad():
                first, second = (next(iter(net.parameters())) for net in (a, b))
                if torch.linalg.det(first) * torch.linalg.det(second) > 0:
                    # The first unit with the other sign, in and out: the same function.
                    second[0] *= -1
                    list(b.parameters())[1][:, 0] *= -1
        problem = Problem(a, Data(x, y), loss="squared")
        found = path(problem, a, b, method=case.method, points=3, refinements=0)  # type: ignore[arg-type]
        model = problem.copy()
        risks = []
        for k in range(case.positions):
            model.load_state_dict(found.at(k / (case.positions - 1)))
            risks.append(problem.with_model(model).risk())
        climbed = max(climbed, max(risks) - max(risks[0], risks[-1]))
    return exact(
        "largest rise above the worse end",
        climbed,
        method=f"{case.positions} positions on each of {case.pairs} paths",
        evaluations=case.pairs * case.positions,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Between any two parameters of a linear network with hidden layers wider than the narrower side there is "
    "a path on which the risk never exceeds that of the worse end.",
    source='Freeman and Bruna (2017), proposition 2.2; lecture, "Simple Topology of Linear Networks"',
    assumptions={"every hidden layer is wider than inputs or outputs": wide},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # One hidden unit between one input and one output: the sign of w_1 can only change through w_1 = 0.
    fails_on=lambda: Case(widths=(1, 1, 1)),
    # Straight through the weights, without the quotient: products of averages are not averages of products.
    corrupted=lambda: Case(method="line"),
    convincing=lambda: Case(widths=(6, 8, 9, 7, 10), pairs=10, samples=60, positions=101),
)
