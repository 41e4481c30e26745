"""ADMM for deep networks: the lecture's Algorithm 1, with sums over all samples and no gradient across layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.majoriser import CONSTANTS
from whydeep.optimization.alternating.proximal import SQUARED, output_loss
from whydeep.optimization.alternating.sweeps import check_dtype, check_sweeper, train_in_sweeps
from whydeep.optimization.counts import check_counts
from whydeep.optimization.distributed.checkpoint import Checkpoint
from whydeep.optimization.distributed.group import ALONE, Group, neighbours
from whydeep.optimization.distributed.memory import check_memory, gigabytes, stored_bytes, working_bytes

from .iteration import ADMMIteration
from .start import starting_weights

UPDATES = ("linearised", "exact")


@dataclass(frozen=True)
class ADMM:
    """Train by the alternating direction method of multipliers, Algorithm 1 of the lecture.

    Minimises  sum_n loss(f(x_n), y_n) + ridge/2 sum_i ||W_i||_F^2,  biases included in W_i, by splitting every layer
    off as a constraint V_i = s(W_i V_{i-1}) with a multiplier and a penalty beta/2 ||s(W_i V_{i-1}) - V_i||^2;
    `sweep` has the steps. It is not free of derivatives (each step uses s'), but no chain rule crosses a layer.

    sweeps: how many passes over all samples. beta: penalty, one for all layers or a tuple of one each.
    ridge: one for all layers or a tuple of one each, in units of the sum over samples, not of their mean as in
    `Problem.risk`: with n samples it weighs like ridge/n beside the mean. "auto" takes 1e-5 n for classes and 1e-11 n
    for regression; for classes, below about 1e-6 n the accuracy tends to fall again after some tens of sweeps. On
    images, whose pixels vary little in many directions, the first layer needs more, and those above less: on MNIST
    (2e-3 n, 2e-5 n, 2e-6 n, 2e-7 n) with over_relaxation 1.5 was two or three points better than one ridge for all.
    update: "linearised", the published method: one step on a quadratic for each W_i and V_i. "exact": such steps until
    they no longer move, Algorithm 1 to the letter up to its argmin being a local one, and far slower.
    over_relaxation: a in [1, 2): a s(W_i V_{i-1}) + (1 - a) V_i replaces s(W_i V_{i-1}) in the steps for V_i and
    Lambda_i, as usual in convex ADMM; 1 is the lecture's.
    spread: None starts from the given weights, as the lecture does. A number rescales them first, layer by layer, to
    pre-activations of mean zero and this standard deviation (`rescaled_start`), from at most 2,048 training samples;
    it undoes what has been learnt. "auto" does so with 0.5, and with units' means of size min(1, 5 / hidden layers),
    where it is needed: where all hidden layers have 60 or more units, all sigmoids, some layer's pre-activations have a
    standard deviation below 0.2, and the outputs vary less than half as much as the targets: nothing has been learnt.
    From weights so small that every layer sees the straight part of its sigmoid only, as PyTorch's are, ADMM finds the
    linear classifier and stays near it. Elsewhere "auto" is None.
    refit: after each sweep the output layer is fitted to what the layers below it really send (`refit`), for the
    squared loss only, and that network is the one watched and returned; the iterate itself goes on as it is. On digits
    and on MNIST it is worth half a point to a point of accuracy. Without it the method is the lecture's.
    average: k in (0, 1) offers beside each iterate the mean of the iterates' weights, of which k is kept a sweep (with
    `refit` its last layer is fitted likewise); the one with the less risk on the validation split, or without one on
    the training samples, is watched and returned, while the iterates go on as they are. 0 offers none: the lecture's.
    constant: "exact" takes the least curvature that keeps the quadratic above the misfit, "published" the looser one of
    the authors' code (with a guard); the loose one is the steadier at ten layers and more.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    tolerance: CONVERGED when "kkt", as defined below, is at most this.
    block_size: how many samples are worked on at a time; the result is the same up to rounding.
    dtype: in which states and multipliers are kept and multiplied; None takes the type of the model. Gram matrices
    are formed and factorised in float64: those of saturated states are singular to single precision.
    streaming: True or a folder keeps states and multipliers in files (`streaming.InFiles`), of which `block_size`
    samples at a time need to be in memory; the result is the same. Samples are read block by block where they are lazy.
    group: `ALONE`, or the processes that train together, each with its share of the samples (`distributed.joined` under
    torchrun, else `Processes()` where the default group of torch.distributed is initialised). It is never found out by
    itself. All processes are given the same problem and generator, and all return the same weights; the result is that
    of one process up to rounding. checkpoint: where the run is saved and whether it goes on from there.

    Trains an nn.Sequential of Flatten, Linear and Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, SiLU or Identity that ends
    in Linear, by the squared loss (classes or regression), the cross-entropy or the hinge; raises `InputError` on
    anything else, naming it, and when there is less memory than it needs. Starts with V from the forward pass at the
    first weights (`spread`) and multipliers zero.

    History, the start first: "loss" (risk of the network itself on the training data, without the ridge), "objective"
    (the augmented Lagrangian), "kkt" (Frobenius norm of all residuals of the KKT conditions),
    "feasibility" (Frobenius norm of s(W_i V_{i-1}) - V_i over all layers), both divided by the Frobenius norm
    of [X, 1, Y], which neither the start nor the run changes; "seconds" (in sweeps only), for classes "error", with
    validation "validation" (risk). An iterate that is not finite is taken back to the best weights, from where the
    method goes on with a fresh forward pass and all beta doubled; after five of these the outcome is DIVERGED. The
    same is done, five times at most, when the risk has risen and stays high (`alternating.collapsed`).

    Source: slides "ADMM for DNN Learning"; Zeng, Lin, Yao and Zhou, JMLR 2021 (recalled, not checked).
    The lecture's convergence theorem asks for beta and ridge far larger than any useful ones; no guarantee is claimed.
    Cost of a sweep: six products of 2 n d^2 operations a layer of width d, and one of n d^2 in float64 for its Gram
    matrix. Memory: 2 n numbers a unit for states and multipliers; behind a kink n more while a sweep lasts, or, with
    `streaming`, four products.

    >>> from whydeep.networks import mlp
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    >>> start = torch.Generator().manual_seed(0)
    >>> network = mlp((1, 30, 30, 1), activation="sigmoid", init="xavier", gain=8.0, generator=start).double()
    >>> training = ADMM(sweeps=10, ridge=1e-6).train(Problem(network, Data(x, x.square()), loss="squared"))
    >>> float(training.history["loss"][-1]) < 1e-5 < 1e-2 < float(training.history["loss"][0])
    True
    """

    sweeps: int = 30
    beta: float | tuple[float, ...] = 1.0
    ridge: float | tuple[float, ...] | str = "auto"
    constant: str = "exact"
    validation: float = 0.0
    tolerance: float = 1e-6
    update: str = "linearised"
    over_relaxation: float = 1.0
    spread: float | str | None = "auto"
    refit: bool = False
    average: float = 0.0
    block_size: int = 4096
    dtype: torch.dtype | None = None
    streaming: bool | str | Path = False
    group: Group = ALONE
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        check_sweeper(self)
        if not all(_is_number(beta) and beta > 0 for beta in _each(self.beta)):
            raise ValueError(f"beta={self.beta}; give a positive number, or a tuple of one for each layer")
        if self.ridge != "auto" and not all(_is_number(ridge) and ridge >= 0 for ridge in _each(self.ridge)):
            raise ValueError(f'ridge={self.ridge}; give a number >= 0, a tuple of one for each layer, or "auto"')
        if self.constant not in CONSTANTS:
            raise ValueError(f"unknown constant {self.constant!r}; give one of {', '.join(sorted(CONSTANTS))}")
        if self.update not in UPDATES:
            raise ValueError(f"unknown update {self.update!r}; give one of {', '.join(UPDATES)}")
        if not 1 <= self.over_relaxation < 2:
            raise ValueError(f"over_relaxation={self.over_relaxation}; give a number in [1, 2)")
        if self.spread not in (None, "auto") and not (_is_number(self.spread) and float(self.spread) > 0):
            raise ValueError(f'spread={self.spread}; give a positive number, "auto" or None')
        check_counts(block_size=self.block_size)
        check_dtype(self)
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average}; give a number in [0, 1)")
        if not isinstance(self.refit, bool):
            raise ValueError(f"refit={self.refit!r}; give True or False")
        if not isinstance(self.streaming, bool | str | Path):
            raise ValueError(f"streaming={self.streaming}; give True, False or a folder")
        if not all(hasattr(self.group, name) for name in ("rank", "size", "add", "maximum", "hand_out")):
            raise ValueError(f"group={self.group!r}; give ALONE, or Processes() of an initialised torch.distributed")
        if not isinstance(self.checkpoint, Checkpoint | None):
            raise ValueError(f"checkpoint={self.checkpoint!r}; give a Checkpoint or None")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws the validation split."""

        if self.refit and output_loss(problem) is not SQUARED:
            raise InputError(
                f"refit=True has a closed form for the squared loss only, not for {problem.per_sample.name}",
                'give Problem(..., loss="squared") or refit=False',
            )

        def begin(chain: Chain, train: Data) -> ADMMIteration:
            self._check_memory(chain, train)
            resumed = self.checkpoint is not None and self.checkpoint.resume  # then the weights are no fresh ones
            if self.spread is not None and not resumed:
                weights = starting_weights(chain, train, self.spread) or chain.weights()
                # Every process has its own samples; all take the start of the first.
                self.group.hand_out(weights, [0] * len(weights))
                chain.load(weights)
            return ADMMIteration(self, problem, chain, train)

        return train_in_sweeps(
            self,
            problem,
            begin,
            name="ADMM",
            generator=generator,
            callback=callback,
            group=self.group,
            checkpoint=self.checkpoint,
        )

    def _check_memory(self, chain: Chain, train: Data) -> None:
        dtype, machine = self.dtype or chain.dtype, neighbours(self.group)
        rows, fewer = min(self.block_size, len(train)), "fewer samples, or spread them over machines by torchrun"
        working = working_bytes(chain, rows=rows, dtype=dtype)
        given = isinstance(train.x, Tensor) and train.x.dtype == dtype
        stored = stored_bytes(chain, len(train), copies=2, dtype=dtype, own_samples=not given)
        if self.streaming is False:
            remedy = f"set streaming=True ({gigabytes(stored * machine)} on disk instead), take {fewer}"
            if any(layer.activation.left is not None for layer in chain.layers):
                stored = stored_bytes(chain, len(train), copies=3, dtype=dtype, own_samples=not given)
        else:
            stored, remedy = 0, "take a smaller block_size or a narrower network"
        device = chain.layers[0].linear.weight.device
        check_memory("ADMM", (stored + working) * machine, samples=len(train), device=device, remedy=remedy)


def _is_number(setting: Any) -> bool:
    # numpy's numbers are Real, too; True is one for Python alone.
    return isinstance(setting, Real) and not isinstance(setting, bool) and math.isfinite(setting)


def _each(setting: Any) -> tuple[Any, ...]:
    return setting if isinstance(setting, tuple) else (setting,)
