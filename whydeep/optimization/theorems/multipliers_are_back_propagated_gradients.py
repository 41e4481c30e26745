"""Where ADMM ends, its multipliers are the gradients that back-propagation computes.

Statement: at a KKT point Lambda_i = d l / d V_i for every layer i, l the loss summed over samples: the multipliers,
which no chain rule has crossed a layer for, are the chain rule's gradients.
Source: slides "Solved via ADMM (KKT conditions)"; derived: 0 = -Lambda_N + V_N - Y is Lambda_N = dl/dV_N, and
0 = -Lambda_i + W_{i+1}' (Lambda_{i+1} * s'(U_{i+1})) is the recursion of back-propagation from it.
Assumption: the iterate is a KKT point; checked by its residual, which does not look at the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim, OnDraw
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.sweep import sweep
from whydeep.optimization.alternating.majoriser import exact_constant
from whydeep.optimization.lagrangian.kkt import Lagrangian, State, lagrangian_of


@dataclass(frozen=True)
class Case:
    """A sigmoid network trained by ADMM on a smooth function of random inputs.

    sweeps: enough for a KKT point, or too few. stretched: the factor of the first layer's multipliers as they are read
    off; 1, unless the mechanism is damaged.
    """

    widths: tuple[int, ...] = (2, 4, 3, 1)
    samples: int = 20
    beta: float = 3.0
    ridge: float = 1.0
    sweeps: int = 300
    stretched: float = 1.0


def _reached(case: Case, seed: int) -> tuple[Problem, Lagrangian, State]:
    return _trained(replace(case, stretched=1.0), seed)


@lru_cache(maxsize=8)
def _trained(case: Case, seed: int) -> tuple[Problem, Lagrangian, State]:
    """The network at the end of its training, and ADMM's last iterate."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(case.samples, case.widths[0], dtype=torch.float64, generator=generator)
    # Four times a sigmoid: large enough beside the ridge for the network to learn it, so that no multiplier is nought.
    y = 4 * torch.sigmoid(x.sum(1, keepdim=True)).expand(-1, case.widths[-1]).clone()
    model = mlp(case.widths, activation="sigmoid", init="xavier", gain=4.0, generator=generator).double()
    problem = Problem(model, Data(x, y), loss="squared")
    lagrangian = lagrangian_of(problem, beta=case.beta, ridge=case.ridge)
    chain = lagrangian.chain
    state = State.feasible(chain, chain.weights(), x)
    for _ in range(case.sweeps):
        state = sweep(lagrangian, state, exact_constant)
    chain.load(state.weights)
    return problem, lagrangian, state


def _is_kkt_point(case: Case, generator: torch.Generator) -> bool:
    # The start has a residual of order ten; 1e-5 is far below the multipliers, which are of order 0.1.
    _, lagrangian, state = _reached(case, generator.initial_seed())
    return lagrangian.residuals(state).norm < 1e-5


def _directions(state: State, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed ^ 1)
    return [torch.randn(m.shape, dtype=m.dtype, generator=generator) for m in state.multipliers]


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    problem, _, state = _reached(case, generator.initial_seed())
    assert isinstance(problem.model, nn.Sequential)
    assert isinstance(problem.train.x, Tensor)
    value, found = problem.train.x, []
    for index, module in enumerate(problem.model):
        value = module(value)
        if isinstance(module, nn.Sigmoid) or index == len(problem.model) - 1:
            found.append(value)
    gradients = torch.autograd.grad(problem.per_sample(value, problem.train.targets).sum(), found)
    projected = sum(
        float((d * g).sum()) for d, g in zip(_directions(state, generator.initial_seed()), gradients, strict=True)
    )
    # Multipliers and gradients differ by about the KKT residual, at most 1e-5, times the norms of the weights above
    # (below 4 each); an error of 20 % in the first layer's multipliers moves the value by some 0.1.
    return Prediction("equals", projected, tolerance=1e-3, constants={"beta": case.beta, "ridge": case.ridge})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    _, _, state = _reached(case, generator.initial_seed())
    read = [case.stretched * state.multipliers[0], *state.multipliers[1:]]
    value = sum(float((d * m).sum()) for d, m in zip(_directions(state, generator.initial_seed()), read, strict=True))
    return exact(
        "ADMM's multipliers along a random direction",
        value,
        method=f"after {case.sweeps} sweeps",
        evaluations=case.sweeps,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="At a KKT point ADMM's multipliers are the gradients of the loss by the layers' states.",
    source="Lecture, ADMM for DNN Learning, slide 7 (KKT conditions); Zeng, Lin, Yao and Zhou (JMLR 2021)",
    assumptions={"the last iterate is a KKT point": OnDraw(_is_kkt_point)},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Three sweeps from multipliers zero.
    fails_on=lambda: Case(sweeps=3),
    corrupted=lambda: Case(stretched=1.2),
    convincing=lambda: Case(widths=(3, 8, 8, 8, 2), samples=60, sweeps=1500),
)
