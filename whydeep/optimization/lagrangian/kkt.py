"""The lecture's augmented Lagrangian of a network, and the residuals of its KKT conditions, layer by layer.

With V_0 = X the training problem is (sums over samples, not means)

    minimise   l(V_N, Y) + sum_i ridge_i/2 ||W_i||_F^2
    such that  V_i = s_i(W_i V_{i-1}),   i = 1..N,      s_N = identity.

Rows are samples here; the lecture's columns are their transposes. The slides print l(f(X; W), Y) inside the augmented
Lagrangian; it must be l(V_N, Y), as their own KKT condition 0 = -Lambda_N + V_N - Y shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import OutputLoss, output_loss, target_rows

from .conditions import per_layer
from .conditions import theorem_conditions as theorem_conditions


@dataclass(frozen=True)
class State:
    """The three blocks of variables: an iterate of ADMM.

    weights: W_1..W_N, each (outputs, inputs + 1), the bias as last column. states: V_0..V_N, each (n, width);
    V_0 are the samples. multipliers: Lambda_1..Lambda_N, shaped like V_1..V_N.
    """

    weights: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    multipliers: tuple[Tensor, ...]

    @classmethod
    def feasible(cls, chain: Chain, weights: tuple[Tensor, ...], x: Tensor) -> State:
        """Return the state of the forward pass with multipliers zero, the usual start."""
        states = chain.states(weights, x)
        return cls(weights, states, tuple(torch.zeros_like(v) for v in states[1:]))

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return all(bool(torch.isfinite(t).all()) for t in (*self.weights, *self.states, *self.multipliers))


@dataclass(frozen=True)
class Residuals:
    """What the KKT conditions leave, layer by layer: the gradients of the ordinary Lagrangian in its three blocks.

    weights: ridge_i W_i + (Lambda_i * s'(U_i))' [V_{i-1}, 1], shaped like W_i, with U_i = W_i V_{i-1}.
    states: -Lambda_i + (Lambda_{i+1} * s'(U_{i+1})) W_{i+1} for i < N, and -Lambda_N + dl/dV_N
    (with a kink the subgradient nearest to Lambda_N).
    feasibility: s(U_i) - V_i.
    """

    weights: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    feasibility: tuple[Tensor, ...]

    @property
    def norm(self) -> float:
        """Frobenius norm of all residuals together."""
        return _norm((*self.weights, *self.states, *self.feasibility))

    @property
    def infeasibility(self) -> float:
        """Frobenius norm of s(W_i V_{i-1}) - V_i over all layers together."""
        return _norm(self.feasibility)

    @property
    def by_layer(self) -> tuple[tuple[float, float, float], ...]:
        """Frobenius norms of every layer's residuals, in the order weights, states, feasibility."""
        blocks = zip(self.weights, self.states, self.feasibility, strict=True)
        return tuple((_norm((w,)), _norm((v,)), _norm((gap,))) for w, v, gap in blocks)


def _norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


@dataclass(frozen=True)
class Lagrangian:
    """A chain, a loss and targets Y (n, outputs) with the constants of every layer: ridge_i >= 0 and beta_i > 0."""

    chain: Chain
    loss: OutputLoss
    targets: Tensor
    ridges: tuple[float, ...]
    betas: tuple[float, ...]

    def value(self, state: State, *, augmented: bool = True) -> Tensor:
        """Return l(V_N, Y) + sum ridge_i/2 ||W_i||^2 + <Lambda_i, s(U_i) - V_i> (+ beta_i/2 ||s(U_i) - V_i||^2).

        The last term belongs to the augmented Lagrangian only.
        """
        total = self.loss.total(state.states[-1], self.targets)
        for index, layer in enumerate(self.chain.layers):
            weight = state.weights[index]
            value, _ = layer.activation.value_and_slope(layer.preactivation(weight, state.states[index]))
            gap = value - state.states[index + 1]
            total = total + self.ridges[index] / 2 * weight.square().sum()
            total = total + (state.multipliers[index] * gap).sum()
            if augmented:
                total = total + self.betas[index] / 2 * gap.square().sum()
        return total

    def residuals(self, state: State) -> Residuals:
        """Return the residuals of the KKT conditions.

        All zero: the multipliers are the back-propagated gradients, Lambda_i = d l / d V_i, and the weights a
        stationary point of the risk (summed over samples) with the ridge. Cost: three products a layer.
        """
        by_weight, by_state, gaps = [], [-multiplier for multiplier in state.multipliers], []
        for index, layer in enumerate(self.chain.layers):
            weight, below = state.weights[index], state.states[index]
            value, slope = layer.activation.value_and_slope(layer.preactivation(weight, below))
            pulled = state.multipliers[index] * slope
            by_weight.append(self.ridges[index] * weight + pulled.T @ layer.inputs(below))
            gaps.append(value - state.states[index + 1])
            if index:
                by_state[index - 1] = by_state[index - 1] + pulled @ layer.without_bias(weight)
        by_state[-1] = by_state[-1] + self.loss.subgradient(state.states[-1], self.targets, state.multipliers[-1])
        return Residuals(tuple(by_weight), tuple(by_state), tuple(gaps))


def lagrangian_of(
    problem: Problem, *, beta: float | Sequence[float] = 1.0, ridge: float | Sequence[float] = 0.0
) -> Lagrangian:
    """Return the Lagrangian of training `problem.model` on `problem.train`; beta and ridge: one number or one a layer.

    Raises `InputError` when the model is no chain of layers or the loss has no proximal map.
    """
    chain = Chain.of(problem.model)
    count = len(chain.layers)
    targets = target_rows(problem.train.targets, chain.layers[-1].linear.out_features)
    ridges, betas = per_layer(ridge, count, "ridge"), per_layer(beta, count, "beta")
    return Lagrangian(chain, output_loss(problem), targets, ridges=ridges, betas=betas)


def multipliers_of(problem: Problem) -> tuple[Tensor, ...]:
    """Return what the multipliers are at a KKT point: Lambda_i = d l / d V_i by back-propagation, i = 1..N, (n, width).

    Lambda_N = dl/dV_N and Lambda_i = (Lambda_{i+1} * s'(U_{i+1})) W_{i+1}, l the loss summed over samples, at the
    network's own weights. Computes in float64. Cost: one forward and one backward pass.
    """
    lagrangian = lagrangian_of(problem)
    chain = lagrangian.chain
    weights = chain.weights()
    states = chain.states(weights, chain.rows(problem.train))
    found = [lagrangian.loss.gradient(states[-1], lagrangian.targets)]
    for index in range(len(chain.layers) - 1, 0, -1):
        layer = chain.layers[index]
        _, slope = layer.activation.value_and_slope(layer.preactivation(weights[index], states[index]))
        found.append((found[-1] * slope) @ layer.without_bias(weights[index]))
    return tuple(reversed(found))


def kkt_residuals(problem: Problem, state: State | None = None, *, ridge: float | Sequence[float] = 0.0) -> Residuals:
    """Return what the KKT conditions of training `problem.model` with `ridge` leave at `state`.

    state: an iterate of an alternating method on `problem.train`; None takes the network's own weights, the states of
    its forward pass and the multipliers of back-propagation. Then only the residuals of the weights are left, and they
    are the gradient of the risk (summed over samples) plus ridge_i W_i: how far any training is from a KKT point.

    >>> from torch import nn
    >>> from whydeep.core.data import Data
    >>> network = nn.Sequential(nn.Linear(1, 1, bias=False))  # 1/2 (w x - y)^2 at w = 2, x = 3, y = 5
    >>> nn.init.constant_(network[0].weight, 2.0).item()
    2.0
    >>> problem = Problem(network, Data(torch.tensor([[3.0]]), torch.tensor([[5.0]])), loss="squared")
    >>> kkt_residuals(problem, ridge=0.5).by_layer  # (w x - y) x + ridge w = 3 + 1
    ((4.0, 0.0, 0.0),)
    """
    lagrangian = lagrangian_of(problem, ridge=ridge)
    if state is None:
        chain = lagrangian.chain
        start = State.feasible(chain, chain.weights(), chain.rows(problem.train))
        state = State(start.weights, start.states, multipliers_of(problem))
    return lagrangian.residuals(state)
