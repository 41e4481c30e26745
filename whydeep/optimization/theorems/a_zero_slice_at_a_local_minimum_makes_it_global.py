"""A local minimum of a factorised problem with a slice that is zero is a global minimum.

Statement: for min 1/2 |Y - U V^T|^2 + penalty/2 (|U|^2 + |V|^2) over r slices, a local minimum at which some slice is
zero (after a rotation of the slices, which changes nothing) is global, and its value is that of the convex problem with
the nuclear norm. With more slices than singular values above the penalty, descent ends so.
Source: Haeffele and Vidal (2015, 2017), theorem on zero slices (recalled, not checked against the papers); lecture, "A
Deep Dream".
Assumptions: loss and regulariser positively homogeneous of equal degree in each slice; spare slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.factorization import concentrate, descend, objective, zero_slices


@dataclass(frozen=True)
class Case:
    """Y (8, 6) with singular values 4, 3, 2 and small noise; `slices` of which three are needed at penalty 1.

    stuck: starts are exact zeros, a critical point that is no local minimum; its slices are all zero.
    """

    slices: int = 5
    starts: int = 4
    penalty: float = 1.0
    steps: int = 1500
    stuck: bool = False

    def target(self) -> Tensor:
        """Return Y."""
        generator = torch.Generator().manual_seed(0)
        left, _ = torch.linalg.qr(torch.randn(8, 3, generator=generator, dtype=torch.float64))
        right, _ = torch.linalg.qr(torch.randn(6, 3, generator=generator, dtype=torch.float64))
        noise = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        strengths = torch.tensor([4.0, 3.0, 2.0], dtype=torch.float64)
        target: Tensor = (left * strengths) @ right.T + 0.02 * noise
        return target


def _spare(case: Case) -> bool:
    return case.slices > int((torch.linalg.svdvals(case.target()) > case.penalty).sum())


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    # The convex problem by soft thresholding; what descent leaves is far below 1e-8 of a value of about 8.
    strengths = torch.linalg.svdvals(case.target())
    shrunk = (strengths - case.penalty).clamp_min(0)
    value = float(0.5 * (strengths - shrunk).square().sum() + case.penalty * shrunk.sum())
    return Prediction("equals", value, tolerance=1e-7)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    y = case.target()
    ends, zeros = [], []
    for _ in range(case.starts):
        u = torch.randn(8, case.slices, generator=generator, dtype=torch.float64)
        v = torch.randn(6, case.slices, generator=generator, dtype=torch.float64)
        if case.stuck:
            u, v = torch.zeros_like(u), torch.zeros_like(v)
        u, v = descend(u, v, y, penalty=case.penalty, steps=case.steps)
        ends.append(float(objective(u, v, y, penalty=case.penalty)))
        zeros.append(int(zero_slices(concentrate(u, v)).sum()))
    return exact(
        "highest objective at the end of descent",
        max(ends),
        method=f"gradient descent from {case.starts} starts, {min(zeros)} to {max(zeros)} slices zero",
        evaluations=case.starts * case.steps,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A local minimum of a factorised problem with a zero slice is a global minimum.",
    source="Haeffele and Vidal (2015); lecture, A Deep Dream",
    assumptions={"more slices than the solution needs": _spare},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(slices=1),
    # All slices zero, and the gradient, too: but it is a saddle, so that the criterion says nothing there.
    corrupted=lambda: Case(stuck=True),
    convincing=lambda: Case(slices=12, starts=50, steps=4000),
)
