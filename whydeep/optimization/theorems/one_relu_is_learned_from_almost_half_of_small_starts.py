"""One rectified unit learns its teacher from at least (1 - eps)/2 of small random starts.

Statement: gradient descent on E 1/2 (relu(w.x) - relu(v.x))^2, x ~ N(0, I_d), converges to v with probability at least
(1 - eps)/2 when w starts uniformly in a ball of radius eps sqrt(2 pi/(d + 1)) |v|.
Source: Tian (2017), theorem on one ReLU; lecture, "A Dream". The radius is recalled, not checked against the paper
(its abstract gives the order eps/sqrt(d)). The proof counts only the starts nearer to v than |v|; in fact nearly all
starts converge, so the rate measured is far above the bound.
Assumptions: Gaussian inputs, so many samples that the mean gradient is the expected one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """`starts` in `inputs` dimensions, gradients on `samples` fresh inputs a step (the same ones when fixed).

    answer: the unit's answer in the gradient is multiplied by this; 1 is right.
    """

    inputs: int = 10
    eps: float = 0.1
    starts: int = 200
    samples: int = 400
    steps: int = 150
    fixed: bool = False
    answer: float = 1.0


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    return Prediction("at least", (1 - case.eps) / 2, trivial=0.0)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    teacher = draw(case.inputs)
    teacher = teacher / teacher.norm()
    radius = case.eps * math.sqrt(2 * math.pi / (case.inputs + 1))
    spread = torch.rand(case.starts, 1, generator=generator, dtype=torch.float64) ** (1 / case.inputs)
    direction = draw(case.starts, case.inputs)
    weights = radius * spread * direction / direction.norm(dim=1, keepdim=True)
    x = draw(case.samples, case.inputs)
    for _ in range(case.steps):
        if not case.fixed:
            x = draw(case.samples, case.inputs)
        projected = x @ weights.T
        residual = case.answer * projected.relu() - (x @ teacher).relu()[:, None]
        # The noise of the mean gradient falls with the residual: no decrease of the step is needed.
        weights = weights - 0.5 * ((residual * (projected > 0)).T @ x) / case.samples
    # Within a tenth of the teacher is inside its basin beyond doubt; ends elsewhere are of order one away.
    hits = int(((weights - teacher).norm(dim=1) < 0.1).sum())
    return proportion("share of starts that reach the teacher", hits, case.starts, confidence=0.999)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Gradient descent from small random weights learns one ReLU with probability at least (1 - eps)/2.",
    source="Tian (2017); lecture, A Dream",
    assumptions={
        "inputs are Gaussian and as good as unlimited": lambda case: not case.fixed or case.samples > 40 * case.inputs
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Five fixed samples in ten dimensions do not determine the teacher.
    fails_on=lambda: Case(samples=5, fixed=True),
    # The residual of a unit that counts itself twice vanishes at v/2.
    corrupted=lambda: Case(answer=2.0),
    convincing=lambda: Case(inputs=50, starts=1000, samples=4000, steps=300),
)
