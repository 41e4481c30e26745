"""Training in sweeps: what every alternating method shares, whatever its blocks of variables are.

A method supplies an `Iteration`; the loop here keeps the history, the best iterate on a validation split, stops early,
and takes a broken iteration back to the best weights so far, from where the method goes on more cautiously.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback, Outcome, Progress, Status, Training
from whydeep.optimization.counts import check_counts
from whydeep.optimization.distributed.checkpoint import Checkpoint, Saved, load_checkpoint, save_checkpoint, settings_of
from whydeep.optimization.distributed.group import ALONE, Group, any_of, check_same, share
from whydeep.optimization.explosion import exploded

from .chain import Chain
from .watched import ROWS, Watched, Weights, identity

RESTARTS = 5
"""How often a training is taken back to its best weights before it counts as diverged."""
COLLAPSE = 5
"""After so many sweeps in a row far above its least risk a training is taken back, too; see `collapsed`."""


class SurrogateWarning(UserWarning):
    """The function that the method minimises has fallen while the network's own loss hardly has."""


class Iteration(Protocol):
    """An alternating method at work: its variables, one sweep over them, and how well its conditions hold."""

    def sweep(self) -> None:
        """Update every block of variables once; raises `ArithmeticError` where a step breaks down."""

    def weights(self) -> Weights:
        """Return the present W_i (outputs, inputs + 1); later sweeps leave these tensors alone."""

    def monitor(self) -> Mapping[str, float]:
        """Return "objective", the function that the sweeps lower, and "kkt" and "feasibility" where defined."""

    def restart(self, weights: Weights) -> bool:
        """Start again from the forward pass at `weights`, more cautiously; return False where that cannot be."""


@runtime_checkable
class Averaging(Protocol):
    """An iteration that offers other weights beside the present ones: the better of the two are watched and kept."""

    def averaged(self) -> Weights | None:
        """Return a mean of the weights of the past sweeps, None while there is none."""


class Sweeper(Protocol):
    """The hyper-parameters that the loop reads."""

    @property
    def sweeps(self) -> int:
        """Passes over all samples."""

    @property
    def validation(self) -> float:
        """Fraction of the training data that is held back; the iterate with the least risk on it is returned."""

    @property
    def tolerance(self) -> float:
        """The training has converged when "kkt" is at most this."""


def collapsed(risks: Sequence[float], fresh: int = 0) -> bool:
    """Return whether a training has given back a third of what it had gained, for `COLLAPSE` sweeps in a row.

    With r_0 the risk at the start and r the least one so far: the risks of these sweeps are all above r + (r_0 - r)/3.
    Never while r > r_0 / 2: before it has gained much, the risk of an alternating method wanders. risks: one a sweep
    and the start. fresh: how many of them come before the last restart; they do not count as these sweeps.

    >>> collapsed([1.0, 0.1, 0.6, 0.6, 0.6, 0.6, 0.6]), collapsed([1.0, 0.1, 0.6, 0.6, 0.3, 0.6, 0.6])
    (True, False)
    """
    least = min(risks)
    late = risks[max(fresh, len(risks) - COLLAPSE) :]
    far = least + (risks[0] - least) / 3
    return len(late) == COLLAPSE and least <= risks[0] / 2 and min(late) > far


def check_sweeper(solver: Sweeper) -> None:
    """Raise `ValueError` when a hyper-parameter of the loop is out of range."""
    check_counts(sweeps=solver.sweeps)
    if not 0 <= solver.validation < 1:
        raise ValueError(f"validation={solver.validation}; give a fraction in [0, 1)")
    if not solver.tolerance >= 0:
        raise ValueError(f"tolerance={solver.tolerance}; give a number >= 0")


def check_positive(solver: Sweeper, *names: str) -> None:
    """Raise `ValueError` when one of these hyper-parameters is no finite positive number."""
    for name in names:
        if not 0 < getattr(solver, name) < math.inf:
            raise ValueError(f"{name}={getattr(solver, name)}; give a positive number")


def check_dtype(solver: Sweeper) -> None:
    """Raise `ValueError` when the type of the states is none in which the methods work."""
    dtype = getattr(solver, "dtype", None)
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype={dtype}; give torch.float32, torch.float64 or None")


def data_norm(x: Tensor, targets: Tensor, group: Group = ALONE) -> float:
    """Return the Frobenius norm of [X, 1, Y], to which "kkt" and "feasibility" are relative: no sweep changes it."""
    blocks = zip(torch.split(x, ROWS), torch.split(targets, ROWS), strict=True)
    squares = sum(float(rows.double().square().sum()) + float(wanted.square().sum()) for rows, wanted in blocks)
    total = torch.tensor([squares + len(x)], dtype=torch.float64, device="cpu")
    group.add([total])
    return math.sqrt(float(total))


def train_in_sweeps(
    solver: Sweeper,
    problem: Problem,
    begin: Callable[[Chain, Data], Iteration],
    *,
    name: str,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
    group: Group = ALONE,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train a copy of `problem.model` by an alternating method from its present parameters.

    begin: (chain of the copy, training samples without the validation split) -> the iteration at its start.
    name: of the solver, for messages. generator: draws the validation split.
    group: the processes that train together. All are given the same problem and the same generator; each keeps its
    share of the samples, and `begin` gets that. What is decided is decided on sums over all of them, so that every
    process does the same and returns the same weights. checkpoint: where the run is saved, and whether it goes on.

    History: "loss" (risk of the network itself, the mean over the training samples), what `Iteration.monitor` tells,
    "seconds" (in sweeps only), for classes "error", with a split "validation" (risk); one entry a sweep and the start.
    Taken back to the best weights, more cautiously, when the iteration breaks down or the risk on the training samples
    has `collapsed`, five times at most. Outcome DIVERGED when it breaks down again, or ends `exploded`: the model is
    the best finite one.
    Warns by `SurrogateWarning` when the objective has fallen to half and less while the network's own loss has fallen
    by less than a fifth of that share. Raises `InputError` when the model is no chain, when there are fewer samples
    than processes or these were given different problems, and on a checkpoint of another training; `LostProcess` when
    a process of the group is lost.
    """
    model = problem.copy()
    chain = Chain.of(model, solver=name)
    train, held = problem.train, None
    if solver.validation:
        held, train = train.split(max(1, round(solver.validation * len(train))), or_default(generator))
    if len(train) < group.size:
        raise InputError(f"{len(train)} samples for {group.size} processes", "start no more processes than samples")
    shapes = str([tuple(weight.shape) for weight in chain.weights()])
    settings = settings_of(solver, name, {"layers": shapes, **identity(train, held)})
    saved = None
    if checkpoint is not None and checkpoint.resume:
        saved = load_checkpoint(checkpoint.path, settings)
        chain.load(saved.last)
    squares = [float(weight.square().sum()) for weight in chain.weights()]
    numbers = [0 if saved is None else saved.done, *identity(train, held).values(), *squares]
    check_same(group, torch.tensor(numbers, dtype=torch.float64, device="cpu"))
    own = share(group, train)
    assert own is not None
    run = _Run(
        solver,
        problem,
        model,
        chain,
        begin(chain, own),
        Watched(problem, chain, own, share(group, held), held is not None, group),
        settings,
        checkpoint,
    )
    if saved is not None:
        run.go_on(saved)
    return run.training(callback)


@dataclass
class _Run:
    """The state of one training."""

    solver: Sweeper
    problem: Problem
    model: nn.Module
    chain: Chain
    iteration: Iteration
    watched: Watched
    settings: Mapping[str, Any]
    checkpoint: Checkpoint | None

    def __post_init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.restarts = self.done = self.fresh = 0
        self.last = self.iteration.weights()
        self.best = (math.inf, self.last)

    def go_on(self, saved: Saved) -> None:
        """Take up a run from its checkpoint; the chain has its last weights already."""
        self.history = {name: list(values) for name, values in saved.history.items()}
        self.seconds = self.history["seconds"][-1]
        self.best = (saved.score, tuple(w.to(self.last[0]) for w in saved.best))
        self.done, self.restarts = saved.done, saved.restarts
        self.fresh = len(self.history["loss"])
        for _ in range(saved.restarts):  # as cautious as it was
            self.iteration.restart(self.last)

    def training(self, callback: Callback | None) -> Training:
        outcome = None
        if not self.history and not self._record():
            outcome = Outcome(Status.DIVERGED, "the risk is not finite at the start")
        elif self.done >= self.solver.sweeps:
            outcome = Outcome(Status.BUDGET_SPENT, f"{self.done} sweeps were done already")
        while outcome is None:
            fault = self._sweep()
            if fault is not None:
                outcome = self._take_back(fault, self.done + 1)
                continue
            self.done += 1
            outcome = self._verdict(self.done, callback)
            # All processes have the same history. A method that cannot be more cautious goes on as it is.
            if outcome is None and self.restarts < RESTARTS and collapsed(self.history["loss"], self.fresh):
                self._take_back("the risk has risen and stayed high", self.done)
            self._save(at_the_end=outcome is not None)
        if self.history:
            outcome = exploded(outcome, self.history, self.problem)
        keep_best = self.history and (self.watched.validates or outcome.diverged)
        self.chain.load(self.best[1] if keep_best else self.last)
        history = {
            name: torch.tensor(values, dtype=torch.float64, device="cpu") for name, values in self.history.items()
        }
        return Training(self.model, history, self._warned(outcome), self.seconds)

    def _sweep(self) -> str | None:
        """Do one sweep and record it; return what went wrong."""
        began = time.perf_counter()
        fault = None
        try:
            self.iteration.sweep()
        except ArithmeticError as error:
            fault = str(error)
        finally:
            self.seconds += time.perf_counter() - began
        if any_of(self.watched.group, fault is not None):
            return fault or "a step broke down in another process"
        return None if self._record() else "the iterate or its risk is not finite"

    def _save(self, *, at_the_end: bool) -> None:
        checkpoint = self.checkpoint
        if checkpoint is None or self.watched.group.rank or not (at_the_end or self.done % checkpoint.every == 0):
            return
        score, best = self.best
        saved = Saved(self.last, best, score, self.history, self.done, self.restarts, self.settings)
        save_checkpoint(checkpoint.path, saved)

    def _take_back(self, fault: str, number: int) -> Outcome | None:
        self.restarts += 1
        if self.restarts <= RESTARTS and self.iteration.restart(self.best[1]):
            self.fresh, self.last = len(self.history["loss"]), self.best[1]
            return None
        return Outcome(Status.DIVERGED, f"{fault} in sweep {number}")

    def _record(self) -> bool:
        """Append to the history, if all is finite also in the network's own type of number; return whether it is."""
        weights = self.iteration.weights()
        found = self._measured(weights)
        if found is None:
            return False
        judge = "validation" if self.watched.validates else "loss"
        if isinstance(self.iteration, Averaging) and (averaged := self.iteration.averaged()) is not None:
            other = self._measured(averaged)
            if other is not None and other[judge] < found[judge]:
                weights, found = averaged, other
        values = found | dict(self.iteration.monitor()) | {"seconds": self.seconds}
        if not all(math.isfinite(value) for value in values.values()):
            return False
        judged = values[judge]
        if judged < self.best[0] or not self.history:
            self.best = (judged, weights)
        self.last = weights
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return True

    def _measured(self, weights: Weights) -> dict[str, float] | None:
        """Return what is watched of the network with these weights, None where one of them or of it is not finite."""
        if not all(bool(torch.isfinite(weight.to(self.chain.dtype)).all()) for weight in weights):
            return None
        values = self.watched.measure(weights)
        return values if all(math.isfinite(value) for value in values.values()) else None

    def _verdict(self, done: int, callback: Callback | None) -> Outcome | None:
        if "kkt" in self.history and self.history["kkt"][-1] <= self.solver.tolerance:
            return Outcome(
                Status.CONVERGED, f"the KKT residual is at most {self.solver.tolerance:g} after {done} sweeps"
            )
        stop = callback is not None and bool(callback(Progress(done, self.solver.sweeps, self.history["loss"][-1])))
        if any_of(self.watched.group, stop):
            return Outcome(Status.INTERRUPTED, f"stopped by the callback after sweep {done}")
        if done == self.solver.sweeps:
            taken_back = f", {self.restarts} times taken back" if self.restarts else ""
            return Outcome(Status.BUDGET_SPENT, f"{done} sweeps done{taken_back}")
        return None

    def _warned(self, outcome: Outcome) -> Outcome:
        loss, objective = self.history.get("loss", [0.0]), self.history.get("objective", [0.0])
        if len(loss) <= 10 or not objective[0] > 0 or not loss[0] > 0:
            return outcome
        # At the forward pass the two are the same but for the penalties, so relative falls compare: a network that only
        # learns the best constant output gains a tenth or so of its loss, one that learns gains most of it.
        if objective[-1] <= objective[0] / 2 and 1 - min(loss) / loss[0] < (1 - objective[-1] / objective[0]) / 5:
            found = (
                f"the objective fell from {objective[0]:.3g} to {objective[-1]:.3g}, the network's own loss only "
                f"from {loss[0]:.3g} to {loss[-1]:.3g}"
            )
            if self.watched.group.rank == 0:
                warnings.warn(f"{found}; try another start, larger penalties or more sweeps", SurrogateWarning, 4)
            return Outcome(outcome.status, f"{outcome.reason}; {found}")
        return outcome
