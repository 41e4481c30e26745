"""A student of k rectified units has poor local minima though it can represent its teacher, k = 6, ..., 20.

Statement: for k orthonormal teacher units, k student units and Gaussian inputs, the expected squared loss has strict
local minima with a risk above zero for every k from 6 to 20.
Source: Safran and Shamir (2018), theorem 1 (recalled, not checked against the paper); lecture, "A Dream". Found here:
up to five units the same start fits the teacher.
Assumptions: 6 <= k <= 20; as many student units as teacher units; orthonormal teacher; Gaussian inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.teacher_student import descend, risk


@dataclass(frozen=True)
class Case:
    """One descent for every number of units; noise: deviation of what is added to its start.

    even: the start has all its units alike, so that descent ends in a saddle, which is no minimum.
    """

    units: tuple[int, ...] = (6, 9, 14, 20)
    noise: float = 0.01
    even: bool = False


def _start(k: int, case: Case, generator: torch.Generator) -> Tensor:
    """Return (1, k, k): every unit but one near its teacher's; the last points away from the one that is missed."""
    if case.even:
        return torch.full((1, k, k), 1 / k, dtype=torch.float64)
    weights = torch.eye(k, dtype=torch.float64)
    weights[-1, -1] = -0.7
    weights[:-1, -1] = 1 / k
    return (weights + case.noise * torch.randn(k, k, generator=generator, dtype=torch.float64))[None]


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    return Prediction("equals", float(len(case.units)))


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    found, risks, curvatures = 0, [], []
    for k in case.units:
        teacher = torch.eye(k, dtype=torch.float64)
        ended = descend(_start(k, case, generator), teacher, most=3000)
        # The curvature comes from the formula of the Hessian; steps in random directions look without it.
        steps = torch.randn(100, k, k, generator=generator, dtype=torch.float64)
        around = ended.weights + 0.01 * steps / steps.flatten(1).norm(dim=1)[:, None, None]
        lowest = bool((risk(around, teacher) > ended.risk).all())
        if bool(ended.poor) and lowest:
            found += 1
            risks.append(float(ended.risk))
            curvatures.append(float(ended.curvature))
    method = "gradient, Hessian and 100 random steps at each end of descent"
    if risks:
        method += f"; risks at least {min(risks):.4f}, curvatures at least {min(curvatures):.4f}"
    return exact("numbers of units with a poor minimum", float(found), method=method, evaluations=len(case.units))


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A ReLU student as wide as its teacher has poor local minima for 6 to 20 units.",
    source="Safran and Shamir (2018), theorem 1; lecture, A Dream",
    assumptions={
        "6 to 20 units": lambda case: min(case.units) >= 6 and max(case.units) <= 20,
        "Gaussian inputs and orthonormal teacher": None,  # built into the closed form and the case
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(units=(2, 3, 4, 5)),
    corrupted=lambda: Case(units=(6, 7), even=True),
    convincing=lambda: Case(units=tuple(range(6, 21))),
)
