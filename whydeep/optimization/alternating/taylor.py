"""Taylor's ADMM: layers held together by penalties, and one multiplier, at the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback, Training
from whydeep.optimization.counts import check_counts

from .activation_proximal import activation_proximal
from .chain import Chain
from .proximal import OutputLoss
from .quadratic_blocks import blocks, factor, gram, inputs_product, state_response, weight_increment
from .split import forward_pass, squares, train_split
from .sweeps import check_dtype, check_positive, check_sweeper, data_norm

STARTS = ("forward", "random")


@dataclass(frozen=True)
class TaylorADMM:
    """Train by the method of Taylor and others, with sums over samples and no factor 1/2 in the penalties:

        l(Z_N, Y) + <Z_N, Lambda> + beta ||Z_N - [A_{N-1}, 1] W_N'||^2
                  + sum_{i<N} gamma ||A_i - s(Z_i)||^2 + beta ||Z_i - [A_{i-1}, 1] W_i'||^2.

    A sweep goes forward. At layer i, W_i fits Z_i to A_{i-1} by least squares; A_i then minimises the terms it is in,
    with the old W_{i+1} and Z_{i+1}; then Z_i does (exactly for ReLU, by `activation_proximal` otherwise). At the end
    Z_N is the proximal step of the loss, and Lambda grows by beta (Z_N - [A_{N-1}, 1] W_N').

    sweeps: passes over all samples. beta, gamma: the penalties. warm_start: sweeps before the multiplier moves.
    start: "random" draws A and Z from N(0, 1), as the original does; the first sweep then replaces the weights of the
    network, which count for the start of the history only. "forward" takes A and Z from the forward pass: the weights
    already fit them, and learning is far slower.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    dtype: of the states; None is that of the network's weights. Gram matrices are float64.

    Departures: the original takes the pseudo-inverse of A_{i-1}; here W_i keeps to its old value with a weight of 1e-6
    of the mean diagonal of the Gram matrix, so that singular ones do no harm and directions without data do not move.
    Biases are allowed, and any loss with a proximal map, instead of the binary hinge alone.

    Trains what `BCD` trains; history and outcome as for every training in sweeps, with "objective" as above and
    "feasibility", the norm of all gaps over the norm of [X, 1, Y].
    Source: Taylor, Burmeister, Xu, Singh, Patel and Goldstein, "Training neural networks without gradients: a scalable
    ADMM approach", ICML 2016 (recalled, not checked against the paper); defaults from public re-implementations.
    Cost of a sweep: that of `BCD`; memory 2 n numbers a unit.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import mlp
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    >>> network = mlp((1, 40, 1), init="he", generator=torch.Generator().manual_seed(0)).double()
    >>> problem = Problem(network, Data(x, x.abs()), loss="squared")
    >>> training = TaylorADMM(sweeps=50, start="forward").train(problem)
    >>> float(training.history["loss"][-1]) < 1e-3
    True
    """

    sweeps: int = 50
    beta: float = 1.0
    gamma: float = 10.0
    warm_start: int = 10
    start: str = "random"
    validation: float = 0.0
    dtype: torch.dtype | None = None
    tolerance: ClassVar[float] = 0.0  # it has no criterion of convergence: the budget is spent

    def __post_init__(self) -> None:
        check_sweeper(self)
        check_dtype(self)
        check_positive(self, "beta", "gamma")
        check_counts(least=0, warm_start=self.warm_start)
        if self.start not in STARTS:
            raise ValueError(f"unknown start {self.start!r}; give one of {', '.join(STARTS)}")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model`; the generator draws the validation split, then the random start."""
        generator = or_default(generator)
        return train_split(
            self,
            problem,
            lambda chain, loss, x, targets: TaylorIteration(
                self, chain, loss, x=x, targets=targets, generator=generator
            ),
            copies=2,
            generator=generator,
            callback=callback,
        )


class TaylorIteration:
    """The variables W_i, Z_i, A_i and Lambda, and one sweep over them."""

    def __init__(
        self,
        solver: TaylorADMM,
        chain: Chain,
        loss: OutputLoss,
        *,
        x: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.chain, self.loss, self.beta, self.gamma = chain, loss, solver.beta, solver.gamma
        self.warm_start, self.guard = solver.warm_start, 1e-6
        self.x, self.targets, self.scale = x, targets, data_norm(x, targets)
        self._start(chain.weights(x.dtype))
        if solver.start == "random":
            for tensor in (*self.preactivations, *self.states):
                drawn = torch.randn(tensor.shape, generator=generator, dtype=x.dtype, device=generator.device)
                tensor.copy_(drawn)

    def _start(self, weights: tuple[Tensor, ...]) -> None:
        self._weights, self.done = list(weights), 0
        self.preactivations, states = forward_pass(self.chain, weights, self.x)
        self.states = states[:-1]  # A_1 .. A_{N-1}
        self.multiplier = torch.zeros_like(self.preactivations[-1], dtype=torch.float64)

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, whose updates keep ten times more to their old values."""
        self.guard *= 10
        self._start(weights)
        return True

    def weights(self) -> tuple[Tensor, ...]:
        """Return W_1..W_N."""
        return tuple(self._weights)

    def sweep(self) -> None:
        """Update every block once, forward; raises `ArithmeticError` where a step breaks down."""
        for index in range(len(self.states)):
            self._weight_step(index)
            self._hidden_step(index)
        self._weight_step(len(self.states))
        forward = self._forward(len(self.states)).double()
        centre = forward - self.multiplier / (2 * self.beta)
        self.preactivations[-1].copy_(self.loss.proximal(centre, self.targets, 2 * self.beta))
        self.done += 1
        if self.done > self.warm_start:
            self.multiplier += self.beta * (self.preactivations[-1].double() - forward)

    def _below(self, index: int) -> Tensor:
        return self.states[index - 1] if index else self.x

    def _forward(self, index: int) -> Tensor:
        return self.chain.layers[index].preactivation(self._weights[index], self._below(index))

    def _weight_step(self, index: int) -> None:
        layer, below, old = self.chain.layers[index], self._below(index), self._weights[index]
        product = inputs_product(self.preactivations[index] - self._forward(index), below, bias=layer.bias)
        matrix = gram(below, bias=layer.bias)
        lower = factor(matrix, self.guard * float(matrix.diagonal().mean()))
        self._weights[index] = old + weight_increment(product, lower).to(old.dtype)

    def _hidden_step(self, index: int) -> None:
        """Update A_i and Z_i between the new W_i and the old W_{i+1}."""
        layer, above = self.chain.layers[index], self.chain.layers[index + 1]
        weight, weight_above, below = self._weights[index], self._weights[index + 1], self._below(index)
        response, _ = state_response(above.without_bias(weight_above), self.gamma / self.beta)
        for rows in blocks(len(self.x)):
            z, state = self.preactivations[index][rows], self.states[index][rows]
            inner = layer.activation.value(z)
            gap = self.preactivations[index + 1][rows] - above.preactivation(weight_above, inner)
            torch.addmm(inner, gap, response, out=state)
            centre = layer.preactivation(weight, below[rows])
            new = activation_proximal(
                layer.activation, state, centre=centre, weight=self.beta / self.gamma, start=z.clone()
            )
            z.copy_(new)

    def monitor(self) -> dict[str, float]:
        """Return the function above as "objective", and "feasibility"."""
        outputs = self.preactivations[-1].double()
        forward = [self._forward(index) for index in range(len(self._weights))]
        gaps = sum(squares(z - u) for z, u in zip(self.preactivations, forward, strict=True))
        layers = zip(self.chain.layers, self.states, self.preactivations, strict=False)
        bends = sum(squares(a - layer.activation.value(z)) for layer, a, z in layers)
        value = float(self.loss.total(outputs, self.targets)) + float((outputs * self.multiplier).sum())
        return {
            "objective": value + self.beta * gaps + self.gamma * bends,
            "feasibility": math.sqrt(gaps + bends) / self.scale,
        }
