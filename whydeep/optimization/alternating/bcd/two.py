"""Block coordinate descent with two blocks of variables: weights and states, each layer one penalty.

    F = l(V_N, Y) + gamma/2 sum_i ||V_i - s([V_{i-1}, 1] W_i')||^2 + ridge/2 sum_i ||W_i||^2      (s_N the identity)

Behind a curved activation neither block has a closed form. Its steps are those of ADMM (`admm_sweep`) without
multipliers: the minimiser of a quadratic above the misfit, or, behind a kink, a step shortened until F does not rise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whydeep.optimization.alternating.admm.parts import Options, Part
from whydeep.optimization.alternating.admm.sweep import sweep_parts
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import OutputLoss
from whydeep.optimization.alternating.sweeps import data_norm
from whydeep.optimization.lagrangian.kkt import Lagrangian, State


class TwoSplitting:
    """The iteration of `BCD(splitting="two")`: all W_i, then V_1, ..., V_N, each lowering F or leaving it.

    The weights of different layers share no term of F, so that all of them move from the old states.
    Products: those of a sweep of ADMM, see `admm_weights` and `admm_states`.
    """

    def __init__(
        self,
        chain: Chain,
        loss: OutputLoss,
        *,
        x: Tensor,
        targets: Tensor,
        weights: tuple[Tensor, ...],
        gamma: float,
        ridge: float,
        stationarity: bool = False,
    ) -> None:
        count = len(chain.layers)
        self.lagrangian = Lagrangian(chain, loss, targets, ridges=(ridge,) * count, betas=(gamma,) * count)
        self.x, self.stationarity = x, stationarity
        self.scale = data_norm(x, targets)
        self._grams: dict[int, Tensor] = {}
        self.start(weights)

    def start(self, weights: tuple[Tensor, ...]) -> None:
        """Begin at the forward pass of `weights`."""
        state = State.feasible(self.lagrangian.chain, weights, self.x)
        self._weights = weights
        # A linear layer may give its argument back, and two blocks must not share their memory.
        states = (self.x, *(v.clone() for v in state.states[1:]))
        self.part = Part(states, state.multipliers, self.lagrangian.targets)

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, with ten times the ridge."""
        old = self.lagrangian
        ridges = tuple(10 * ridge for ridge in old.ridges)
        self.lagrangian = Lagrangian(old.chain, old.loss, old.targets, ridges=ridges, betas=old.betas)
        self.start(weights)
        return ridges[0] > 0

    def misfit(self) -> float:
        """Return l(V_N, Y) with the ridge: after `start` the objective of the network itself."""
        ridges = zip(self.lagrangian.ridges, self._weights, strict=True)
        held = sum(ridge / 2 * float(weight.double().square().sum()) for ridge, weight in ridges)
        return float(self.lagrangian.loss.total(self.part.states[-1].double(), self.lagrangian.targets)) + held

    def weights(self) -> tuple[Tensor, ...]:
        """Return W_1..W_N."""
        return self._weights

    def sweep(self) -> None:
        """Update every block once; raises `ArithmeticError` where a step breaks down."""
        self._weights = sweep_parts(self.lagrangian, [self.part], self._weights, Options(), grams=self._grams)
        for multiplier in self.part.multipliers:
            multiplier.zero_()

    def monitor(self) -> dict[str, float]:
        """Return F as "objective" and the norm of all gaps over that of [X, 1, Y] as "feasibility"."""
        weights = tuple(weight.double() for weight in self._weights)
        states = tuple(v.double() for v in self.part.states)
        state = State(weights, states, tuple(torch.zeros_like(v) for v in states[1:]))
        residuals = self.lagrangian.residuals(state)
        values = {
            "objective": float(self.lagrangian.value(state)),
            "feasibility": residuals.infeasibility / self.scale,
        }
        return values | (
            {"kkt": self._gradient_norm(state, residuals.feasibility) / self.scale} if self.stationarity else {}
        )

    def _gradient_norm(self, state: State, gaps: tuple[Tensor, ...]) -> float:
        # F has the gradient that the Lagrangian has at the multipliers gamma (s(U_i) - V_i).
        multipliers = tuple(beta * gap for beta, gap in zip(self.lagrangian.betas, gaps, strict=True))
        found = self.lagrangian.residuals(State(state.weights, state.states, multipliers))
        return math.sqrt(sum(float(part.square().sum()) for part in (*found.weights, *found.states)))
