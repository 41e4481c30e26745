"""ADMM for deep networks: the lecture's Algorithm 1, with sums over all samples and no gradient across layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training

from .admm_sweep import sweep
from .alternating import check_sweeper, train_in_sweeps
from .chain import Chain
from .lagrangian import Lagrangian, State
from .majoriser import CONSTANTS
from .proximal import output_loss, target_rows


@dataclass(frozen=True)
class ADMM:
    """Train by the alternating direction method of multipliers, Algorithm 1 of the lecture.

    Minimises  sum_n loss(f(x_n), y_n) + ridge/2 sum_i ||W_i||_F^2,  biases included in W_i, by splitting every layer
    off as a constraint V_i = s(W_i V_{i-1}) with a multiplier and a penalty beta/2 ||s(W_i V_{i-1}) - V_i||^2;
    `admm_sweep` has the steps. It is not free of derivatives (each step uses s'), but no chain rule crosses a layer.

    sweeps: how many passes over all samples. beta: penalty of every layer.
    ridge: in units of the sum over samples, not of their mean as in `Problem.risk`: with n samples it weighs like
    ridge/n beside the mean. Below about 1e-3 the accuracy tends to fall again after some tens of sweeps.
    constant: "exact" takes the least curvature that keeps the quadratic above the misfit, "published" the looser one of
    the authors' code (with a guard); the loose one is the steadier at ten layers and more.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    tolerance: CONVERGED when "kkt", as defined below, is at most this.

    Trains an nn.Sequential of Flatten, Linear and Sigmoid, Tanh, Softplus, SiLU or Identity that ends in Linear, by the
    squared loss (classes or regression) or the cross-entropy; raises `InputError` on anything else, naming it.
    Starts from the given parameters with V from the forward pass and multipliers zero. Computes in float64 whatever
    the type of the model, and returns the model in its own type.

    History, the start first: "loss" (risk of the network itself on the training data, without the ridge), "objective"
    (the augmented Lagrangian), "kkt" (Frobenius norm of all residuals of the KKT conditions),
    "feasibility" (Frobenius norm of s(W_i V_{i-1}) - V_i over all layers), both divided by the Frobenius norm
    of [X, 1, Y], which neither the start nor the run changes; "seconds" (in sweeps only), for classes "error", with
    validation "validation" (risk). Outcome DIVERGED when a factorisation fails or a number is not finite: the model is
    the last finite iterate.

    Source: slides "ADMM for DNN Learning"; Zeng, Lin, Yao and Zhou, JMLR 2021 (recalled, not checked).
    The lecture's convergence theorem asks for beta and ridge far larger than any useful ones; no guarantee is claimed.
    Cost of a sweep: some eight products of 2 n d^2 operations a layer of width d; memory 3 n float64 numbers a unit.

    >>> from whydeep.networks import mlp
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    >>> start = torch.Generator().manual_seed(0)
    >>> network = mlp((1, 30, 30, 1), activation="sigmoid", init="xavier", gain=8.0, generator=start).double()
    >>> training = ADMM(sweeps=10, ridge=1e-6).train(Problem(network, Data(x, x.square()), loss="squared"))
    >>> float(training.history["loss"][-1]) < 1e-5 < 1e-2 < float(training.history["loss"][0])
    True
    """

    sweeps: int = 30
    beta: float = 1.0
    ridge: float = 1e-2
    constant: str = "exact"
    validation: float = 0.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_sweeper(self)
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta={self.beta}; give a positive number")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge={self.ridge}; give a number >= 0")
        if self.constant not in CONSTANTS:
            raise ValueError(f"unknown constant {self.constant!r}; give one of {', '.join(sorted(CONSTANTS))}")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws the validation split."""

        def begin(chain: Chain, train: Data) -> _Iteration:
            return _Iteration(self, problem, chain, train)

        return train_in_sweeps(self, problem, begin, name="ADMM", kinks=False, generator=generator, callback=callback)


class _Iteration:
    """The variables of one training."""

    def __init__(self, solver: ADMM, problem: Problem, chain: Chain, train: Data) -> None:
        self.constant = CONSTANTS[solver.constant]
        layers, x = len(chain.layers), chain.rows(train)
        self.lagrangian = Lagrangian(
            chain,
            output_loss(problem),
            target_rows(train.targets, chain.layers[-1].linear.out_features),
            ridges=(solver.ridge,) * layers,
            betas=(solver.beta,) * layers,
        )
        self.state = State.feasible(chain, chain.weights(), x)
        self.scale = math.sqrt(float(x.square().sum()) + len(x) + float(self.lagrangian.targets.square().sum()))

    def sweep(self) -> None:
        self.state = sweep(self.lagrangian, self.state, self.constant)

    def weights(self) -> tuple[Tensor, ...]:
        return self.state.weights

    def monitor(self) -> dict[str, float]:
        residuals = self.lagrangian.residuals(self.state)
        return {
            "objective": float(self.lagrangian.value(self.state)),
            "kkt": residuals.norm / self.scale,
            "feasibility": residuals.infeasibility / self.scale,
        }

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        return False
