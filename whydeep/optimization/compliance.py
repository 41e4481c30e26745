"""What it costs to obey the lecture's convergence theorem: ADMM from compliant parameters down to useful ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whydeep.core.problem import Problem

from .admm_sweep import sweep
from .conditions import theorem_conditions
from .lagrangian import Lagrangian, State, lagrangian_of
from .majoriser import exact_constant


def relative_kkt(lagrangian: Lagrangian, state: State) -> float:
    """Return the Frobenius norm of all KKT residuals over that of [X, 1, Y], as in the history of `ADMM`."""
    x, y = state.states[0], lagrangian.targets
    return lagrangian.residuals(state).norm / math.sqrt(float(x.square().sum()) + len(x) + float(y.square().sum()))


def explained(lagrangian: Lagrangian, weights: tuple[Tensor, ...], x: Tensor) -> float:
    """Return 1 - l(f(X), Y) / l(0, Y): 0 for the network that answers zero to everything, 1 for a perfect one.

    By the squared loss a KKT point has at least 0: with f its outputs, multiplying ridge W_N + (f - Y)'V_{N-1} = 0 by
    W_N' and taking the trace leaves ridge ||W_N||^2 + ||f||^2 = <f, Y>, hence ||f - Y||^2 <= ||Y||^2 - ||f||^2.
    """
    outputs = lagrangian.chain.outputs(weights, x)
    zero = lagrangian.loss.total(torch.zeros_like(outputs), lagrangian.targets)
    return 1 - float(lagrangian.loss.total(outputs, lagrangian.targets) / zero)


@dataclass(frozen=True)
class Rung:
    """One run of ADMM.

    position: 1 at the compliant parameters, 0 at the useful ones, between them on a straight line in logarithms.
    kkt: the relative KKT residual of the start and after every sweep. by_layer: the norms of the last one's parts, as
    `Residuals.by_layer`. explained: as the function, of the last iterate. fault: what broke down, if anything did.
    converged: the last relative KKT residual is within the tolerance.
    """

    position: float
    betas: tuple[float, ...]
    ridge: float
    kkt: tuple[float, ...]
    by_layer: tuple[tuple[float, float, float], ...]
    explained: float
    converged: bool
    fault: str = ""


@dataclass(frozen=True)
class Ladder:
    """Runs from the compliant parameters (first) down to the useful ones (last)."""

    rungs: tuple[Rung, ...]
    sweeps: int
    tolerance: float

    @property
    def smallest(self) -> Rung | None:
        """The run with the smallest parameters that converged, or None."""
        converged = [rung for rung in self.rungs if rung.converged]
        return min(converged, key=lambda rung: rung.position) if converged else None


def climb(
    problem: Problem, position: float, *, betas: tuple[float, ...], ridge: float, sweeps: int, tolerance: float
) -> Rung:
    """Run ADMM from the model's own weights with these parameters: V from the forward pass, multipliers zero."""
    lagrangian = lagrangian_of(problem, beta=betas, ridge=ridge)
    x = lagrangian.chain.rows(problem.train)
    state = State.feasible(lagrangian.chain, lagrangian.chain.weights(), x)
    kkt, fault = [relative_kkt(lagrangian, state)], ""
    for count in range(1, sweeps + 1):
        try:
            after = sweep(lagrangian, state, exact_constant)
        except ArithmeticError as broken:
            fault = f"{broken} in sweep {count}"
            break
        residual = relative_kkt(lagrangian, after)
        if not math.isfinite(residual):
            fault = f"the iterate is not finite after sweep {count}"
            break
        state = after
        kkt.append(residual)
    return Rung(
        position,
        betas,
        ridge,
        tuple(kkt),
        lagrangian.residuals(state).by_layer,
        explained(lagrangian, state.weights, x),
        converged=not fault and kkt[-1] <= tolerance,
        fault=fault,
    )


def smallest_convergent(
    problem: Problem,
    *,
    useful_beta: float = 1.0,
    useful_ridge: float = 1e-2,
    rungs: int = 5,
    sweeps: int = 300,
    tolerance: float = 1e-6,
) -> Ladder:
    """Run ADMM at parameters between the theorem's and useful ones, to see how small they may be and still converge.

    With t = 1, ..., 0 in equal steps, beta_i = useful^(1-t) compliant_i^t and the ridge alike; every run starts from
    the model's own weights and makes all its sweeps. That one has not converged says that `sweeps` were too few or that
    it circles: its `kkt` tells which.
    Raises `InputError` when the model is no chain, `ValueError` when it has not three layers, for which alone the
    lecture gives constants, or on rungs < 2. Cost: rungs x sweeps sweeps, and three products a layer for each residual.
    """
    if rungs < 2:
        raise ValueError(f"rungs={rungs}; give at least 2, the compliant parameters and the useful ones")
    betas, ridge = theorem_conditions(problem).compliant()
    found = []
    for position in np.linspace(1, 0, rungs).tolist():
        # x^1 y^0 is x exactly, so the first rung complies to the last digit.
        chosen = tuple(beta**position * useful_beta ** (1 - position) for beta in betas)
        weight = ridge**position * useful_ridge ** (1 - position)
        found.append(climb(problem, position, betas=chosen, ridge=weight, sweeps=sweeps, tolerance=tolerance))
    return Ladder(tuple(found), sweeps, tolerance)
