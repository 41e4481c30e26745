"""With large enough penalties ADMM goes to a KKT point, from any finite start, at the rate O(1/k).

Statement: for sigmoid units and the squared loss, with beta_1, beta_2, beta_3 and lambda as the lecture's conditions
ask, the mean over sweeps of the squared KKT residual, (1/K) sum_{k <= K} ||grad L(z_k)||^2, falls like 1/K.
Source: slides "Convergence of ADMM" (any finite initial point; three layers for example); the rate: Zeng, Lin, Yao and
Zhou, JMLR 2021 (recalled, not checked against the paper).
Assumptions: the conditions of `theorem_conditions`, which are checked.
The sum is taken from some sweep on: the rate speaks of the tail, and a start with a residual of 1e7 would hide in its
first term whether the rest ever vanishes. No mean of squares falls faster than 1/K, so the exponent is -1 exactly when
the squared residuals can be summed.
What it is worth: compliant parameters hold the outputs near nought (see `conditions`). Convergence itself is seen far
below the thresholds, and where beta is of order one it may fail: that is the case that breaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim, OnDraw
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.training import Outcome, Status
from whydeep.core.verdict import Prediction
from whydeep.optimization.alternating.admm.sweep import sweep
from whydeep.optimization.alternating.majoriser import exact_constant
from whydeep.optimization.lagrangian.conditions import theorem_conditions
from whydeep.optimization.lagrangian.kkt import State, lagrangian_of


@dataclass(frozen=True)
class Case:
    """A sigmoid network without biases for the product of two inputs, and where ADMM starts.

    share: how far beta and ridge go from 1 to the smallest compliant ones, on a logarithmic scale; 1 complies.
    spread: standard deviation of the start's states and multipliers, which are random, not a forward pass.
    dual: factor of the multipliers' steps; 1, unless the mechanism is damaged.
    """

    widths: tuple[int, int, int, int] = (2, 4, 3, 1)
    samples: int = 20
    share: float = 1.0
    spread: float = 1.0
    first: int = 5
    sweeps: int = 100
    dual: float = 1.0


def _problem(case: Case, generator: torch.Generator) -> Problem:
    modules: list[nn.Module] = []
    for inputs, outputs in zip(case.widths, case.widths[1:], strict=False):
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, dtype=torch.float64)  # type: ignore[no-untyped-call]
        nn.init.xavier_normal_(linear.weight, gain=4.0, generator=generator)
        modules += [linear, nn.Sigmoid()]
    x = torch.randn(case.samples, case.widths[0], dtype=torch.float64, generator=generator)
    return Problem(nn.Sequential(*modules[:-1]), Data(x, x[:, :1] * x[:, 1:2]), loss="squared")


def _parameters(case: Case, problem: Problem) -> tuple[tuple[float, ...], float]:
    betas, ridge = theorem_conditions(problem).compliant()
    if case.share == 1:
        return betas, ridge
    return tuple(beta**case.share for beta in betas), ridge**case.share


def _complies(case: Case, generator: torch.Generator) -> bool:
    problem = _problem(case, generator)
    return theorem_conditions(problem, *_parameters(case, problem)).hold


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    # The mean is exactly c/K once the sum has converged. Fitted between K = 10 and the end, a residual that is still
    # falling by a tenth of the sum shifts the exponent by less than 0.05; one that stalls brings it near 0.
    return Prediction("grows like", -1.0, tolerance=0.05)


def _measure(case: Case, generator: torch.Generator) -> tuple[Measurement, Outcome]:
    problem = _problem(case, generator)
    betas, ridge = _parameters(case, problem)
    lagrangian = lagrangian_of(problem, beta=betas, ridge=ridge)
    chain = lagrangian.chain

    def draw(like: Tensor) -> Tensor:
        return case.spread * torch.randn(like.shape, dtype=like.dtype, generator=generator)

    forward = State.feasible(chain, chain.weights(), chain.rows(problem.train))
    states = (forward.states[0], *map(draw, forward.states[1:]))
    state = State(forward.weights, states, tuple(map(draw, forward.multipliers)))
    squares = []
    for _ in range(case.first + case.sweeps):
        after = sweep(lagrangian, state, exact_constant)
        steps = zip(state.multipliers, after.multipliers, strict=True)
        state = State(after.weights, after.states, tuple(old + case.dual * (new - old) for old, new in steps))
        squares.append(lagrangian.residuals(state).norm ** 2)
    tail = torch.tensor(squares[case.first :], dtype=torch.float64)
    counts = torch.arange(1, len(tail) + 1, dtype=torch.float64)
    x, y = counts[9:].log(), (tail.cumsum(0) / counts)[9:].log()
    exponent = float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())
    measured = exact(
        "exponent of the mean squared KKT residual in the number of sweeps",
        exponent,
        method=f"least squares on logarithms, {len(tail)} sweeps after the first {case.first}",
        evaluations=len(squares),
    )
    reached = f"the KKT residual is {math.sqrt(squares[-1]):.1g} after {len(squares)} sweeps"
    return measured, Outcome(Status.BUDGET_SPENT, reached)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="With the lecture's penalties ADMM's mean squared KKT residual falls like 1/k from any finite start.",
    source="Lecture, Convergence of ADMM (3 layers for example); Zeng, Lin, Yao and Zhou (JMLR 2021)",
    assumptions={"beta and lambda satisfy the lecture's conditions": OnDraw(_complies)},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # beta and ridge of 1: the iterates go on wandering.
    fails_on=lambda: Case(share=0.0),
    # Multipliers that stay at their random start are no multipliers of any KKT point.
    corrupted=lambda: Case(dual=0.0),
    convincing=lambda: Case(widths=(2, 20, 15, 1), samples=200, spread=10.0, sweeps=1000),
)
