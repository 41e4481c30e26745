"""Paths between rectified networks stay low as the width grows: overparametrisation makes the landscape simple.

Statement: between two networks with one hidden layer of m rectified units, of n inputs, there is a path on which the
risk is at most max(u, eps), u the risk of the worse end, and eps falls at least like m^(-1/n).
Measured: the certified maximum of the constructive path between networks with random rows and fitted output weights,
and its exponent in m, one fit a pair of networks over all widths.
Source: Freeman and Bruna (2017), theorem 2.4 and corollary 2.5 (eps -> 0); the exponent -1/n is that of the lecture's
slide "Nonlinear ReLU network". It is an upper bound: smooth targets are reached much faster.
Assumption: the m units are different ones, spread over directions and offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, mean
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.paths.path import path


@dataclass(frozen=True)
class Case:
    """Pairs of networks of several widths on y = sin(3 |x|), x uniform in a cube of `inputs` dimensions.

    distinct: how many different units a network has; the others are copies of them. None: all are.
    method: "relu" is the constructive path, "line" the straight one.
    """

    inputs: int = 2
    widths: tuple[int, ...] = (8, 24, 64)
    pairs: int = 6
    samples: int = 200
    distinct: int | None = None
    method: str = "relu"


def different_units(case: Case) -> bool:
    """Whether a wider network has more different units."""
    return case.distinct is None


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the slide's exponent, -1/n."""
    return Prediction("at most", -1 / case.inputs, constants={"inputs": case.inputs})


def _rows(case: Case, width: int, generator: torch.Generator) -> Tensor:
    """Return directions of length 1 with offsets in [-1, 1], (width, inputs + 1)."""
    number = min(width, case.distinct or width)
    directions = torch.randn(number, case.inputs, generator=generator, dtype=torch.float64)
    offsets = 2 * torch.rand(number, 1, generator=generator, dtype=torch.float64) - 1
    rows = torch.cat([directions / directions.norm(dim=1, keepdim=True), offsets], 1)
    return rows[torch.arange(width) % number]


def _fitted(rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the parameters (p,) with the output weights of least squares, small where they are not determined."""
    hidden = torch.relu(x @ rows[:, :-1].T + rows[:, -1])
    units = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
    outer = torch.linalg.lstsq(units, y, rcond=1e-6, driver="gelsd").solution.T
    return torch.cat([rows[:, :-1].reshape(-1), rows[:, -1], outer[:, :-1].reshape(-1), outer[:, -1]])


def _highest(case: Case, width: int, x: Tensor, y: Tensor, generator: torch.Generator) -> float:
    sizes = ((case.inputs, width), (width, 1))
    layers = [nn.utils.skip_init(nn.Linear, *size).double() for size in sizes]  # type: ignore[no-untyped-call]
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    problem = Problem(nn.Sequential(layers[0], nn.ReLU(), layers[1]), Data(x, y), loss="squared")
    a, b = (_fitted(_rows(case, width, generator), x, y) for _ in range(2))
    # The oracle has half of the units, so that both networks keep the other half.
    oracle = {"oracle": [width // 2]} if case.method == "relu" else {}
    found = path(problem, a, b, method=case.method, points=3, refinements=2, **oracle)  # type: ignore[arg-type]
    return found.profile.highest if found.certified is None else found.certified


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Fit the exponent of the highest risk on the path in the width, one fit a pair."""
    # Exponents of single pairs deviate by 0.1 to 0.15 (0.5 on straight lines), so the interval of 6 pairs reaches 0.25
    # (of 16, 0.5) from their mean; the means, -1.5 in the good case, 0 with copies and 0.5 on straight lines, lie
    # twice that from -1/2 away.
    exponents = []
    for _ in range(case.pairs):
        x = 2 * torch.rand(case.samples, case.inputs, generator=generator, dtype=torch.float64) - 1
        y = torch.sin(3 * x.norm(dim=1, keepdim=True))
        heights = [_highest(case, width, x, y, generator) for width in case.widths]
        exponents.append(float(np.polyfit(np.log(case.widths), np.log(heights), 1)[0]))
    return mean(
        "exponent of the highest risk in the width",
        exponents,
        confidence=0.99,
        method=f"log-log fits over widths {min(case.widths)} to {max(case.widths)}, Student over {case.pairs} pairs",
        evaluations=case.pairs * len(case.widths),
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The highest risk on the constructive path between two rectified networks falls with the width m at "
    "least like m^(-1/n), n the number of inputs.",
    source='Freeman and Bruna (2017), theorem 2.4 and corollary 2.5; the rate: lecture, "Nonlinear ReLU network"',
    assumptions={"the units of a wider network are different ones": different_units},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Four units in many copies are as narrow as four.
    fails_on=lambda: Case(distinct=4),
    # The straight line between two networks: units that have nothing to do with each other are averaged.
    corrupted=lambda: Case(method="line", pairs=16),
    convincing=lambda: Case(widths=(8, 16, 32, 64, 128, 256), pairs=20, samples=400),
)
