"""Block coordinate descent with three blocks of variables: weights, pre-activations and states.

Splitting both halves of a layer, U_i = [V_{i-1}, 1] W_i' and V_i = s(U_i), leaves every block a problem with an exact
solution, so that no step of the method needs a step size or a bound of a curvature:

    F = l(V_N, Y) + sum_i r^(N-i) ( gamma/2 ||V_i - s_i(U_i)||^2 + rho/2 ||U_i - [V_{i-1}, 1] W_i'||^2 )

(sums over samples, Frobenius norms, s_N the identity; r is 1 in the published method). Kept for every layer are U_i,
V_i and the residual R_i = U_i - [V_{i-1}, 1] W_i'.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whydeep.optimization.alternating.activation_proximal import activation_proximal
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.kinks import same_side_proximal
from whydeep.optimization.alternating.proximal import OutputLoss
from whydeep.optimization.alternating.quadratic_blocks import (
    blocks,
    factor,
    gram,
    inputs_product,
    state_response,
    weight_increment,
)
from whydeep.optimization.alternating.split import forward_pass, squares
from whydeep.optimization.alternating.sweeps import data_norm


class ThreeSplitting:
    """The iteration of `BCD`: the variables and one sweep over them, from the last layer to the first.

    In a sweep, with C_old the present value of a block and alpha/2 ||C - C_old||^2 added where the authors add it:

    1. V_N = argmin l(V, Y) + gamma/2 ||V - U_N||^2 + alpha/2 ||V - V_old||^2, then
       U_N = (gamma V_N + rho [V_{N-1}, 1] W_N')/(gamma + rho);
    2. for i = N..1: W_i = argmin rho/2 ||U_i - A W'||^2 + (alpha + rho damping q)/2 ||W - W_old||^2 with
       A = [V_{i-1}, 1] and q the mean of the diagonal of A'A; and for i > 1
       V_{i-1} = argmin rho/2 ||U_i - [V, 1] W_i'||^2 + r gamma/2 ||V - s(U_{i-1})||^2, then
       U_{i-1} = argmin gamma/2 ||V_{i-1} - s(u)||^2 + rho/2 ||u - [V_{i-2}, 1] W_{i-1}'||^2 + alpha/2 ||u - U_old||^2.

    alpha and the damping are graded like the penalties, so that r = `grading` is seen in the step for V_{i-1} alone.
    same_side: behind a kink U_{i-1} takes the best value on the side of the kink where it is, not the best of both.
    Each lowers F. The authors update a bias after its weights; here it is a column of W_i: both are found together.
    Products for n samples between layers of a inputs and b outputs: R'A (2 n a b operations), A'A (n a^2, in float64;
    that of the samples is formed once), the forward product (2 n a b; 2 n b^2 where b < a and V_{i-1} is a variable),
    and for a variable V_{i-1} two more, S W' and (Z - S W') M (2 n a b each).
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
        rho: float,
        alpha: float,
        grading: float = 1.0,
        damping: float = 0.0,
        stationarity: bool = False,
        same_side: bool = False,
    ) -> None:
        self.chain, self.loss, self.x, self.targets = chain, loss, x, targets
        self.same_side = same_side
        self.gamma, self.rho, self.alpha, self.stationarity = gamma, rho, alpha, stationarity
        self.grading, self.damping = grading, damping
        self.scale = data_norm(x, targets)
        self._gram_of_samples = gram(x, bias=chain.layers[0].bias)
        self._factor_of_samples: Tensor | None = None
        self.start(weights)

    def start(self, weights: tuple[Tensor, ...]) -> None:
        """Begin at the forward pass of `weights`."""
        self._weights = list(weights)
        # Let go first: old and new states together may not fit into memory.
        self.preactivations, self.states, self.residuals = list[Tensor](), list[Tensor](), list[Tensor]()
        # The list of states ends with V_N; below the first hidden state are the samples themselves.
        self.preactivations, self.states = forward_pass(self.chain, weights, self.x)
        self.residuals = [torch.zeros_like(u) for u in self.preactivations]

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, with ten times the proximal weights."""
        self.alpha *= 10
        self.damping *= 10
        self._factor_of_samples = None
        self.start(weights)
        return True

    def misfit(self) -> float:
        """Return l(V_N, Y): after `start` the loss of the network itself."""
        return float(self.loss.total(self.states[-1].double(), self.targets))

    def weights(self) -> tuple[Tensor, ...]:
        """Return W_1..W_N."""
        return tuple(self._weights)

    def sweep(self) -> None:
        """Update every block once; raises `ArithmeticError` where a step breaks down."""
        self._output_step()
        for index in range(len(self._weights) - 1, 0, -1):
            self._weight_step(index)
            self._state_step(index)
        self._weight_step(0)
        layer, weight = self.chain.layers[0], self._weights[0]
        for rows in blocks(len(self.x)):
            torch.sub(
                self.preactivations[0][rows], layer.preactivation(weight, self.x[rows]), out=self.residuals[0][rows]
            )

    def _output_step(self) -> None:
        u, v, residual = self.preactivations[-1], self.states[-1], self.residuals[-1]
        weight = self.gamma + self.alpha
        centre = (self.gamma * u.double() + self.alpha * v.double()) / weight
        v.copy_(self.loss.proximal(centre, self.targets, weight))
        forward = u - residual
        torch.lerp(forward, v, self.gamma / (self.gamma + self.rho), out=u)
        torch.sub(u, forward, out=residual)

    def _weight_step(self, index: int) -> None:
        layer, below = self.chain.layers[index], self.states[index - 1] if index else self.x
        if index:
            mean = (squares(below) + layer.bias * len(below)) / (below.shape[1] + layer.bias)
            shift = self._shift(mean)
            lower = factor(gram(below, bias=layer.bias, shift=shift), shift)
        else:
            if self._factor_of_samples is None:
                shift = self._shift(float(self._gram_of_samples.diagonal().mean()))
                self._factor_of_samples = factor(self._gram_of_samples.clone(), shift)
            lower = self._factor_of_samples
        product = inputs_product(self.residuals[index], below, bias=layer.bias)
        old = self._weights[index]
        self._weights[index] = old + weight_increment(product, lower).to(old.dtype)

    def _shift(self, mean: float) -> float:
        """Return what is added to the diagonal of a Gram matrix, given the mean of that."""
        return self.alpha / self.rho + self.damping * mean

    def _state_step(self, index: int) -> None:
        """Update the state below layer `index`, the residual above it and the pre-activation below it."""
        layer, below = self.chain.layers[index], self.chain.layers[index - 1]
        weight = self._weights[index]
        matrix = layer.without_bias(weight)
        response, left_over = state_response(matrix, self.grading * self.gamma / self.rho)
        share, stiffness = self.rho / (self.rho + self.alpha), (self.rho + self.alpha) / self.gamma
        for rows in blocks(len(self.x)):
            above, residual, state = (
                self.preactivations[index][rows],
                self.residuals[index][rows],
                self.states[index - 1][rows],
            )
            u, residual_below = self.preactivations[index - 1][rows], self.residuals[index - 1][rows]
            inner = below.activation.value(u)
            torch.sub(above, layer.preactivation(weight, inner), out=residual)
            torch.addmm(inner, residual, response, out=state)
            if left_over is not None:
                residual.copy_(residual @ left_over)
            else:
                torch.sub(above, layer.preactivation(weight, state), out=residual)
            # With R = U - P the centre (rho P + alpha U)/(rho + alpha) is U - rho/(rho + alpha) R.
            centre = torch.sub(u, residual_below, alpha=share)
            residual_below.sub_(u)
            if self.same_side and below.activation.left is not None:
                left = below.activation.left
                u.copy_(same_side_proximal(state, centre, stiffness, left=left, start=u))
            else:
                u.copy_(activation_proximal(below.activation, state, centre=centre, weight=stiffness, start=u))
            residual_below.add_(u)

    def monitor(self) -> dict[str, float]:
        """Return F as "objective" and the norm of all gaps V - s(U) and R over that of [X, 1, Y] as "feasibility"."""
        layers = zip(self.chain.layers, self.states, self.preactivations, strict=True)
        gaps = [squares(v - layer.activation.value(u)) for layer, v, u in layers]
        residuals = [squares(residual) for residual in self.residuals]
        penalties = [self.gamma / 2 * gap + self.rho / 2 * rest for gap, rest in zip(gaps, residuals, strict=True)]
        values = {
            "objective": self.misfit() + sum(grade * one for grade, one in zip(self._grades(), penalties, strict=True)),
            "feasibility": math.sqrt(sum(gaps) + sum(residuals)) / self.scale,
        }
        return values | ({"kkt": self._gradient_norm() / self.scale} if self.stationarity else {})

    def _grades(self) -> list[float]:
        return [self.grading ** (len(self._weights) - 1 - index) for index in range(len(self._weights))]

    def _gradient_norm(self) -> float:
        """Return the norm of the gradient of F by all blocks; at a kink by the slope of its left side."""
        output = self.states[-1].double()
        gap = self.gamma * (self.states[-1] - self.preactivations[-1])
        total = squares(self.loss.gradient(output, self.targets) + gap)
        total += squares(self.rho * self.residuals[-1] - gap)
        for index, (layer, grade) in enumerate(zip(self.chain.layers, self._grades(), strict=True)):
            below, pull = self.states[index - 1] if index else self.x, grade * self.rho * self.residuals[index]
            total += squares(inputs_product(pull, below, bias=layer.bias))
            if index:
                value, slope = self.chain.layers[index - 1].activation.value_and_slope(self.preactivations[index - 1])
                lower = self.grading * grade
                gap = lower * self.gamma * (below - value)
                total += squares(gap - pull @ layer.without_bias(self._weights[index]))
                total += squares(lower * self.rho * self.residuals[index - 1] - gap * slope)
        return math.sqrt(total)
