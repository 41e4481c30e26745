"""Solvers side by side: the same networks, starts and seeds for each, settings chosen on held-back training data."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.loss import Loss, PerSample
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.training import Outcome, Progress, Solver, Status, Training
from whydeep.networks.mlp import initialise

from .alternating.chain import Chain
from .alternating.sweeps import SurrogateWarning
from .named import by_name

HELD_BACK = 0.1
"""Fraction of the training data on which every solver chooses its setting and its best iterate."""

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "adam": {"lr": (1e-3, 3e-3, 1e-2, 3e-2)},
    "admm": {"constant": ("exact", "published")},
    "sgd": {"lr": (0.02, 0.1, 0.5, 2.0)},
}
"""What is tried for each solver where its specification leaves it open; every other solver runs by its defaults."""

CORRECT = {"sigmoid": ("xavier", 4.0), "tanh": ("xavier", 1.0), "relu": ("he", 1.0)}
"""Initialisation and gain that keep the size of signals and gradients, by activation (`mlp` has the formulas)."""

MOST = 5
"""At equal seconds a solver makes at most so many times the passes that it made at equal passes."""

CLOSE = 0.1
"""Runs whose number of passes is within this fraction of the wanted one are not repeated: timings vary as much."""

WORDS = {"lr": "step size"}

Tell = Callable[[str, Progress], bool | None]
"""Told (which run, how far it is); returning True ends the comparison after the present step."""


@dataclass(frozen=True)
class Candidate:
    """One setting of a solver, in words and as the solver; pilot: a shorter run to choose by, the solver when None."""

    setting: str
    solver: Solver
    pilot: Solver | None = None


@dataclass(frozen=True)
class Entry:
    """A solver that takes part: the settings to choose from; loss: that of the problem when None."""

    name: str
    candidates: tuple[Candidate, ...]
    loss: Loss | str | None = None


@dataclass(frozen=True)
class Start:
    """A way to initialise the network; `network` draws a fresh one."""

    name: str
    network: Callable[[torch.Generator], nn.Module]


@dataclass(frozen=True)
class Run:
    """One training: equal is "passes" or "seconds", score the test error (fraction), or the test risk of regression."""

    solver: str
    start: str
    seed: int
    equal: str
    setting: str
    history: Mapping[str, Tensor]
    outcome: Outcome
    seconds: float
    score: float

    @property
    def passes(self) -> int:
        """Passes over the training data that were made."""
        return len(self.history["seconds"]) - 1

    @property
    def progress(self) -> Tensor:
        """The training error pass by pass, or the training risk of regression, the start first."""
        return self.history["error"] if "error" in self.history else self.history["loss"]

    def at(self, seconds: float) -> float:
        """Return `progress` at that time, between the two passes around it by linear interpolation."""
        return float(np.interp(seconds, self.history["seconds"].numpy(), self.progress.numpy()))


@dataclass(frozen=True)
class Comparison:
    """All runs. settings: what was chosen, by (solver, start). refused: why a solver cannot take the network.

    time: by start, the seconds of the runs at equal seconds. complete: False after an interruption.
    """

    runs: tuple[Run, ...]
    settings: Mapping[tuple[str, str], str]
    refused: Mapping[str, str]
    time: Mapping[str, float]
    complete: bool

    def of(self, solver: str, start: str, equal: str = "passes") -> tuple[Run, ...]:
        """Return the runs of a solver from a start, one a seed."""
        return tuple(r for r in self.runs if (r.solver, r.start, r.equal) == (solver, start, equal))


def entry(spec: str, *, samples: int, passes: int) -> Entry:
    """Return the solver of "NAME?key=value&..." with the settings of `GRIDS` that the specification leaves open.

    It trains from the very weights that the others get: ADMM rescales a faint start only where `spread` asks for that.
    Raises `InputError` on an unknown solver or key, and when the specification sets the number of passes itself.
    """
    name, _, options = spec.partition("?")
    given = {pair.partition("=")[0] for pair in options.split("&")}
    own = sorted(given & {"epochs", "steps", "sweeps"})
    if own:
        raise InputError(f"solver {spec!r} sets {own[0]} itself", "give one number of passes for all solvers")
    solver: Any = by_name(spec, samples=samples)
    fields = {field.name for field in dataclasses.fields(solver)}
    if "spread" not in given and getattr(solver, "spread", None) == "auto":
        solver = replace(solver, spread=None)
    grid = {key: values for key, values in GRIDS.get(name, {}).items() if key in fields - given}
    candidates = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        words = ", ".join(f"{WORDS.get(k, k)} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in chosen.items())
        candidates.append(Candidate(words or "as given", lasting(replace(solver, **chosen), passes)))
    return Entry(spec, tuple(candidates))


def lasting(solver: Solver, passes: int) -> Solver:
    """Return the solver with that many passes, and `HELD_BACK` of the data for its validation.

    Raises `InputError` when it has neither `epochs` nor `sweeps`.
    """
    made: Any = solver
    fields = {field.name for field in dataclasses.fields(made)}
    counted = next((name for name in ("epochs", "sweeps") if name in fields), None)
    if counted is None:
        raise InputError(f"{type(solver).__name__} has no number of passes", "let it have `epochs` or `sweeps`")
    changes: dict[str, Any] = {counted: passes}
    changes |= {"validation": HELD_BACK} if "validation" in fields else {}
    changes |= {"steps": None} if "steps" in fields else {}
    changed: Solver = replace(made, **changes)
    return changed


def corrected(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a copy of a chain initialised by `CORRECT`; the output layer by Xavier with gain 1, all biases zero.

    Raises `InputError` when the model is no chain or has another activation.
    """
    model = copy.deepcopy(model)
    layers = Chain.of(model, solver="the corrected start").layers
    for index, layer in enumerate(layers):
        name = layer.activation.name if index + 1 < len(layers) else "output"
        if name != "output" and name not in CORRECT:
            raise InputError(f"no corrected start is known for {name}", f"give layers of {', '.join(CORRECT)}")
        init, gain = CORRECT.get(name, ("xavier", 1.0))
        initialise(layer.linear, init, gain, generator)
    return model


def compare(
    entries: Sequence[Entry],
    starts: Sequence[Start],
    *,
    train: Data,
    test: Data,
    loss: Loss | str | PerSample,
    seeds: int,
    equal_seconds: bool = True,
    generator: torch.Generator,
    tell: Tell | None = None,
) -> Comparison:
    """Train by every solver from every start with every seed, first at equal passes, then at equal seconds.

    For each start a solver's setting is the candidate whose training, on a network of its own, reaches the least risk
    on the held-back data; test data choose nothing. The solvers share each seed's network and random numbers.
    At equal seconds each makes as many passes as fit the time that the slowest of them took from that start, `MOST`
    times as many at most, with its schedule stretched over them: nothing is stopped by the clock.
    A solver that raises `InputError` is left out with its reason. Cost: (candidates + 2 seeds) trainings a start.
    """
    return _Comparing(entries, starts, train, test, loss, seeds, generator, tell).all(equal_seconds)


class _Stopped(Exception):
    """The comparison was interrupted."""


class _Comparing:
    """A comparison under way."""

    def __init__(
        self,
        entries: Sequence[Entry],
        starts: Sequence[Start],
        train: Data,
        test: Data,
        loss: Loss | str | PerSample,
        seeds: int,
        generator: torch.Generator,
        tell: Tell | None,
    ) -> None:
        self.entries, self.starts, self.train, self.test, self.loss = entries, starts, train, test, loss
        self.tell = tell
        # Drawn before anything runs, so that no number depends on which solvers take part; the first is for choosing.
        self.seeds = {start.name: [spawn(generator).initial_seed() for _ in range(seeds + 1)] for start in starts}
        self.chosen: dict[tuple[str, str], Candidate] = {}
        self.refused: dict[str, str] = {}
        self.runs: list[Run] = []
        self.time: dict[str, float] = {}

    def all(self, equal_seconds: bool) -> Comparison:
        complete = True
        try:
            self._choose()
            self._at_equal_passes()
            if equal_seconds:
                self._at_equal_seconds()
        except _Stopped:
            complete = False
        settings = {pair: candidate.setting for pair, candidate in self.chosen.items()}
        runs = tuple(run for run in self.runs if run.solver not in self.refused)
        return Comparison(runs, settings, self.refused, self.time, complete)

    def _choose(self) -> None:
        for start, one in itertools.product(self.starts, self.entries):
            risks = []
            for candidate in one.candidates if len(one.candidates) > 1 else ():
                pilot = candidate.pilot or candidate.solver
                training = self._train(one, start, 0, pilot, f"choosing for {one.name}, {start.name}")
                if training is None:
                    break
                risks.append(_least(training))
            best = risks.index(min(risks)) if risks else 0
            self.chosen[one.name, start.name] = one.candidates[best]

    def _at_equal_passes(self) -> None:
        for seed, start, one in self._each():
            solver = self.chosen[one.name, start.name].solver
            self._run(one, start, seed, "passes", solver)

    def _at_equal_seconds(self) -> None:
        spent: dict[tuple[str, str], Run] = {}
        for start in self.starts:
            for one in self.entries:
                # The median: one slow moment of the machine must not lengthen all the other runs.
                runs = sorted(self._of(one, start), key=lambda run: run.seconds / max(1, run.passes))
                if runs:
                    spent[one.name, start.name] = runs[len(runs) // 2]
            times = [run.seconds for run in spent.values() if run.start == start.name]
            self.time[start.name] = max(times, default=0.0)
        for seed, start, one in self._each():
            middle = spent[one.name, start.name]
            fit = min(self.time[start.name] / max(middle.seconds, 1e-9), MOST)
            wanted = max(1, round(fit * middle.passes))
            if abs(wanted - middle.passes) <= CLOSE * middle.passes:
                self.runs += [replace(run, equal="seconds") for run in self._of(one, start) if run.seed == seed]
            else:
                solver = lasting(self.chosen[one.name, start.name].solver, wanted)
                self._run(one, start, seed, "seconds", solver)

    def _of(self, one: Entry, start: Start) -> list[Run]:
        return [r for r in self.runs if (r.solver, r.start, r.equal) == (one.name, start.name, "passes")]

    def _each(self) -> list[tuple[int, Start, Entry]]:
        """Seed after seed, so that an interruption leaves every solver with as many runs."""
        count = len(self.seeds[self.starts[0].name])
        every = itertools.product(range(1, count), self.starts, self.entries)
        return [(seed, start, one) for seed, start, one in every if one.name not in self.refused]

    def _run(self, one: Entry, start: Start, seed: int, equal: str, solver: Solver) -> None:
        training = self._train(one, start, seed, solver, f"equal {equal}, seed {seed}: {one.name}, {start.name}")
        if training is None:
            return
        run = Run(
            solver=one.name,
            start=start.name,
            seed=seed,
            equal=equal,
            setting=self.chosen[one.name, start.name].setting,
            history=training.history,
            outcome=training.outcome,
            seconds=training.seconds,
            score=self._score(one, training.model),
        )
        self.runs.append(run)

    def _train(self, one: Entry, start: Start, seed: int, solver: Solver, what: str) -> Training | None:
        """Return the training, or None when the solver cannot take the network."""
        if one.name in self.refused:
            return None
        stream = torch.Generator().manual_seed(self.seeds[start.name][seed])
        problem = self._problem(one, start.network(stream))

        def callback(progress: Progress) -> bool | None:
            return None if self.tell is None else self.tell(what, progress)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SurrogateWarning)  # the outcome of the run says it, too
                training = solver.train(problem, generator=spawn(stream), callback=callback)
        except InputError as reason:
            self.refused[one.name] = reason.reason
            return None
        if training.outcome.status is Status.INTERRUPTED:
            raise _Stopped
        return training

    def _problem(self, one: Entry, model: nn.Module) -> Problem:
        return Problem(model, self.train, self.test, loss=self.loss if one.loss is None else one.loss)

    def _score(self, one: Entry, model: nn.Module) -> float:
        if self.test.classes is not None:
            return int(errors(model, self.test).sum()) / len(self.test)
        return self._problem(one, model).risk(self.test)


def _least(training: Training) -> float:
    risks = training.history.get("validation", training.history["loss"])
    return math.inf if training.outcome.diverged else float(risks.min())
