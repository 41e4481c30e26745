"""Pontryagin's method of successive approximations: every layer maximises its own Hamiltonian, all at once.

The maximum principle: at the best controls, theta_t maximises H_t for every layer t, with states and co-states of
these controls. MSA takes it as a rule of iteration: states forward, co-states backward, then every control to the
maximum of its Hamiltonian. Far from the present controls H_t says little about the risk, and plain MSA is seldom
stable; E-MSA maximises the extended Hamiltonian, which holds states and co-states together (see `hamiltonian`).
Source: Li, Chen, Tai and E, Maximum principle based algorithms for deep learning, JMLR 2018, Algorithms 1 and 2
(recalled, not checked against the paper).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback, Outcome, Progress, Status, Training

from .backprop import risk_and_error
from .hamiltonian import layers_of, maximise, trajectory

WATCHED = 10_000
"""The history's risk and error are taken on at most so many training samples, the same ones throughout."""
EXPLODED = 1e6
"""Diverged is also a risk so many times that of the start (or 1, if that is less): no later pass makes sense of it."""


@dataclass(frozen=True)
class MSA:
    """The method of successive approximations: theta_t = argmax of H_t, for all layers at once.

    epochs: passes over the data. batch_size: None takes the full batch; each minibatch is one iteration of the method.
    ridge: the risk gets ridge/2 sum ||theta||^2. At ridge 0 the Hamiltonian of a layer that is linear in its control
    has no maximum, and `inner` alone limits the step.
    inner: at most so many iterations of L-BFGS a layer, from the present control.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.

    Trains an nn.Sequential of any modules (`hamiltonian.layers_of`). Batch normalisation and dropout work as in
    evaluation mode throughout: their co-states would not belong to single samples otherwise.

    History, one entry a pass and the start: "loss" (risk), "objective" (risk + ridge/2 sum ||theta||^2, on the same
    samples), "gain" (the sum over layers of how much their Hamiltonians have risen, mean over the iterations of the
    pass; the decrease of the objective that the method expects of an iteration), "seconds" (iterations only), for
    classes "error", with validation "validation" (risk).
    Outcome DIVERGED when the risk is not finite, or `EXPLODED` times that of the start: the model is the one before.

    Raises `InputError` when the model is no nn.Sequential, or its layers share parameters.
    Cost of an iteration: one gradient, and `inner` times some 1.3 gradients of every layer.
    """

    epochs: int = 10
    batch_size: int | None = None
    ridge: float = 1e-3
    inner: int = 10
    validation: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters."""
        return _Run(self, "MSA", 0.0, problem, or_default(generator)).run(callback)


@dataclass(frozen=True)
class EMSA:
    """Extended MSA: theta_t = argmax of the extended Hamiltonian of layer t, for all layers at once.

    rho: weight of the misfits of states and co-states, both per sample, so that it does not depend on `batch_size`;
    a larger one makes smaller, safer steps. With rho -> 0 it is MSA.
    The rest is as for `MSA`; "gain" is that of the extended Hamiltonians, and layers are differentiated twice.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import linear
    >>> data = Data(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), classes=2)
    >>> training = EMSA(epochs=20, batch_size=2).train(Problem(linear(1, 2), data))
    >>> float(training.history["error"][-1])
    0.0
    """

    epochs: int = 10
    batch_size: int | None = 100
    rho: float = 1.0
    ridge: float = 0.0
    inner: int = 10
    validation: float = 0.0

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.rho < math.inf:
            raise ValueError(f"rho={self.rho}; give a positive number, or take MSA, which has none")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters."""
        return _Run(self, "EMSA", self.rho, problem, or_default(generator)).run(callback)


class _Successive(Protocol):
    """What both methods have."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def ridge(self) -> float: ...
    @property
    def inner(self) -> int: ...
    @property
    def validation(self) -> float: ...


def _check(solver: _Successive) -> None:
    for name, value in (("epochs", solver.epochs), ("inner", solver.inner), ("batch_size", solver.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; give at least 1")
    if not 0 <= solver.ridge < math.inf:
        raise ValueError(f"ridge={solver.ridge}; give a number >= 0")
    if not 0 <= solver.validation < 1:
        raise ValueError(f"validation={solver.validation}; give a fraction in [0, 1)")


class _Run:
    """The state of one training."""

    def __init__(
        self, solver: _Successive, name: str, rho: float, problem: Problem, generator: torch.Generator
    ) -> None:
        self.solver, self.rho, self.problem, self.generator = solver, rho, problem, generator
        self.model = problem.copy()
        self.layers = layers_of(self.model, solver=name)
        self.train, self.held = problem.train, None
        if solver.validation:
            size = max(1, round(solver.validation * len(problem.train)))
            self.held, self.train = problem.train.split(size, generator)
        self.watched = self.train.subsample(WATCHED, generator)
        self.batch = min(solver.batch_size or len(self.train), len(self.train))
        self.total = solver.epochs * math.ceil(len(self.train) / self.batch)
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.done = 0
        self.gains: list[float] = []
        self.best = (math.inf, self._weights())

    def run(self, callback: Callback | None) -> Training:
        modes = [module.training for module in self.model.modules()]
        self.model.eval()
        outcome = None if self._record() else Outcome(Status.DIVERGED, "the risk is not finite at the start")
        last = self._weights()
        while outcome is None:
            outcome = self._pass(callback)
            if not self._record():
                outcome = Outcome(Status.DIVERGED, f"the risk exploded, or is not finite, after iteration {self.done}")
            else:
                last = self._weights()
        self.model.load_state_dict(last if outcome.diverged or self.held is None else self.best[1])
        for module, mode in zip(self.model.modules(), modes, strict=True):
            module.training = mode
        history = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.history.items()}
        return Training(self.model, history, outcome, self.seconds)

    def _pass(self, callback: Callback | None) -> Outcome | None:
        """Make the iterations of one pass; return an outcome when the training ends with or inside it."""
        began = time.perf_counter()
        self.gains = []
        try:
            for x, targets in self.train.batches(self.batch, self.generator):
                path = trajectory(self.layers, self.problem.per_sample, x, targets)
                loss = float(path.losses.mean())
                if not math.isfinite(loss):
                    return Outcome(Status.DIVERGED, f"the loss is {loss} at iteration {self.done + 1}")
                self.gains.append(
                    sum(
                        maximise(
                            self.layers, path, index, rho=self.rho, ridge=self.solver.ridge, inner=self.solver.inner
                        )
                        for index in range(len(self.layers))
                    )
                )
                self.done += 1
                if callback is not None and callback(Progress(self.done, self.total, loss)):
                    return Outcome(Status.INTERRUPTED, f"stopped by the callback at iteration {self.done}")
        finally:
            self.seconds += time.perf_counter() - began
        return Outcome(Status.BUDGET_SPENT, f"{self.done} iterations done") if self.done == self.total else None

    def _record(self) -> bool:
        """Append to the history, if the risk is finite and has not exploded; return whether that is so."""
        loss, error = risk_and_error(self.problem, self.model, self.watched)
        values = {"loss": loss} | ({} if error is None else {"error": error})
        size = sum(float(value.detach().double().square().sum()) for layer in self.layers for value in layer.control)
        values["objective"] = values["loss"] + self.solver.ridge / 2 * size
        values["gain"] = sum(self.gains) / max(1, len(self.gains))
        values["seconds"] = self.seconds
        if self.held is not None:
            values["validation"] = risk_and_error(self.problem, self.model, self.held)[0]
        if not all(math.isfinite(value) for value in values.values()):
            return False
        if self.history and values["loss"] > EXPLODED * max(1.0, self.history["loss"][0]):
            return False
        if self.held is not None and values["validation"] < self.best[0]:
            self.best = (values["validation"], self._weights())
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return True

    def _weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())
