"""Two more units turn the poor minima of a ReLU student into saddles: descent goes on to a global minimum.

Statement: where a student of k units is caught in a poor minimum (6 <= k <= 20), one of k + 2 units that starts there,
its spare units small and random, reaches the teacher.
Source: Safran and Shamir (2018), where no poor end was seen with k + 2 units (recalled, not checked against the
paper); Safran, Yehudai and Shamir (2021): one more unit makes a saddle under conditions; lecture, "A Dream".
Assumptions: two spare units at least; Gaussian inputs; orthonormal teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.teacher_student import NEAR_GLOBAL, descend


@dataclass(frozen=True)
class Case:
    """`starts` descents for k = `units` teacher units and `spare` more student units.

    split: the spare units are exact shares of the unit that points the wrong way, so that nothing tells them apart.
    """

    units: int = 8
    spare: int = 2
    starts: int = 5
    split: bool = False


def _caught(case: Case, generator: torch.Generator) -> Tensor:
    """Return (1, k, k), the poor minimum in which one unit points away from the teacher's that it misses."""
    k = case.units
    weights = torch.eye(k, dtype=torch.float64)
    weights[-1, -1] = -0.7
    weights[:-1, -1] = 1 / k
    weights = weights + 0.01 * torch.randn(k, k, generator=generator, dtype=torch.float64)
    return descend(weights[None], torch.eye(k, dtype=torch.float64), most=5000).weights


def _predict(_case: Case, _generator: torch.Generator) -> Prediction:
    # Descent stops below NEAR_GLOBAL; twice that leaves room for the few per cent by which 4,000 samples err.
    return Prediction("at most", 2 * NEAR_GLOBAL)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    k = case.units
    caught = _caught(case, generator).expand(case.starts, k, k)
    before = caught
    if case.split:
        share = caught[:, -1:] / (1 + case.spare)
        caught = torch.cat([caught[:, :-1], share.expand(case.starts, 1 + case.spare, k)], 1)
    elif case.spare:
        small = 0.1 * torch.randn(case.starts, case.spare, k, generator=generator, dtype=torch.float64)
        caught = torch.cat([caught, small], 1)
    ended = descend(caught, torch.eye(k, dtype=torch.float64), most=4000)
    # The risks by Gaussian samples, apart from the closed form that led the descent: 1/2 the mean squared difference.
    x = torch.randn(4000, k, generator=generator, dtype=torch.float64)
    target = x.relu().sum(1)
    values = [0.5 * ((x @ w.T).relu().sum(1) - target).square().mean() for w in (*ended.weights, before[0])]
    return exact(
        "highest risk at the end of descent",
        float(torch.stack(values[:-1]).max()),
        method=f"4,000 Gaussian samples, {case.starts} descents from a poor minimum of risk {float(values[-1]):.4f}",
        evaluations=case.starts,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="With two more units than its teacher a ReLU student leaves the poor minima of the smaller one.",
    source="Safran and Shamir (2018); Safran, Yehudai and Shamir (2021); lecture, A Dream",
    assumptions={"two spare units at least": lambda case: case.spare >= 2},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(spare=0),
    corrupted=lambda: Case(split=True, starts=1),
    convincing=lambda: Case(units=14, starts=20),
)
