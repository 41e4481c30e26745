"""How large must ADMM's parameters be for convergence to be seen, and what does the network lose by them?

Between beta = 1 and a small ridge, which one uses, and the smallest values that the lecture's conditions allow, a
ladder of runs goes the way on a logarithmic scale and reports where each ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.optimization.alternating.admm.sweep import sweep
from whydeep.optimization.alternating.majoriser import exact_constant

from .conditions import theorem_conditions
from .kkt import State, lagrangian_of

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Rung:
    """One run of ADMM.

    share: of the way from (1, ridge) to compliance on a logarithmic scale; beta and ridge are what it used.
    path: norm of all KKT residuals over that of [X, Y] at the start and after every sweep; it ends where a step broke
    down. kkt: the last of it; infinite where a step broke down. weights: W_1..W_N at the end.
    fit: the squared loss at the end over that of outputs zero: 1 has learnt nothing, 0 fits the data.
    cap: the largest ||f|| / ||Y|| that any KKT point can have with this ridge, see `conditions`.
    converged: whether kkt is at most the tolerance asked for.
    """

    share: float
    beta: tuple[float, ...]
    ridge: float
    kkt: float
    fit: float
    cap: float | None
    converged: bool
    path: tuple[float, ...]
    weights: tuple[Tensor, ...] = field(compare=False, repr=False)


def ladder(
    problem: Problem,
    *,
    shares: Sequence[float] = SHARES,
    ridge: float = 1e-2,
    sweeps: int = 200,
    tolerance: float = 1e-6,
) -> tuple[Rung, ...]:
    """Train by ADMM from the network's own weights once for each of `shares` and return how the runs ended.

    beta_i = compliant_i^share and ridge_share = ridge^(1 - share) compliant^share, in the order of `shares`.
    tolerance: on Rung.kkt; 1e-6 is that of `ADMM`. Computes in float64.

    Raises `ValueError` when the network has not two hidden layers, or the loss is not the squared one.
    Cost: `sweeps` sweeps over all samples a share, each with its KKT residual (three products a layer).
    """
    if problem.per_sample.name != "squared":
        raise ValueError(f"the loss is {problem.per_sample.name}; the conditions are for the squared loss")
    betas, compliant = theorem_conditions(problem).compliant()
    return tuple(
        _run(
            problem,
            share,
            tuple(beta**share for beta in betas) if share < 1 else betas,
            ridge ** (1 - share) * compliant**share if share < 1 else compliant,
            sweeps,
            tolerance,
        )
        for share in sorted(shares)
    )


def smallest_convergent(rungs: Sequence[Rung]) -> Rung | None:
    """Return the least rung from which on every larger one has converged; None where the largest has not."""
    found = None
    for rung in sorted(rungs, key=lambda rung: rung.share, reverse=True):
        if not rung.converged:
            break
        found = rung
    return found


def _run(problem: Problem, share: float, beta: tuple[float, ...], ridge: float, sweeps: int, tolerance: float) -> Rung:
    found = theorem_conditions(problem, beta, ridge)
    lagrangian, scale = lagrangian_of(problem, beta=beta, ridge=ridge), math.hypot(*found.norms)
    chain = lagrangian.chain
    state = State.feasible(chain, chain.weights(), chain.rows(problem.train))
    path = [lagrangian.residuals(state).norm / scale]
    try:
        for _ in range(sweeps):
            state = sweep(lagrangian, state, exact_constant)
            path.append(lagrangian.residuals(state).norm / scale)
        kkt = path[-1]
    except ArithmeticError:
        kkt = math.inf  # the fit is that of the last iterate
    outputs = chain.outputs(state.weights, state.states[0])
    nothing = float(lagrangian.targets.square().sum())
    fit = float((outputs - lagrangian.targets).square().sum()) / nothing if nothing else 0.0
    return Rung(share, beta, ridge, kkt, fit, found.cap, kkt <= tolerance, tuple(path), state.weights)
