"""dlADMM: steps on quadratic models, backward through the layers and forward again, one multiplier at the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training

from .activation_proximal import activation_proximal
from .chain import Chain
from .proximal import CROSS_ENTROPY, OutputLoss
from .split import forward_pass, squares, train_split
from .sweeps import check_dtype, check_positive, check_sweeper, data_norm

OUTPUTS = ("exact", "fista")


@dataclass(frozen=True)
class DLADMM:
    """Train by dlADMM: weights W, pre-activations Z, states A, sums over samples, R_i = Z_i - [A_{i-1}, 1] W_i':

        l(Z_N, Y) + <U, R_N> + rho/2 ||R_N||^2 + rho/2 sum_{i<N} (||R_i||^2 + ||A_i - s(Z_i)||^2).

    A sweep updates every block twice: for i = N..1 in the order A_i, Z_i, b_i, W_i, then for i = 1..N in the order
    W_i, b_i, Z_i, A_i; at last U grows by rho R_N. No matrix is factorised: W_i and A_i take one gradient step each
    with the least curvature for which the quadratic model is not below the function along that step; b_i and Z_i are
    exact.

    sweeps: passes over all samples, each of two updates of every block.
    rho: the penalty; for the squared loss anything up to 1 is alike, for the cross-entropy a small one is faster.
    output: "exact" takes Z_N by Newton's method to rounding, "fista" by at most 500 accelerated gradient steps, as
    published; the two differ for the cross-entropy only.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    dtype: of the states; None is that of the network's weights.

    Departures: the original finds its curvatures by doubling, one for all of W_i and one for all of A_i; but the
    function is quadratic in either, so the least one is known after one product, and it is taken for each unit (row of
    W_i) and each sample (row of A_i) by itself, since the function separates over them. Any depth, activation and loss
    that `BCD` takes; the original has two hidden ReLU layers, the cross-entropy, and a rho that is raised from 1e-6.

    History and outcome as for every training in sweeps, with "objective" as above and "feasibility", the norm of all
    gaps over the norm of [X, 1, Y].
    Source: Wang, Yu, Chen and Zhao, "ADMM for efficient deep learning with global convergence", KDD 2019, and the
    authors' code (recalled, not checked against the paper).
    Cost of a sweep: eight products of 2 n a b operations between layers of a inputs and b outputs; memory 3 n numbers a
    unit.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import mlp
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    >>> network = mlp((1, 40, 1), init="he", generator=torch.Generator().manual_seed(0)).double()
    >>> training = DLADMM(sweeps=200).train(Problem(network, Data(x, x.abs()), loss="squared"))
    >>> float(training.history["loss"][-1]) < 0.1 * float(training.history["loss"][0])
    True
    """

    sweeps: int = 100
    rho: float = 0.01
    output: str = "exact"
    validation: float = 0.0
    dtype: torch.dtype | None = None
    tolerance: ClassVar[float] = 0.0  # it has no criterion of convergence: the budget is spent

    def __post_init__(self) -> None:
        check_sweeper(self)
        check_dtype(self)
        check_positive(self, "rho")
        if self.output not in OUTPUTS:
            raise ValueError(f"unknown output {self.output!r}; give one of {', '.join(OUTPUTS)}")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws the validation split."""
        return train_split(
            self,
            problem,
            lambda chain, loss, x, targets: DLADMMIteration(self, chain, loss, x=x, targets=targets),
            copies=3,
            generator=generator,
            callback=callback,
        )


def fista_proximal(
    centre: Tensor, target: Tensor, beta: float, *, tolerance: float = 1e-3, iterations: int = 500
) -> Tensor:
    """Return argmin_v log sum_k exp(v_k) - <y, v> + beta/2 ||v - c||^2 by accelerated gradient steps, (n, k).

    The step is 1/(1/2 + beta), as the Hessian of the first term is at most 1/2 in every direction. It ends when no
    entry of the gradient is above the tolerance, or after `iterations` steps: for a beta far below 1/500 that is not
    the minimiser. Source: Beck and Teboulle 2009; the published dlADMM uses it so.

    >>> v = fista_proximal(torch.zeros(1, 2).double(), torch.tensor([[1.0, 0.0]]).double(), 1.0, tolerance=1e-9)
    >>> torch.allclose(v + torch.softmax(v, 1), torch.tensor([[1.0, 0.0]]).double())  # v = y - p
    True
    """
    v = ahead = centre
    momentum = 1.0
    for _ in range(iterations):
        gradient = torch.softmax(ahead, 1) - target + beta * (ahead - centre)
        if float(gradient.abs().max()) <= tolerance:
            return ahead
        new, after = ahead - gradient / (0.5 + beta), (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / after * (new - v)
        v, momentum = new, after
    return v


class DLADMMIteration:
    """The variables W_i, Z_i, A_i and U with the residuals R_i, and one sweep over them."""

    def __init__(self, solver: DLADMM, chain: Chain, loss: OutputLoss, *, x: Tensor, targets: Tensor) -> None:
        self.chain, self.loss, self.rho = chain, loss, solver.rho
        self.fista = solver.output == "fista" and loss is CROSS_ENTROPY
        self.x, self.targets, self.scale = x, targets, data_norm(x, targets)
        self._start(chain.weights(x.dtype))

    def _start(self, weights: tuple[Tensor, ...]) -> None:
        self._weights = [weight.clone() for weight in weights]
        self.preactivations, states = forward_pass(self.chain, weights, self.x)
        self.states = states[:-1]  # A_1 .. A_{N-1}
        self.residuals = [torch.zeros_like(z) for z in self.preactivations]
        self.multiplier = torch.zeros_like(self.preactivations[-1])

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, with ten times the penalty."""
        self.rho *= 10
        self._start(weights)
        return True

    def weights(self) -> tuple[Tensor, ...]:
        """Return copies of W_1..W_N."""
        return tuple(weight.clone() for weight in self._weights)

    def sweep(self) -> None:
        """Update every block backward and then forward, and the multiplier."""
        last = len(self._weights) - 1
        for index in range(last, -1, -1):
            self._state_step(index)
            self._preactivation_step(index)
            self._bias_step(index)
            self._weight_step(index)
        for index in range(last + 1):
            self._weight_step(index)
            self._bias_step(index)
            self._preactivation_step(index)
            self._state_step(index)
        self.multiplier += self.rho * self.residuals[-1]

    def _wanted(self, index: int) -> Tensor:
        """Return the residual that the layer's weights see: R_i, and R_N + U/rho at the output."""
        last = index == len(self._weights) - 1
        return self.residuals[index] + self.multiplier / self.rho if last else self.residuals[index]

    def _weight_step(self, index: int) -> None:
        below = self.states[index - 1] if index else self.x
        matrix = self.chain.layers[index].without_bias(self._weights[index])
        gradient = self._wanted(index).T @ below
        response = below @ gradient.T
        # Along t G the unit's term is ||E||^2/2 - t ||G||^2 + t^2/2 ||A G'||^2.
        length = _ratio(gradient.square().sum(1), response.square().sum(0))
        matrix += length[:, None] * gradient
        self.residuals[index] -= length * response

    def _bias_step(self, index: int) -> None:
        if self.chain.layers[index].bias:
            shift = self._wanted(index).mean(0)
            self._weights[index][:, -1] += shift
            self.residuals[index] -= shift

    def _preactivation_step(self, index: int) -> None:
        z, residual = self.preactivations[index], self.residuals[index]
        forward = z - residual
        if index == len(self.states):
            centre = (forward - self.multiplier / self.rho).double()
            step = fista_proximal if self.fista else self.loss.proximal
            new = step(centre, self.targets, self.rho).to(z.dtype)
        else:
            activation, state = self.chain.layers[index].activation, self.states[index]
            new = activation_proximal(activation, state, centre=forward.clone(), weight=1.0, start=z)
        torch.sub(new, forward, out=residual)
        self.preactivations[index] = new

    def _state_step(self, index: int) -> None:
        if index == len(self.states):
            return
        state, above = self.states[index], self.chain.layers[index + 1]
        matrix = above.without_bias(self._weights[index + 1])
        inner = self.chain.layers[index].activation.value(self.preactivations[index])
        gradient = self._wanted(index + 1) @ matrix - (state - inner)
        response = gradient @ matrix.T
        squares = gradient.square().sum(1)
        length = _ratio(squares, squares + response.square().sum(1))[:, None]
        state += length * gradient
        self.residuals[index + 1] -= length * response

    def monitor(self) -> dict[str, float]:
        """Return the function above as "objective", and "feasibility"."""
        loss = float(self.loss.total(self.preactivations[-1].double(), self.targets))
        dual = float((self.multiplier.double() * self.residuals[-1]).sum())
        layers = zip(self.chain.layers, self.states, self.preactivations, strict=False)
        parts = [a - layer.activation.value(z) for layer, a, z in layers]
        gaps = sum(squares(part) for part in (*self.residuals, *parts))
        return {"objective": loss + dual + self.rho / 2 * gaps, "feasibility": math.sqrt(gaps) / self.scale}


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator/denominator, and 0 where both vanish: a gradient of zero asks for no step."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
