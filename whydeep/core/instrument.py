"""An instrument examines a trained network under one of the four questions and answers in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .claim import QUESTIONS, Finding
from .exhibit import Exhibit
from .measurement import Measurement
from .problem import Problem
from .randomness import global_seed
from .training import Solver, Training

Budget = Mapping[str, int]
"""How much work an instrument may do: samples, passes, seeds, ... by name; the page prints it."""

Independence = Literal["by construction", "declared", "on trust"]
"""Why the test data are independent of the training: trained here on the training part only, --heldout, or neither."""

Tone = Literal["good", "caution", "bad", "neutral"]


@dataclass(frozen=True)
class Subject:
    """What is examined.

    problem: the network at its trained parameters, with its data.
    solver: how retraining is done. factory: makes a fresh network, so that retraining is possible at all.
    start: the network before its training, and training: how it went, both None for weights that were given.
    """

    problem: Problem
    solver: Solver
    factory: Callable[[], nn.Module] | None = None
    start: nn.Module | None = None
    training: Training | None = None
    independence: Independence = "on trust"

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """Return a newly initialised network, drawn from `generator`; raises `ValueError` without a factory."""
        if self.factory is None:
            raise ValueError("a fresh network needs a factory, and only one instance was given")
        with global_seed(generator):
            return self.factory().to(next(self.problem.model.parameters()).device)


@dataclass(frozen=True)
class Observation:
    """What an instrument saw."""

    measurements: tuple[Measurement, ...]
    exhibits: tuple[Exhibit, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __getitem__(self, name: str) -> Measurement:
        """Return the measurement of that name; raises `KeyError` otherwise."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(f"no measurement {name!r}; there are {', '.join(m.name for m in self.measurements)}")


@dataclass(frozen=True)
class Answer:
    """One sentence, a verdict in plain words by the rule that the instrument states, and the number it rests on."""

    sentence: str
    verdict: str
    tone: Tone
    headline: str


@dataclass(frozen=True)
class Instrument:
    """Examines a subject; discovered by its module-level name `instrument` in a question's `instruments/`.

    name: the name of its file. title: what it measures, in words.
    lecture: what the lecture says, one sentence; source: where that stands.
    rule: how the verdict's words follow from the numbers. caveat: what the numbers do not say, one sentence.
    rank: the lowest rank that succeeded gives its question the headline.
    budgets: "quick" and "full". applies: a reason why not, or None.
    """

    name: str
    question: str
    title: str
    lecture: str
    source: str
    rule: str
    caveat: str
    rank: int
    budgets: Mapping[str, Budget]
    applies: Callable[[Subject], str | None]
    run: Callable[[Subject, Budget, torch.Generator], Observation]
    answer: Callable[[Observation], Answer]

    def __post_init__(self) -> None:
        if self.question not in QUESTIONS:
            raise ValueError(f"instrument {self.name}: question {self.question!r}; give one of {', '.join(QUESTIONS)}")
        if set(self.budgets) != {"quick", "full"}:
            raise ValueError(f"instrument {self.name}: budgets {sorted(self.budgets)}; give quick and full")
