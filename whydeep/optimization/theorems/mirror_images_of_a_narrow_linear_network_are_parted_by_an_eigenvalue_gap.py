"""Mirror images of a narrow linear network are parted by an eigenvalue gap, and by nothing modulo invertible matrices.

Statement: of W_2 W_1 with r < min(inputs, outputs) hidden units, two global minima that differ by an invertible matrix
of negative determinant, (W_1, W_2) and (G W_1, W_2 G^-1), are joined by a path whose largest squared risk is
R* + (lambda_r - lambda_{r+1})/2, and by none that stays lower; lambda are the eigenvalues of Syx Sxx^-1 Sxy. Modulo
GL(r) they are one point, and the sublevel sets of the risk on the quotient, a Grassmannian, are all connected.
Why none stays lower: along a path det(U^T Q) changes its sign, U the r leading eigenvectors and Q a basis of what W_1
reads of the whitened inputs; where it is zero Q has a direction orthogonal to U, and at most lambda_1 + ... +
lambda_{r-1} + lambda_{r+1} is explained there (Ky Fan); where Q loses rank it is less.
Source: lecture, "Group Symmetries"; Venturi, Bandeira and Bruna (2019) for the quotient. The height was derived for
this library.
Assumptions: r < min(inputs, outputs); opposite orientation; eigenvalues that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.paths.path import path
from whydeep.optimization.landscape.solvable import linear_networks


@dataclass(frozen=True)
class Case:
    """A global minimum of an inputs-units-outputs network and its image under an invertible matrix.

    mirrored: whether the matrix has a negative determinant. method: the path between the two.
    """

    inputs: int = 4
    units: int = 2
    outputs: int = 3
    samples: int = 40
    mirrored: bool = True
    method: str = "linear"
    seed: int = 0

    def data(self) -> tuple[Tensor, Tensor]:
        """Return x (samples, inputs) and y (samples, outputs)."""
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.samples, self.inputs, generator=generator, dtype=torch.float64)
        slopes = torch.randn(self.inputs, self.outputs, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.samples, self.outputs, generator=generator, dtype=torch.float64)
        return x, x @ slopes + 0.3 * noise


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    x, y = case.data()
    values, _ = linear_networks.explained(x, y)
    gap = 0.5 * float(values[case.units - 1] - values[case.units])
    # Risks of size 1 to 10 in double precision; the gap itself is of size 0.1 to 1.
    return Prediction(
        "equals", gap, tolerance=1e-8, constants={"least risk": linear_networks.least_risk(x, y, case.units)}
    )


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data()
    inner, outer = linear_networks.critical_points(x, y, case.units, generator=generator)[0].weights
    mixer = torch.eye(case.units, dtype=torch.float64)
    mixer[0, -1] = 0.5
    if case.mirrored:
        mixer[0] *= -1
    layers = [
        nn.utils.skip_init(nn.Linear, *sizes, bias=False).double()  # type: ignore[no-untyped-call]
        for sizes in ((case.inputs, case.units), (case.units, case.outputs))
    ]
    problem = Problem(nn.Sequential(*layers), Data(x, y), loss="squared")
    ends = [
        torch.cat([first.reshape(-1), second.reshape(-1)])
        for first, second in ((inner, outer), (mixer @ inner, outer @ torch.linalg.inv(mixer)))
    ]
    problem = problem.at(ends[0])
    found = path(problem, *ends, method=case.method, points=21, refinements=3)  # type: ignore[arg-type]
    return exact(
        "rise above the global minimum",
        found.profile.highest - problem.risk(),
        method="21 positions on the path, three times refined",
        evaluations=len(found.profile.positions),
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Two global minima of a narrow linear network that are mirror images of each other are joined over a "
    "pass as high as half the gap between the last eigenvalue learned and the next one.",
    source='Lecture, "Group Symmetries"; Venturi, Bandeira and Bruna (2019)',
    assumptions={
        "the hidden layer is narrower than inputs and outputs": lambda case: (
            case.units < min(case.inputs, case.outputs)
        ),
        "the two ends have opposite orientation": lambda case: case.mirrored,
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # A matrix of positive determinant: the path stays in the global minima.
    fails_on=lambda: Case(mirrored=False),
    # Straight through the weights, where a unit passes zero.
    corrupted=lambda: Case(method="line"),
    convincing=lambda: Case(inputs=8, units=4, outputs=7, samples=200),
)
