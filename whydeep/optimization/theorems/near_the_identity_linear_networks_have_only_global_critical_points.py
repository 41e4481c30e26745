"""Near the identity a deep linear network has no critical points but its global minima.

Statement: for W_k = I + A_k, k = 1..K, with every |A_k| <= tau < 1,
|grad R|^2 >= 2 K (1 - tau)^(2K - 2) sigma_min(Sxx) (R - min R).
Source: Hardt and Ma (2016); lecture, "Linear Networks". The constant is derived in
`whydeep.optimization.landscape.solvable.linear_networks.gradient_lower_bound`.
Assumptions: residual layers, all |A_k| < 1, Sxx of full rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """Networks of `depth` square layers I + A_k with |A_k| = tau, `networks` of them drawn.

    collapsed: instead A_1 = A_2 = -I, so that the layers are zero. skip: whether the identity is there.
    """

    size: int = 4
    depth: int = 4
    tau: float = 0.4
    networks: int = 30
    samples: int = 40
    collapsed: bool = False
    skip: bool = True


def _below_one(case: Case) -> bool:
    return case.tau < 1 and not case.collapsed


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    # In units of sigma_min(Sxx) (R - min R), so that one number serves all the networks.
    value = 2 * case.depth * (1 - case.tau) ** (2 * case.depth - 2)
    return Prediction("at least", value, constants={"tau": case.tau, "layers": float(case.depth)})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = draw(case.samples, case.size)
    y = x @ draw(case.size, case.size) + 0.1 * draw(case.samples, case.size)
    # The least risk of all linear maps by QR, the smallest eigenvalue by SVD of the samples.
    residue = y - x @ torch.linalg.lstsq(x, y).solution
    least = 0.5 * float(residue.square().sum()) / len(x)
    smallest = float(torch.linalg.svdvals(x)[-1]) ** 2 / len(x)
    identity = torch.eye(case.size, dtype=torch.float64)
    ratios = []
    for _ in range(case.networks):
        layers = []
        for number in range(case.depth):
            drawn = draw(case.size, case.size)
            drawn = case.tau * drawn / torch.linalg.matrix_norm(drawn, 2)
            if case.collapsed and number < 2:
                drawn = -identity
            layers.append((drawn + identity if case.skip else drawn).requires_grad_())
        risk = 0.5 * (reduce(lambda state, weight: state @ weight.T, layers, x) - y).square().sum() / len(x)
        gradients = torch.autograd.grad(risk, layers)
        ratios.append(sum(float(g.square().sum()) for g in gradients) / (smallest * (float(risk.detach()) - least)))
    return exact(
        "least squared gradient over excess risk",
        min(ratios),
        method=f"automatic differentiation at {case.networks} networks",
        evaluations=case.networks,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Near the identity a deep linear network has no critical points but its global minima.",
    source="Hardt and Ma (2016), theorem 2.2; lecture, Linear Networks",
    assumptions={"residual layers with all |A_k| below 1": _below_one},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Two layers that are zero: every gradient is zero, and the risk is not.
    fails_on=lambda: Case(collapsed=True),
    # Without the identity four factors of norm 0.4 let little gradient through: 0.4^6 = .004 against 0.6^6 = .047.
    corrupted=lambda: Case(skip=False),
    convincing=lambda: Case(size=12, depth=8, tau=0.3, networks=300, samples=200),
)
