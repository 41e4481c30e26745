"""ADMM for deep networks: the lecture's Algorithm 1, with sums over all samples and no gradient across layers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback, Outcome, Progress, Status, Training

from .admm_sweep import sweep
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
    (the sum above, of the network itself), "kkt" (Frobenius norm of all residuals of the KKT conditions),
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
        if self.sweeps < 1:
            raise ValueError(f"sweeps={self.sweeps}; give at least 1")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta={self.beta}; give a positive number")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge={self.ridge}; give a number >= 0")
        if self.constant not in CONSTANTS:
            raise ValueError(f"unknown constant {self.constant!r}; give one of {', '.join(sorted(CONSTANTS))}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation={self.validation}; give a fraction in [0, 1)")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance}; give a number >= 0")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws the validation split."""
        return _Run(self, problem, or_default(generator), callback).run()


class _Run:
    """The state of one training."""

    def __init__(self, solver: ADMM, problem: Problem, generator: torch.Generator, callback: Callback | None) -> None:
        self.solver, self.problem, self.callback = solver, problem, callback
        self.model = problem.copy()
        self.chain = Chain.of(self.model)
        loss = output_loss(problem)
        train, self.held = problem.train, None
        if solver.validation:
            held, train = train.split(max(1, round(solver.validation * len(train))), generator)
            self.held = (self._samples(held), held.targets)
        x, self.labels = self._samples(train), train.targets
        layers = len(self.chain.layers)
        self.lagrangian = Lagrangian(
            self.chain,
            loss,
            target_rows(self.labels, self.chain.layers[-1].linear.out_features),
            ridges=(solver.ridge,) * layers,
            betas=(solver.beta,) * layers,
        )
        self.state = State.feasible(self.chain, self.chain.weights(), x)
        self.scale = math.sqrt(float(x.square().sum()) + len(x) + float(self.lagrangian.targets.square().sum()))
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.best = (math.inf, self.state.weights)

    def _samples(self, data: Data) -> Tensor:
        x = data.in_memory().x
        assert isinstance(x, Tensor)
        return self.chain.flat(x)

    def run(self) -> Training:
        outcome = None if self._record(self.state) else Outcome(Status.DIVERGED, "the risk is not finite at the start")
        done = 0
        while outcome is None:
            outcome = self._advance(done + 1)
            if outcome is None:
                done += 1
                outcome = self._verdict(done)
        keep_best = self.held is not None and self.history and not outcome.diverged
        self.chain.load(self.best[1] if keep_best else self.state.weights)
        history = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.history.items()}
        return Training(self.model, history, outcome, self.seconds)

    def _advance(self, number: int) -> Outcome | None:
        """Do one sweep; where it breaks down the state stays as it was."""
        began = time.perf_counter()
        try:
            state = sweep(self.lagrangian, self.state, CONSTANTS[self.solver.constant])
        except ArithmeticError as fault:
            return Outcome(Status.DIVERGED, f"{fault} in sweep {number}")
        finally:
            self.seconds += time.perf_counter() - began
        if not self._record(state):
            return Outcome(Status.DIVERGED, f"the iterate or its risk is not finite after sweep {number}")
        self.state = state
        return None

    def _record(self, state: State) -> bool:
        """Append to the history, if all is finite also in the model's own type of number; return whether it is."""
        chain, risk = self.chain, self.problem.per_sample
        own = (weight.to(chain.layers[0].linear.weight.dtype) for weight in state.weights)
        if not state.finite or not all(bool(torch.isfinite(weight).all()) for weight in own):
            return False
        outputs = chain.states(state.weights, state.states[0])[-1]
        residuals = self.lagrangian.residuals(state)
        values = {
            "loss": float(risk(outputs, self.labels).mean()),
            "objective": self.lagrangian.objective(state.weights, outputs),
            "kkt": residuals.norm / self.scale,
            "feasibility": residuals.infeasibility / self.scale,
            "seconds": self.seconds,
        }
        if self.problem.train.classes is not None:
            values["error"] = float((outputs.argmax(1) != self.labels).double().mean())
        if self.held is not None:
            x, labels = self.held
            values["validation"] = float(risk(chain.states(state.weights, x)[-1], labels).mean())
        if not all(math.isfinite(value) for value in values.values()):
            return False
        if self.held is not None and values["validation"] < self.best[0]:
            self.best = (values["validation"], state.weights)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return True

    def _verdict(self, done: int) -> Outcome | None:
        if self.history["kkt"][-1] <= self.solver.tolerance:
            return Outcome(
                Status.CONVERGED, f"the KKT residual is at most {self.solver.tolerance:g} after {done} sweeps"
            )
        if self.callback is not None and self.callback(Progress(done, self.solver.sweeps, self.history["loss"][-1])):
            return Outcome(Status.INTERRUPTED, f"stopped by the callback after sweep {done}")
        if done == self.solver.sweeps:
            return Outcome(Status.BUDGET_SPENT, f"{done} sweeps done")
        return None
