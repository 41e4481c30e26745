"""Block coordinate descent for deep networks: every block of a split network is minimised in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import OutputLoss
from whydeep.optimization.alternating.split import train_split
from whydeep.optimization.alternating.sweeps import Iteration, check_positive, check_sweeper

from .three import ThreeSplitting
from .two import TwoSplitting

SPLITTINGS = ("three", "two")


@dataclass(frozen=True)
class BCD:
    """Train by block coordinate descent on penalties in place of the equations of the layers.

    Three-splitting minimises over weights W, pre-activations U and states V, with sums over samples,

        l(V_N, Y) + gamma/2 ||V_N - U_N||^2
                  + gamma/2 sum_{i<N} ||V_i - s(U_i)||^2 + rho/2 sum_i ||U_i - [V_{i-1}, 1] W_i'||^2

    block by block from the last layer to the first, with alpha/2 ||. - old||^2 added for V_N, U_i and W_i; `bcd_three`
    has the steps. Each has its exact solution (ReLU and leaky ReLU by `kinks`), or, for a smooth activation, is never
    higher than before, so the objective never increases, whatever the constants. There are no multipliers: a
    stationary point of the penalties need not be one of the risk, and in a deep network the objective may fall while
    the network learns nothing; then training ends with a `SurrogateWarning`.

    Two-splitting has no U: the penalties are gamma/2 ||V_i - s([V_{i-1}, 1] W_i')||^2 for every layer, with
    ridge/2 ||W_i||^2, and the steps are those of ADMM without multipliers (`bcd_two`); rho and alpha are not used.

    sweeps: how many passes over all samples. gamma, rho: the penalties. alpha: how much a block keeps to its old value.
    splitting: "three" or "two". ridge: of the weights in two-splitting, in units of the sum over samples.
    resynchronise: after how many sweeps U and V are set to the forward pass of the present weights; 0 is never. The
    objective then jumps to the network's own loss, so that it may rise there; deep networks end a few points better.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    tolerance: CONVERGED when the gradient norm of the objective, over the norm of [X, 1, Y], is at most this; it is
    computed, and in the history as "kkt", only for a positive one, as it costs half a sweep more.
    dtype: of the states; None is that of the network's weights. Gram matrices are float64, with products in single
    precision only where what is added to their diagonal outweighs its rounding (`quadratic_blocks`).

    Trains an nn.Sequential of Flatten, Linear and Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, SiLU or Identity that ends
    in Linear, by the squared loss (classes or regression), the cross-entropy or the hinge, from its present parameters
    with U and V from the forward pass; raises `InputError` on anything else, naming it.

    History: as for every training in sweeps (`alternating.train_in_sweeps`), with "objective" as above and
    "feasibility", the norm of all gaps V - s(U) and U - [V, 1] W' over the norm of [X, 1, Y].

    Source: Zeng, Lau, Lin and Yao, "Global convergence of block coordinate descent in deep learning", ICML 2019
    (recalled, not checked against the paper): three hidden layers of 1,500 with gamma = rho = 1 and alpha = 5, ten of
    600 with alpha = 1, from weights of deviation 0.01 and biases of 0.1.
    Cost: see `bcd_three.ThreeSplitting`; memory 3 n numbers a unit.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import mlp
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    >>> network = mlp((1, 40, 1), init="he", generator=torch.Generator().manual_seed(0)).double()
    >>> training = BCD(sweeps=100, alpha=0.1).train(Problem(network, Data(x, x.abs()), loss="squared"))
    >>> bool((training.history["objective"].diff() <= 0).all()), float(training.history["loss"][-1]) < 1e-3
    (True, True)
    """

    sweeps: int = 50
    gamma: float = 1.0
    rho: float = 1.0
    alpha: float = 5.0
    splitting: str = "three"
    ridge: float = 1e-2
    resynchronise: int = 0
    validation: float = 0.0
    tolerance: float = 0.0
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_sweeper(self)
        check_positive(self, "gamma", "rho", "alpha")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge={self.ridge}; give a number >= 0")
        if self.resynchronise < 0:
            raise ValueError(f"resynchronise={self.resynchronise}; give a number of sweeps >= 0")
        if self.splitting not in SPLITTINGS:
            raise ValueError(f"unknown splitting {self.splitting!r}; give one of {', '.join(SPLITTINGS)}")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws the validation split."""

        def begin(chain: Chain, loss: OutputLoss, x: Tensor, targets: Tensor) -> Iteration:
            weights, watched = chain.weights(x.dtype), self.tolerance > 0
            found: ThreeSplitting | TwoSplitting
            if self.splitting == "two":
                found = TwoSplitting(
                    chain,
                    loss,
                    x=x,
                    targets=targets,
                    weights=weights,
                    gamma=self.gamma,
                    ridge=self.ridge,
                    stationarity=watched,
                )
            else:
                found = ThreeSplitting(
                    chain,
                    loss,
                    x=x,
                    targets=targets,
                    weights=weights,
                    gamma=self.gamma,
                    rho=self.rho,
                    alpha=self.alpha,
                    stationarity=watched,
                )
            return _Resynchronised(found, self.resynchronise) if self.resynchronise else found

        return train_split(self, problem, begin, copies=3, generator=generator, callback=callback)


class _Resynchronised:
    """An iteration whose states are set to the forward pass after every so many sweeps."""

    def __init__(self, iteration: ThreeSplitting | TwoSplitting, every: int) -> None:
        self.iteration, self.every, self.done = iteration, every, 0
        self.weights, self.monitor, self.restart = iteration.weights, iteration.monitor, iteration.restart

    def sweep(self) -> None:
        self.iteration.sweep()
        self.done += 1
        if self.done % self.every == 0:
            self.iteration.synchronise()
