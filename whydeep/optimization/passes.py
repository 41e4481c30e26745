"""Training pass by pass over minibatches: what back-propagation and the method of successive approximations share."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Outcome, Progress, Status, Training

from .explosion import exploded


class Passes(ABC):
    """The training of a copy of the problem's model; a method supplies `updates`, and what else it records.

    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    batch_size: None takes the full batch. monitor: the history's risk and error are taken on at most so many training
    samples, the same ones throughout. mode: whether batch normalisation and dropout work as in training.
    total: the updates to make, set by the method before `run`.

    History, one entry a pass and the start: "loss", "seconds" (updates only), for classes "error", with validation
    "validation" (risk), and what `extra` returns.
    Outcome DIVERGED when the loss or risk is not finite or `hopeless`, or when the training ends `exploded`: the model
    is then the one with the least risk, of the start and after every pass, on the validation split if there is one.
    """

    unit = "step"
    mode = True
    total: int

    def __init__(
        self, problem: Problem, *, validation: float, batch_size: int | None, monitor: int, generator: torch.Generator
    ) -> None:
        self.problem, self.generator = problem, generator
        self.model = problem.copy()
        self.train: Data = problem.train
        self.held: Data | None = None
        if validation:
            size = max(1, round(validation * len(problem.train)))
            self.held, self.train = problem.train.split(size, generator)
        self.watched = self.train.subsample(monitor, generator)
        self.batch = min(batch_size or len(self.train), len(self.train))
        self.history: dict[str, list[float]] = {"loss": [], "seconds": []}
        self.seconds = 0.0
        self.done = 0
        self.best: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, {})

    @abstractmethod
    def updates(self) -> Iterator[float]:
        """Make the updates of one pass, and yield the loss of each; one that is not finite is the last."""

    def extra(self, loss: float) -> dict[str, float]:
        """Return further entries of the history, given the risk."""
        return {}

    def hopeless(self, loss: float) -> bool:
        """Return whether no later pass can make sense of so large a risk."""
        return False

    def verdict(self, passes: int) -> Outcome | None:
        """Return an outcome where the training is to end before its budget."""
        return None

    def run(self, callback: Callback | None) -> Training:
        """Make all passes."""
        modes = [module.training for module in self.model.modules()]
        self.model.train(self.mode)
        fault = self._record()
        outcome = Outcome(Status.DIVERGED, f"{fault} at the start") if fault else None
        passes = 0
        while outcome is None:
            outcome = self._pass(callback)
            if outcome is not None and outcome.diverged:
                break
            passes += 1
            if fault := self._record():
                outcome = Outcome(Status.DIVERGED, f"{fault} after pass {passes}")
                break
            if outcome is None or outcome.status is Status.BUDGET_SPENT:  # the goal may be reached in the last pass
                outcome = self.verdict(passes) or outcome
        if self.best[2]:  # else the start has no finite risk, and no pass was made
            outcome = exploded(outcome, self.history, self.problem)
            if outcome.diverged or self.held is not None:
                self.model.load_state_dict(self.best[2])
        self.model.zero_grad(set_to_none=True)
        for module, mode in zip(self.model.modules(), modes, strict=True):
            module.training = mode
        history = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.history.items()}
        return Training(self.model, history, outcome, self.seconds)

    def _pass(self, callback: Callback | None) -> Outcome | None:
        """Make the updates of one pass; return an outcome when the training ends with or inside it."""
        began = time.perf_counter()
        try:
            for loss in self.updates():
                if not math.isfinite(loss):
                    return Outcome(Status.DIVERGED, f"the loss is {loss} at {self.unit} {self.done + 1}")
                self.done += 1
                if callback is not None and callback(Progress(self.done, self.total, loss)):
                    return Outcome(Status.INTERRUPTED, f"stopped by the callback at {self.unit} {self.done}")
                if self.done == self.total:
                    return Outcome(Status.BUDGET_SPENT, f"{self.done} {self.unit}s done")
        finally:
            self.seconds += time.perf_counter() - began
        return None

    def _record(self) -> str:
        """Append to the history; return what is wrong with the risk, "" if nothing."""
        loss, error = risk_and_error(self.problem, self.model, self.watched)
        values = {"loss": loss, "seconds": self.seconds} | ({} if error is None else {"error": error})
        values |= self.extra(loss)
        if not math.isfinite(loss):
            return "the risk is not finite"
        if self.hopeless(loss):
            return "the risk exploded"
        judged = loss if self.held is None else risk_and_error(self.problem, self.model, self.held)[0]
        if not math.isfinite(judged):
            return "the risk on the validation split is not finite"
        if self.held is not None:
            values["validation"] = judged
        if judged < self.best[0] or not self.best[2]:
            self.best = (judged, len(self.history["loss"]), copy.deepcopy(self.model.state_dict()))
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return ""


def risk_and_error(problem: Problem, model: nn.Module, data: Data) -> tuple[float, float | None]:
    """Return the risk and, for classes, the misclassified fraction of `model` on `data`, by one pass of it."""
    output = outputs(model, data)
    loss = float(problem.per_sample(output, data.targets).cpu().double().mean())  # MPS has no doubles
    if data.classes is None:
        return loss, None
    return loss, float((output.argmax(1) != data.targets).cpu().double().mean())
