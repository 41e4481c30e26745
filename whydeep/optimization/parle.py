"""Parle: several replicas of a network descend their local entropies, tied to their mean by an elastic force."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default, spawn
from whydeep.core.training import Callback, Training

from .counts import check_counts
from .passes import Passes


@dataclass(frozen=True)
class Parle:
    """Minimise the risk by n replicas x_a with chains y_a of `inner` steps, and the mean x of the replicas:

        y_a <- y_a - inner_lr [grad f(y_a) + gamma (y_a - x_a)],  z_a <- average z_a + (1 - average) y_a
        x_a <- x_a - lr gamma (x_a - z_a) - lr rho (x_a - x)      after `inner` steps, when y_a starts anew at x_a
        gamma <- gamma (1 + gamma_scoping), rho <- rho (1 + rho_scoping).

    f is the risk of a mini-batch, another one for every replica and step. The replicas agree more and more as rho
    grows; the result is their mean, whose batch norm statistics are the mean of theirs. lr gamma = 1 sets x_a to z_a.
    gamma and rho are stiffnesses: the paper's are their inverses. spread: the replicas start as copies that a Gaussian
    of this fraction of the root mean square weight moves apart; 0 starts them equal, parted by their mini-batches only.
    epochs: passes over the data by each replica, so that the cost is `replicas` times that of `Backprop`.

    History: "loss", "seconds", for classes "error", all of the mean network, and "spread", the root mean square
    distance of the replicas' centres from their mean, over its length. Outcome DIVERGED as for `Backprop`.
    Source: Chaudhari et al. 2017, Parle: parallelizing stochastic gradient descent, equations 8 (recalled, not checked
    against the paper); there gamma and rho are scoped once in L steps, here, too. No accuracy is promised.
    Cost of a pass: `replicas` gradients of all samples; memory of 4 copies of the weights a replica.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import linear
    >>> data = Data(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), classes=2)
    >>> training = Parle(replicas=2, epochs=100, batch_size=None, inner_lr=1.0).train(Problem(linear(1, 2), data))
    >>> float(training.history["error"][-1])
    0.0
    """

    replicas: int = 3
    epochs: int = 20
    batch_size: int | None = 64
    inner: int = 5
    inner_lr: float = 0.1
    lr: float = 1.0
    gamma: float = 1.0
    gamma_scoping: float = 0.0
    rho: float = 0.1
    rho_scoping: float = 0.01
    average: float = 0.75
    spread: float = 0.0
    monitor: int = 10_000

    def __post_init__(self) -> None:
        check_counts(replicas=self.replicas, epochs=self.epochs, inner=self.inner, monitor=self.monitor)
        check_counts(optional=True, batch_size=self.batch_size)
        for name in ("inner_lr", "lr", "gamma", "gamma_scoping", "rho", "rho_scoping", "spread"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; give a finite number >= 0")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average}; give a number in [0, 1)")

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train copies of `problem.model` from its present parameters and return their mean."""
        generator = or_default(generator)
        with global_seed(generator):  # dropout draws from the global generator
            return _Run(self, problem, generator).run(callback)


class _Replica:
    """A network whose weights are y, with its centre x and running mean z."""

    def __init__(self, problem: Problem, generator: torch.Generator, batch_size: int) -> None:
        self.model = problem.copy()
        self._problem, self._generator, self._batch_size = problem, generator, batch_size
        self.y = [value for value in self.model.parameters() if value.requires_grad]
        self.x = [value.detach().clone() for value in self.y]
        self.z = [value.detach().clone() for value in self.y]
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self.model.train()

    def part(self, spread: float, generator: torch.Generator) -> None:
        """Move the start by a Gaussian of this fraction of each weight's root mean square."""
        with torch.no_grad():
            for y, centre, mean in zip(self.y, self.x, self.z, strict=True):
                noise = torch.randn(centre.shape, dtype=centre.dtype, generator=generator).to(centre.device)
                centre.add_(noise * centre.square().mean().sqrt(), alpha=spread)
                y.copy_(centre)
                mean.copy_(centre)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the next mini-batch of passes in random order; one of a single sample is left out."""
        while True:
            for x, y in self._batches:
                if len(x) > 1 or self._batch_size == 1 or len(self._problem.train) == 1:
                    return x, y
            self._batches = iter(self._problem.train.batches(self._batch_size, self._generator))

    def step(self, solver: Parle, gamma: float) -> float:
        """Take one step of the chain y and return the loss before it."""
        x, target = self.batch()
        with torch.enable_grad():
            loss = self._problem.per_sample(self.model(x), target).mean()
            gradients = torch.autograd.grad(loss, self.y, materialize_grads=True)
        with torch.no_grad():
            for y, gradient, centre, mean in zip(self.y, gradients, self.x, self.z, strict=True):
                y.sub_(gradient + gamma * (y - centre), alpha=solver.inner_lr)
                mean.lerp_(y, 1 - solver.average)
        return float(loss.detach())

    def pull(self, solver: Parle, gamma: float, rho: float, middle: list[Tensor]) -> None:
        """Move the centre towards the chain's mean and the mean of all replicas, and start the chain there."""
        with torch.no_grad():
            for y, centre, mean, whole in zip(self.y, self.x, self.z, middle, strict=True):
                centre.copy_(centre - solver.lr * gamma * (centre - mean) - solver.lr * rho * (centre - whole))
                y.copy_(centre)
                mean.copy_(centre)


class _Run(Passes):
    """The state of one training; `model` is the mean of the replicas."""

    def __init__(self, solver: Parle, problem: Problem, generator: torch.Generator) -> None:
        super().__init__(
            problem, validation=0.0, batch_size=solver.batch_size, monitor=solver.monitor, generator=generator
        )
        self.solver = solver
        self.replicas = [_Replica(problem, spawn(generator), self.batch) for _ in range(solver.replicas)]
        self.per_pass = math.ceil(len(self.train) / self.batch)
        self.total = solver.epochs * self.per_pass
        self.gamma, self.rho = solver.gamma, solver.rho
        for replica in self.replicas if solver.spread else []:
            replica.part(solver.spread, generator)
        self._gather()

    def updates(self) -> Iterator[float]:
        """Take one step of every replica's chain at a time, and pull the centres together after so many."""
        solver = self.solver
        for number in range(self.done + 1, self.done + self.per_pass + 1):
            losses = [replica.step(solver, self.gamma) for replica in self.replicas]
            if number % solver.inner == 0:
                middle = [torch.stack(list(each)).mean(0) for each in self._centres()]
                for replica in self.replicas:
                    replica.pull(solver, self.gamma, self.rho, middle)
                self.gamma *= 1 + solver.gamma_scoping
                self.rho *= 1 + solver.rho_scoping
            self._gather()
            yield sum(losses) / len(losses)

    def extra(self, loss: float) -> dict[str, float]:
        """Return how far the replicas are apart."""
        apart = size = 0.0
        for each in self._centres():
            stacked = torch.stack(list(each)).double()
            apart += float((stacked - stacked.mean(0)).square().sum()) / len(stacked)
            size += float(stacked.mean(0).square().sum())
        return {"spread": math.sqrt(apart / size) if size > 0 else 0.0}

    def _centres(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield for every weight the centres of all replicas."""
        yield from zip(*(replica.x for replica in self.replicas), strict=True)

    def _gather(self) -> None:
        """Set the mean network: the mean of the chains' means z, and of the replicas' buffers."""
        with torch.no_grad():
            weights = [value for value in self.model.parameters() if value.requires_grad]
            means = zip(*(replica.z for replica in self.replicas), strict=True)
            for value, each in zip(weights, means, strict=True):
                value.copy_(torch.stack(list(each)).mean(0))
            buffers = zip(*(replica.model.buffers() for replica in self.replicas), strict=True)
            for buffer, each in zip(self.model.buffers(), buffers, strict=True):
                mean = torch.stack(list(each)).double().mean(0)
                buffer.copy_(mean if buffer.is_floating_point() else mean.round())
