"""Pontryagin's method of successive approximations: every layer maximises its own Hamiltonian, all at once.

The maximum principle: at the best controls, theta_t maximises H_t for every layer t, with states and co-states of
these controls. MSA takes it as a rule of iteration: states forward, co-states backward, then every control to the
maximum of its Hamiltonian. Far from the present controls H_t says little about the risk, and plain MSA is seldom
stable; E-MSA maximises the extended Hamiltonian, which holds states and co-states together (see `hamiltonian`).
Source: Li, Chen, Tai and E, Maximum principle based algorithms for deep learning, JMLR 2018, Algorithms 1 and 2
(recalled, not checked against the paper).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback, Training

from .counts import check_counts
from .hamiltonian import Trajectory, layers_of, maximise, trajectory
from .passes import Passes

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
    Outcome DIVERGED when the risk is not finite, `EXPLODED` times that of the start, or at the end `explosion.TIMES`
    that of the start: the model is the one with the least risk.

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
    check_counts(epochs=solver.epochs, inner=solver.inner)
    check_counts(optional=True, batch_size=solver.batch_size)
    if not 0 <= solver.ridge < math.inf:
        raise ValueError(f"ridge={solver.ridge}; give a number >= 0")
    if not 0 <= solver.validation < 1:
        raise ValueError(f"validation={solver.validation}; give a fraction in [0, 1)")


class _Run(Passes):
    """The state of one training."""

    unit = "iteration"
    mode = False

    def __init__(
        self, solver: _Successive, name: str, rho: float, problem: Problem, generator: torch.Generator
    ) -> None:
        super().__init__(
            problem,
            validation=solver.validation,
            batch_size=solver.batch_size,
            monitor=WATCHED,
            generator=generator,
        )
        self.solver, self.rho = solver, rho
        self.layers = layers_of(self.model, solver=name)
        self.total = solver.epochs * math.ceil(len(self.train) / self.batch)
        self.gains: list[float] = []

    def updates(self) -> Iterator[float]:
        """Make the iterations of one pass."""
        self.gains = []
        for x, targets in self.train.batches(self.batch, self.generator):
            path = trajectory(self.layers, self.problem.per_sample, x, targets)
            loss = float(path.losses.mean())
            if math.isfinite(loss):
                self.gains.append(sum(self._maximise(path, index) for index in range(len(self.layers))))
            yield loss

    def extra(self, loss: float) -> dict[str, float]:
        """Return the objective, and the gain an iteration."""
        size = sum(float(value.detach().double().square().sum()) for layer in self.layers for value in layer.control)
        return {
            "objective": loss + self.solver.ridge / 2 * size,
            "gain": sum(self.gains) / max(1, len(self.gains)),
        }

    def hopeless(self, loss: float) -> bool:
        """Compare with the risk at the start."""
        return bool(self.history["loss"]) and loss > EXPLODED * max(1.0, self.history["loss"][0])

    def _maximise(self, path: Trajectory, index: int) -> float:
        return maximise(self.layers, path, index, rho=self.rho, ridge=self.solver.ridge, inner=self.solver.inner)
