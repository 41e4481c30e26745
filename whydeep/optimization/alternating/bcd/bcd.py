"""Block coordinate descent for deep networks: every block of a split network is minimised in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.guard import HALVINGS
from whydeep.optimization.alternating.proximal import OutputLoss
from whydeep.optimization.alternating.split import train_split
from whydeep.optimization.alternating.sweeps import Iteration, check_dtype, check_positive, check_sweeper
from whydeep.optimization.counts import check_counts
from whydeep.optimization.distributed.checkpoint import Checkpoint

from .three import ThreeSplitting
from .two import TwoSplitting

SPLITTINGS = ("three", "two")


@dataclass(frozen=True)
class BCD:
    """Train by block coordinate descent on penalties in place of the equations of the layers.

    Three-splitting minimises over weights W, pre-activations U and states V, with sums over samples,

        l(V_N, Y) + gamma/2 ||V_N - U_N||^2
                  + gamma/2 sum_{i<N} ||V_i - s(U_i)||^2 + rho/2 sum_i ||U_i - [V_{i-1}, 1] W_i'||^2

    block by block from the last layer to the first, with alpha/2 ||. - old||^2 added for V_N, U_i and W_i; `three`
    has the steps. Each has its exact solution (ReLU and leaky ReLU by `kinks`), or, for a smooth activation, is never
    higher than before, so the objective never increases, whatever the constants. There are no multipliers: a
    stationary point of the penalties need not be one of the risk, and in a deep network the objective may fall while
    the network learns nothing; then training ends with a `SurrogateWarning`.

    For deep networks: grading and damping, from the forward pass of every sweep anew, as in

        BCD(gamma=0.1, rho=0.003, alpha=0.001, grading=1e-4, damping=0.1, resynchronise=1).

    Why: V_i goes about the share 1/(1 + c) of the way that the layer above asks for, c = gamma_i/rho_{i+1} over the
    squares of that layer's singular values, and U_i then the share gamma_i/(gamma_i + rho_i + alpha_i) of that. With
    one gamma and one rho for all layers the product is a quarter or so at best, and the first of ten layers hears
    nothing of the targets: only the last ones learn. Penalties that fall steeply from the last layer to the first, with
    rho far below gamma, make both shares nearly one; then each layer does what it can about the error that is left by
    those above. So steep a grading is for hidden weights near the identity: through small singular values it asks for
    a change 1/(2 sqrt(c)) times as large, layer by layer. With grading = rho/(4 gamma), c = 1/4, it never asks for more
    than it was asked.

    Two-splitting has no U: the penalties are gamma/2 ||V_i - s([V_{i-1}, 1] W_i')||^2 for every layer, with
    ridge/2 ||W_i||^2, and the steps are those of ADMM without multipliers (`two`); rho, alpha, grading and damping are
    not used.

    sweeps: how many passes over all samples. gamma, rho: the penalties. alpha: how much a block keeps to its old value.
    grading: what gamma, rho and alpha of a layer are, over those of the layer above it; 1 is the published method.
    damping: how much W_i keeps to its old value besides alpha, in units of rho_i times the mean diagonal of its Gram
    matrix; some tenths keep the first layer from fitting directions in which the samples hardly vary.
    splitting: "three" or "two". ridge: of the weights in two-splitting, in units of the sum over samples.
    resynchronise: after how many sweeps U and V are set to the forward pass of the present weights; 0 is never. The
    objective then jumps to the network's own loss (for two-splitting with the ridge), so that it may rise there. That
    loss itself does not rise from one such time to the next: the step of the weights is halved until it does not.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    tolerance: CONVERGED when the gradient norm of the objective, over the norm of [X, 1, Y], is at most this; it is
    computed, and in the history as "kkt", only for a positive one, as it costs half a sweep more.
    checkpoint: where the run is saved and whether it goes on from there: from the forward pass at the saved weights,
    which is the same path where every sweep ends in it (resynchronise = 1).
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
    Cost: see `three.ThreeSplitting`; memory 3 n numbers a unit.

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
    grading: float = 1.0
    damping: float = 0.0
    splitting: str = "three"
    ridge: float = 1e-2
    resynchronise: int = 0
    validation: float = 0.0
    tolerance: float = 0.0
    dtype: torch.dtype | None = None
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        check_sweeper(self)
        check_dtype(self)
        check_positive(self, "gamma", "rho", "alpha", "grading")
        for name in ("damping", "ridge"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; give a number >= 0")
        check_counts(least=0, resynchronise=self.resynchronise)
        if not isinstance(self.checkpoint, Checkpoint | None):
            raise ValueError(f"checkpoint={self.checkpoint!r}; give a Checkpoint or None")
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
                    grading=self.grading,
                    damping=self.damping,
                    stationarity=watched,
                )
            return _Resynchronised(found, self.resynchronise) if self.resynchronise else found

        return train_split(
            self,
            problem,
            begin,
            copies=3,
            generator=generator,
            callback=callback,
            checkpoint=self.checkpoint,
        )


class _Resynchronised:
    """An iteration whose states are set to the forward pass after every so many sweeps, where the loss has not risen.

    There the new weights are tried, then half the way to them from those of the last time, and so on: the network's own
    loss never rises from one time to the next. After `HALVINGS` in vain it starts again, more cautiously.
    """

    def __init__(self, iteration: ThreeSplitting | TwoSplitting, every: int) -> None:
        self.iteration, self.every, self.done = iteration, every, 0
        self.weights, self.monitor = iteration.weights, iteration.monitor
        self.kept, self.value = iteration.weights(), iteration.misfit()

    def sweep(self) -> None:
        self.iteration.sweep()
        self.done += 1
        if self.done % self.every == 0:
            self._synchronise()

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        cautious = self.iteration.restart(weights)
        self.kept, self.value = weights, self.iteration.misfit()
        return cautious

    def _synchronise(self) -> None:
        new, share = self.iteration.weights(), 1.0
        for _ in range(HALVINGS):
            pairs = zip(self.kept, new, strict=True)
            self.iteration.start(tuple(torch.lerp(old, wanted, share) for old, wanted in pairs))
            value = self.iteration.misfit()
            if value <= self.value:
                self.kept, self.value = self.iteration.weights(), value
                return
            share /= 2
        self.restart(self.kept)
