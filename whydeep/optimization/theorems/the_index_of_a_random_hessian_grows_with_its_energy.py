"""The index of a random Hessian grows with the energy: none below a critical energy, almost half far above it.

Statement: for H = H0 + H1, a Wishart matrix of ratio phi and a Wigner matrix of variance 2 eps, freely independent,
the fraction of negative eigenvalues is 1 + (arg G0 + Im P(G0))/pi with G0 the root of
2 eps phi G^3 - 2 eps G^2 + (phi - 1) G - 1 = 0 in the lower half plane, and zero up to
eps_c = (1 - 20 phi - 8 phi^2 + (1 + 8 phi)^(3/2))/16.
Source: Pennington and Bahri (2017); lecture, slides on the Hessian and random matrices (85). Matrices drawn from the
model are measured: this checks the algebra; whether networks follow the model is measured elsewhere.
Assumptions: H0 and H1 freely independent (eigenvectors unrelated); 0 < phi < 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable import pennington_bahri


@dataclass(frozen=True)
class Case:
    """Matrices of size `parameters`, at the energies `ratios` times eps_c.

    aligned: both parts have the same eigenvectors, in the same order. variance: of the Wigner part, in units of 2 eps.
    """

    parameters: int = 400
    phi: float = 0.25
    ratios: tuple[float, ...] = (0.8, 1.5, 3.0, 11.5)
    aligned: bool = False
    variance: float = 1.0


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    critical = pennington_bahri.critical_energy(case.phi)
    values = {f"index at {r:g} eps_c": pennington_bahri.index(case.phi, r * critical) for r in case.ratios}
    # The count of negative eigenvalues of one matrix is rigid: it moves by about one, and by the drift O(1) of a
    # finite size; five of `parameters`, averaged over the energies. Half the variance moves the mean by .045.
    return Prediction(
        "equals",
        sum(values.values()) / len(values),
        tolerance=5 / case.parameters,
        constants={"eps_c": critical} | values,
    )


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    residuals = round(case.parameters / case.phi)
    phi = case.parameters / residuals
    shape = (1 - 20 * phi - 8 * phi**2 + (1 + 8 * phi) ** 1.5) / 16
    indices = []
    for ratio in case.ratios:
        jacobian = torch.randn(residuals, case.parameters, generator=generator, dtype=torch.float64)
        drawn = torch.randn(case.parameters, case.parameters, generator=generator, dtype=torch.float64)
        deviation = math.sqrt(2 * ratio * shape * case.variance)
        wishart = jacobian.T @ jacobian / residuals
        wigner = deviation * (drawn + drawn.T) / math.sqrt(2 * case.parameters)
        if case.aligned:
            values = torch.linalg.eigvalsh(wishart) + torch.linalg.eigvalsh(wigner)
        else:
            values = torch.linalg.eigvalsh(wishart + wigner)
        indices.append(float((values < 0).double().mean()))
    text = ", ".join(f"{i:.4f} at {r:g} eps_c" for i, r in zip(indices, case.ratios, strict=True))
    return exact("mean index over the energies", sum(indices) / len(indices), method=f"drawn matrices: {text}")


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The downhill directions of a random Hessian begin at a critical energy and grow in number above it.",
    source="Pennington and Bahri (2017); lecture, slide 85",
    assumptions={
        "the two parts are freely independent": lambda case: not case.aligned,
        "fewer parameters than residuals": lambda case: 0 < case.phi < 1,
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Equal eigenvectors in equal order: the sums of the quantiles, more of which are negative.
    fails_on=lambda: Case(aligned=True),
    corrupted=lambda: Case(variance=0.5),
    convincing=lambda: Case(parameters=1200),
)
