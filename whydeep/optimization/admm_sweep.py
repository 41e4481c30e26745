"""One sweep of the lecture's Algorithm 1: backward estimation, forward correction, multipliers.

The exact minimisers over W_i and V_i that the slides write have no closed form behind a curved activation. The
published method (Zeng, Lin, Yao and Zhou, JMLR 2021, and the authors' own code; recalled, not checked against the
paper) puts the quadratic of `majoriser` in place of the layer's misfit. With B = V_i - Lambda_i / beta_i the augmented
Lagrangian depends on layer i through beta_i/2 ||s(U_i) - B||^2, and G = (s(U_i) - B) * s'(U_i) is that misfit's
gradient by U_i. A linear layer is its own quadratic: the steps for W_N, V_{N-1} and V_N are the exact minimisers.

Steps are written as increments, W - (gradient)(Hessian)^-1: equal to the published formulas, one product cheaper, and
without their cancellation of large terms near a solution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .activation import Activation
from .chain import Layer
from .lagrangian import Lagrangian, State

Constant = Callable[[Activation, float, float], float]
"""(activation, least c, largest c) -> curvature of the quadratic; see `majoriser.CONSTANTS`."""


def pull(layer: Layer, weight: Tensor, below: Tensor, wanted: Tensor, constant: Constant) -> tuple[Tensor, float]:
    """Return G = (s(U) - B) * s'(U) at U = W V, (n, outputs), and the curvature h of the quadratic above the misfit.

    below: V (n, inputs). wanted: B (n, outputs). Raises `ArithmeticError` when B is not finite.
    """
    value, slope = layer.activation.value_and_slope(layer.preactivation(weight, below))
    low, high = (float(end) for end in torch.aminmax(wanted))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ArithmeticError("a hidden state or a multiplier is not finite")
    return (value - wanted) * slope, constant(layer.activation, low, high)


def weight_step(lagrangian: Lagrangian, state: State, index: int, constant: Constant) -> Tensor:
    """Return the new W_{index+1}: the minimiser, with A = [V_{i-1}, 1], of

        ridge_i/2 ||W||^2 + beta_i (<G' A, W - W_old> + h/2 ||(W - W_old) A'||^2).

    Raises `ArithmeticError` when ridge_i I + beta_i h A'A is not positive definite to rounding.
    Cost: products of 2 n inputs (inputs + 2 outputs) operations and one factorisation of (inputs + 1)^2.
    """
    layer, weight, below = lagrangian.chain.layers[index], state.weights[index], state.states[index]
    beta, ridge = lagrangian.betas[index], lagrangian.ridges[index]
    wanted = state.states[index + 1] - state.multipliers[index] / beta
    gap, curvature = pull(layer, weight, below, wanted, constant)
    inputs = layer.inputs(below)
    gradient = beta * (gap.T @ inputs) + ridge * weight
    return weight - _solve(beta * curvature * (inputs.T @ inputs), ridge, gradient)


def state_step(
    lagrangian: Lagrangian, state: State, index: int, activated: Tensor, weight_above: Tensor, constant: Constant
) -> Tensor:
    """Return the new V_j, j = index + 1 < N: with W the weight above without its bias, the minimiser of

        beta_j/2 ||V - C||^2 + beta_{j+1} (<G W, V - V_old> + h/2 ||(V - V_old) W'||^2),   C = s(U_j) + Lambda_j/beta_j.

    activated: s(U_j) (n, width) at the new W_j and V_{j-1}. weight_above: the new W_{j+1}.
    Cost: products of 6 n width outputs operations, two triangular solves and one factorisation of width^2.
    """
    above, old = lagrangian.chain.layers[index + 1], state.states[index + 1]
    beta, beta_above = lagrangian.betas[index], lagrangian.betas[index + 1]
    wanted = state.states[index + 2] - state.multipliers[index + 1] / beta_above
    gap, curvature = pull(above, weight_above, old, wanted, constant)
    matrix = above.without_bias(weight_above)
    centre = activated + state.multipliers[index] / beta
    gradient = beta * (old - centre) + beta_above * (gap @ matrix)
    return old - _solve(beta_above * curvature * (matrix.T @ matrix), beta, gradient)


def output_step(lagrangian: Lagrangian, state: State, outputs: Tensor) -> Tensor:
    """Return the new V_N = argmin_V l(V, Y) + beta_N/2 ||V - (U_N + Lambda_N/beta_N)||^2; outputs: U_N (n, k)."""
    beta = lagrangian.betas[-1]
    return lagrangian.loss.proximal(outputs + state.multipliers[-1] / beta, lagrangian.targets, beta)


def sweep(lagrangian: Lagrangian, state: State, constant: Constant) -> State:
    """Return the next iterate.

    1. Every W_i, from the old states and multipliers only, so their order does not matter.
    2. V_1, ..., V_N, each from the new weights and the new states below it, and the old states above it.
    3. Lambda_i + beta_i (s(W_i V_{i-1}) - V_i) at the new weights and states.

    Raises `ArithmeticError` where a step breaks down.
    """
    layers, last = lagrangian.chain.layers, len(lagrangian.chain.layers) - 1
    weights = [weight_step(lagrangian, state, index, constant) for index in range(last, -1, -1)][::-1]
    states, multipliers = [state.states[0]], []
    for index, layer in enumerate(layers):
        activated, _ = layer.activation.value_and_slope(layer.preactivation(weights[index], states[-1]))
        if index == last:
            new = output_step(lagrangian, state, activated)
        else:
            new = state_step(lagrangian, state, index, activated, weights[index + 1], constant)
        multipliers.append(state.multipliers[index] + lagrangian.betas[index] * (activated - new))
        states.append(new)
    return State(tuple(weights), tuple(states), tuple(multipliers))


def _solve(matrix: Tensor, shift: float, rows: Tensor) -> Tensor:
    """Return rows (matrix + shift I)^-1 for a positive semidefinite matrix (d, d), which is overwritten."""
    matrix.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ArithmeticError("a Gram matrix was not positive definite to rounding (a larger ridge prevents that)")
    return torch.cholesky_solve(rows.T, factor).T
