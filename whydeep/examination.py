"""The main job: train a network, or take a trained one, and examine it under the four questions."""

from __future__ import annotations

import os
import platform
import time
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whydeep import report
from whydeep.core import registry
from whydeep.core.claim import QUESTIONS
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.instrument import Independence, Instrument, Subject
from whydeep.core.loss import Loss, PerSample
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default
from whydeep.core.record import NOT_RUN, NotDone, Question, Record, Section
from whydeep.core.training import Progress, Solver, Status
from whydeep.data.accept import as_data
from whydeep.networks.source import save_weights
from whydeep.networks.summary import summary
from whydeep.optimization.named import by_name

PACKAGES = ("whydeep", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")

Watcher = Callable[[str, Progress], bool | None]
"""Told (what, how far); returning True during the training asks it to stop there."""


@dataclass(frozen=True)
class Examination:
    """What `examine` returns: the record, and the examined network."""

    record: Record
    subject: Subject
    tracebacks: Mapping[str, str]

    def answer(self, question: str) -> str:
        """Return the answer to a question in words; raises `ValueError` on a question that was not examined."""
        if question not in self.record.questions:
            raise ValueError(f"{question!r} was not examined; give one of {', '.join(self.record.questions)}")
        return self.record.questions[question].answer

    def save(self, directory: str | Path) -> Path:
        """Write report.html, report.json and the trained weights (weights.safetensors); return the page's path.

        Each file is written whole or not at all; raises `InputError` when the folder cannot be written.
        """
        folder = Path(directory)
        if self.subject.training is not None:
            save_weights(self.subject.problem.model, folder / "weights.safetensors")
        report.write(folder, self.record.to_json())
        return folder / "report.html"

    def _repr_html_(self) -> str:
        return report.page(self.record.to_json())


def examine(
    model: nn.Module | Callable[[], nn.Module],
    train: Any,
    test: Any = None,
    *,
    loss: Loss | str | PerSample = "cross_entropy",
    solver: Solver | None = None,
    factory: Callable[[], nn.Module] | None = None,
    budget: str = "quick",
    bounds: tuple[float, float] | None = None,
    heldout: bool = False,
    only: Sequence[str] = (),
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    config: Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
) -> Examination:
    """Examine a network under the four questions.

    model: a factory (called without arguments) is trained here by `solver`; a module is examined as it is, unless a
    solver is given: then a copy of it is trained first.
    factory: makes fresh networks like a module that is given with its weights; without one, instruments that retrain
    do not apply.
    train, test: `Data`, pairs (x, y) of tensors or arrays, or DataLoaders.
    solver: Adam with a cosine schedule when None. budget: "quick" or "full". bounds: range of the inputs, for attacks.
    heldout: the test data are declared to be independent of the training of a given network.
    only: questions or names of instruments; all when empty.
    config: what the page says of how it was called. watch: told of the progress.

    Each instrument has its own random numbers, derived from the generator and its name: running it alone gives the
    same numbers again. One that fails becomes a failed section; Ctrl-C ends the examination with what there is, and a
    training that `watch` stopped is written without being examined.
    Raises `InputError` when model, data, loss or an option do not fit.
    """
    began = time.perf_counter()
    if budget not in ("quick", "full"):
        raise InputError(f"unknown budget {budget!r}", "give quick or full")
    chosen = select(only)
    base = int(torch.randint(2**62, (), generator=or_default(generator)))
    train = as_data(train, name="training data")
    test = None if test is None else as_data(test, name="test data", like=train)
    if bounds is not None:
        train = replace(train, bounds=bounds)
        test = None if test is None else replace(test, bounds=bounds)
    subject = _subject(model, train, test, loss, solver, factory, heldout, base, device, watch)
    called = _call(config, subject)
    questions, tracebacks = _run(chosen, subject, budget, base, called, watch)
    record = Record(
        subject=_words(subject),
        questions=questions,
        environment=environment(device),
        config=called,
        budget={instrument.name: instrument.budgets[budget] for instrument in chosen},
        seconds=time.perf_counter() - began,
    )
    return Examination(record, subject, tracebacks)


def select(only: Sequence[str]) -> list[Instrument]:
    """Return the instruments of the named questions or names; raises `InputError` on an unknown one."""
    known = registry.instruments()
    unknown = [name for name in only if name not in QUESTIONS and name not in known]
    if unknown:
        raise InputError(
            f"unknown question or instrument {', '.join(unknown)}",
            f"give any of {', '.join(QUESTIONS)}, or of {', '.join(known)}",
        )
    return [i for i in known.values() if not only or i.question in only or i.name in only]


def stream(base: int, name: str) -> torch.Generator:
    """Return the generator of one part of an examination: the same for the same seed and name."""
    return torch.Generator().manual_seed((base + zlib.crc32(name.encode())) % 2**63)


def _subject(
    model: nn.Module | Callable[[], nn.Module],
    train: Data,
    test: Data | None,
    loss: Loss | str | PerSample,
    solver: Solver | None,
    factory: Callable[[], nn.Module] | None,
    heldout: bool,
    base: int,
    device: torch.device | str,
    watch: Watcher | None,
) -> Subject:
    given = isinstance(model, nn.Module)
    if not isinstance(model, nn.Module):
        factory = model
    with global_seed(stream(base, "initialisation")):
        start = model if isinstance(model, nn.Module) else model()
    if not isinstance(start, nn.Module):
        raise InputError(f"the factory returned {type(start).__name__}", "let it return a torch.nn.Module")
    problem = Problem(start, train, test, loss).to(device)
    default = by_name("adam", samples=len(train))
    if given and solver is None:
        independence: Independence = "declared" if heldout else "on trust"
        return Subject(problem, default, factory=factory, independence=independence)
    solver = solver or default
    training = solver.train(
        problem,
        generator=stream(base, "training"),
        callback=None if watch is None else lambda progress: watch("training", progress),
    )
    if training.outcome.diverged:
        raise InputError(f"the training diverged: {training.outcome.reason}", "give a smaller step size or other data")
    return Subject(
        problem.with_model(training.model),
        solver,
        factory=factory,
        start=problem.model,
        training=training,
        independence="by construction",
    )


def _run(
    chosen: Sequence[Instrument],
    subject: Subject,
    budget: str,
    base: int,
    called: Mapping[str, Any],
    watch: Watcher | None,
) -> tuple[dict[str, Question], dict[str, str]]:
    sections: dict[str, list[Section]] = {i.question: [] for i in chosen}
    failed: dict[str, list[NotDone]] = {i.question: [] for i in chosen}
    inapplicable: dict[str, list[NotDone]] = {i.question: [] for i in chosen}
    tracebacks: dict[str, str] = {}
    interrupted = subject.training is not None and subject.training.outcome.status is Status.INTERRUPTED
    for index, instrument in enumerate(chosen):
        if interrupted:
            failed[instrument.question].append(NotDone(instrument.name, instrument.title, NOT_RUN))
            continue
        if watch is not None:
            watch(instrument.name, Progress(index, len(chosen)))
        began = time.perf_counter()
        try:
            reason = instrument.applies(subject)
            if reason is not None:
                inapplicable[instrument.question].append(NotDone(instrument.name, instrument.title, reason))
                continue
            seen = instrument.run(subject, instrument.budgets[budget], stream(base, instrument.name))
            section = Section.of(
                instrument,
                seen,
                command=f"{called['base']} --only {instrument.name}" if called["base"] else "",
                python=_python(called, instrument),
                seconds=time.perf_counter() - began,
            )
            sections[instrument.question].append(section)
        except KeyboardInterrupt:
            interrupted = True
            failed[instrument.question].append(NotDone(instrument.name, instrument.title, "interrupted"))
        except Exception as fault:  # whatever an instrument does, the rest of the page stands
            text = str(fault).strip().splitlines()
            reason = f"{type(fault).__name__}: {text[0] if text else 'no message'}"
            failed[instrument.question].append(NotDone(instrument.name, instrument.title, reason))
            tracebacks[instrument.name] = traceback.format_exc()
    if watch is not None and not interrupted:
        watch("done", Progress(len(chosen), len(chosen)))
    questions = {
        name: Question(tuple(sections[name]), tuple(failed[name]), tuple(inapplicable[name])) for name in sections
    }
    return questions, tracebacks


def _call(config: Mapping[str, Any] | None, subject: Subject) -> dict[str, Any]:
    """What the page says of the call; a call from Python has no command."""
    setup = "import whydeep as wd\n# model, train and test as in your call"
    return {"command": "", "base": "", "python": setup, "arguments": "", "solver": repr(subject.solver)} | dict(
        config or {}
    )


def _python(called: Mapping[str, Any], instrument: Instrument) -> str:
    """The lines that repeat one instrument."""
    call = f"examination = wd.examine(model, train, test, only=[{instrument.name!r}]{called['arguments']})"
    return f"{called['python']}\n{call}\nprint(examination.answer({instrument.question!r}))"


def _words(subject: Subject) -> dict[str, Any]:
    problem = subject.problem
    seen = summary(problem.model, problem.train)
    kind = "images" if len(problem.train.input_shape) == 3 else "samples"
    counts = f"{len(problem.train):,}" + (f" + {len(problem.test):,}" if problem.test is not None else "")
    ended = subject.training.outcome if subject.training is not None else None
    own = "" if isinstance(problem.model, nn.Sequential) else f"{type(problem.model).__name__}, "
    cut = ", training interrupted" if ended is not None and ended.status is Status.INTERRUPTED else ""
    return {
        "network": f"{own}{seen.words}{cut}",
        "parameters": seen.parameters,
        "depth": seen.depth,
        "data": f"{problem.train.name}, {counts} {kind}",
        "train_samples": len(problem.train),
        "test_samples": 0 if problem.test is None else len(problem.test),
        "training": "weights as given" if ended is None else f"{ended.status.value}: {ended.reason}",
        "training_seconds": None if subject.training is None else subject.training.seconds,
    }


def environment(device: torch.device | str) -> dict[str, Any]:
    """Return versions, machine, threads and the date (UTC)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
