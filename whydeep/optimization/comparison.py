"""Solvers side by side: the same starts, the same samples, a setting for each chosen on held-back data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.training import Callback, Solver, Status, Training
from whydeep.networks.mlp import initialise

from .admm import ADMM
from .backprop import Backprop
from .chain import Chain
from .stochastic_admm import StochasticADMM

CORRECTED: Mapping[str, tuple[str, float]] = {
    "sigmoid": ("xavier", 4.0),
    "relu": ("he", 1.0),
    "leaky relu": ("he", 1.0),
}
"""Activation -> initialisation and gain that keep the size of signals and gradients; Xavier with gain 1 for the rest."""

FACTORS = (1 / 3, 1.0, 3.0)
"""The small grid of `candidates`, as multiples of the setting given."""


@dataclass(frozen=True)
class Run:
    """One training: of which solver, from which start, with which seed; `setting` says what was chosen for it.

    test: test error for classes, else test risk; None without a test set.
    """

    solver: str
    start: str
    seed: int
    setting: str
    training: Training
    test: float | None

    def at(self, name: str, axis: str, where: float) -> float:
        """Return history `name` ("loss", "error") at so many "seconds" or "passes", linear between two passes."""
        values = self.training.history[name].numpy()
        return float(np.interp(where, self.axis(axis), values))

    def axis(self, name: str) -> NDArray[np.float64]:
        """Return the "seconds" or "passes" of every entry of the history."""
        seconds: NDArray[np.float64] = self.training.history["seconds"].numpy()
        return seconds if name == "seconds" else np.arange(len(seconds), dtype=float)


def candidates(solver: Solver) -> dict[str, Solver]:
    """Return the settings among which a solver is chosen, by name: the knob that matters most, times `FACTORS`.

    Back-propagation: lr; ADMM: ridge where it is a number; StochasticADMM: damping. Other solvers stand for themselves.
    """
    knob = next(
        (
            key
            for kind, key in ((Backprop, "lr"), (ADMM, "ridge"), (StochasticADMM, "damping"))
            if isinstance(solver, kind)
        ),
        None,
    )
    given: Any = None if knob is None else getattr(solver, knob)
    if knob is None or not isinstance(given, int | float) or not given:
        return {"as given": solver}
    changed: Any = solver
    return {f"{knob} {factor * given:.3g}": replace(changed, **{knob: factor * given}) for factor in FACTORS}


def corrected(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a copy of a chain with its layers drawn as `CORRECTED` says; raises `InputError` when it is no chain."""
    model = copy.deepcopy(model)
    layers = Chain.of(model, solver="the corrected start").layers
    for index, layer in enumerate(layers):
        name, gain = CORRECTED.get(layer.activation.name, ("xavier", 1.0))
        initialise(layer.linear, *((name, gain) if index + 1 < len(layers) else ("xavier", 1.0)), generator)
    return model


def compare(
    problem: Problem,
    solvers: Mapping[str, Solver],
    starts: Mapping[str, Callable[[torch.Generator], nn.Module]],
    *,
    seeds: int,
    generator: torch.Generator,
    watch: Callable[[str], Callback | None] = lambda label: None,
) -> Iterator[Run]:
    """Train every solver from every start with every seed, and yield the runs as they end.

    A tenth of the training samples, the same for all, is held back: on it each solver's setting is chosen from
    `candidates` by the least risk after a whole training from the first seed's start, for each kind of start apart.
    Then all seeds train with it, on the other nine tenths. watch: label of a run -> its callback; the iterator ends
    after a run that a callback stopped. A solver that cannot take the network raises its `InputError`.
    """
    held, train = problem.train.split(max(1, len(problem.train) // 10), generator)
    problem = replace(problem, train=train)
    base = spawn(generator).initial_seed()
    for start, fresh in starts.items():
        models = [fresh(torch.Generator().manual_seed(base + seed)) for seed in range(seeds)]
        for label, solver in solvers.items():

            def train_from(seed: int, one: Solver, text: str, models: list[nn.Module] = models) -> Training:
                stream = torch.Generator().manual_seed(base + seed)
                return one.train(problem.with_model(models[seed]), generator=stream, callback=watch(text))

            setting, tried = "", candidates(solver)
            pilots: dict[str, Training] = {}
            for name, one in tried.items() if len(tried) > 1 else ():
                pilots[name] = train_from(0, one, f"{label}, {start}, {name}")
                if pilots[name].outcome.status is Status.INTERRUPTED:
                    return
            risks = {name: _risk(problem.with_model(pilot.model), held, pilot) for name, pilot in pilots.items()}
            setting = min(risks, key=lambda name: risks[name]) if risks else next(iter(tried))
            for seed in range(seeds):
                # The chosen pilot is the first seed's run: the same start, samples and random numbers.
                again = seed == 0 and setting in pilots
                text = f"{label}, {start}, seed {seed + 1} of {seeds}"
                training = pilots[setting] if again else train_from(seed, tried[setting], text)
                yield Run(label, start, seed, setting, training, _test(problem.with_model(training.model)))
                if training.outcome.status is Status.INTERRUPTED:
                    return


def eligible(problem: Problem, solvers: Mapping[str, Solver]) -> dict[str, str]:
    """Return for each solver that refuses the problem the reason; one callback stops every other after a step."""
    refused = {}
    few = replace(problem, train=problem.train.take(torch.arange(min(len(problem.train), 50))))
    for label, solver in solvers.items():
        try:
            solver.train(few, callback=lambda progress: True)
        except InputError as reason:
            refused[label] = str(reason)
    return refused


def _risk(problem: Problem, held: Any, training: Training) -> float:
    risk = math.inf if training.outcome.diverged else problem.risk(held)
    return risk if math.isfinite(risk) else math.inf


def _test(problem: Problem) -> float | None:
    if problem.test is None:
        return None
    if problem.test.classes is None:
        return problem.risk(problem.test)
    return float(errors(problem.model, problem.test).double().mean())


def shortest(runs: Sequence[Run], axis: str) -> float:
    """Return the most "seconds" or "passes" that every run has had."""
    return min(float(run.axis(axis)[-1]) for run in runs)
