"""The race: solvers side by side at equal passes and at equal seconds, from both starts, over several seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whydeep import report
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.exhibit import Exhibit
from whydeep.core.instrument import Answer, Observation
from whydeep.core.loss import Loss, PerSample
from whydeep.core.measurement import exact
from whydeep.core.numbers import duration, percent
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default
from whydeep.core.record import NotDone, Question, Record, Section
from whydeep.data.accept import as_data
from whydeep.examination import environment
from whydeep.networks.summary import summary
from whydeep.optimization import standing as standings
from whydeep.optimization.comparison import GRIDS, MOST, WORDS, Comparison, Start, Tell, compare, corrected, entry

STARTS = ("default", "corrected")
SOLVERS = ("admm", "adam", "sgd")
BUDGETS = {"quick": {"seeds": 5, "most_passes": 30}, "full": {"seeds": 10, "most_passes": 100}}
TITLE = "Solvers side by side"


@dataclass(frozen=True)
class Race:
    """What `race` returns: the record of its page, and every run."""

    record: Record
    comparison: Comparison

    @property
    def answer(self) -> str:
        """Who is ahead, in words."""
        return self.record.questions["optimization"].answer

    @property
    def verdict(self) -> str:
        """Who is ahead at equal seconds, in a few words."""
        return self.record.questions["optimization"].verdict

    def save(self, directory: str | Path) -> Path:
        """Write report.html and report.json; return the page's path. Raises `InputError` where that cannot be."""
        return report.write(directory, self.record)

    def _repr_html_(self) -> str:
        return report.page(self.record.to_json())


def race(
    factory: Callable[[], nn.Module],
    train: Any,
    test: Any,
    *,
    solvers: Sequence[str] = SOLVERS,
    loss: Loss | str | PerSample | None = None,
    starts: Sequence[str] = STARTS,
    seeds: int | None = None,
    passes: int | None = None,
    budget: str = "quick",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    config: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> Race:
    """Race solvers on networks that `factory` makes.

    train, test: `Data`, pairs (x, y) of tensors or arrays, or DataLoaders.
    solvers: "NAME?key=value&..." as for `by_name`; what a specification leaves open is chosen from `GRIDS` on held-back
    training data. loss: cross-entropy for classes and squared for regression when None.
    starts: "default", the network as the factory makes it, and "corrected", by `corrected`; one that the network does
    not admit is left out with its reason, and so is a solver that cannot take the network.
    seeds, passes: of the budget when None ("quick": 5 seeds, 30 passes; "full": 10 and 100; fewer passes for more than
    6,400 samples, about 3,000 minibatches of 64 in all, but 5 at least).
    config: what the page says of how it was called. tell: told of the progress; returning True ends the race with what
    there is.

    Raises `InputError` when an option does not fit, when there is no factory, or when no solver takes the network.
    """
    began = time.perf_counter()
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InputError(
            "a race starts from fresh networks, and one instance was given", "give a function that makes it"
        )
    _check(solvers, starts, budget, seeds, passes)
    train = as_data(train, name="training data").to(device)
    test = as_data(test, name="test data", like=train).to(device)
    loss = loss or ("squared" if train.classes is None else "cross_entropy")
    seeds = seeds or BUDGETS[budget]["seeds"]
    passes = passes or min(BUDGETS[budget]["most_passes"], max(5, round(3000 / math.ceil(len(train) / 64))))
    generator = or_default(generator)
    entries = [entry(spec, samples=len(train), passes=passes) for spec in solvers]

    def fresh(stream: torch.Generator) -> nn.Module:
        with global_seed(stream):
            made = factory()
        if not isinstance(made, nn.Module):
            raise InputError(f"the factory returned {type(made).__name__}", "let it return a torch.nn.Module")
        return made.to(device)

    problem = Problem(fresh(torch.Generator().manual_seed(0)), train, test, loss=loss)
    taken, refused = _starts(starts, fresh)
    comparison = compare(
        entries, taken, train=train, test=test, loss=loss, seeds=seeds, generator=generator, tell=tell
    )  # fmt: skip
    if comparison.complete and not comparison.runs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in comparison.refused.items())
        raise InputError(f"no solver can take this network ({reasons})", "name others, or change the network")
    settled = {"seeds": seeds, "passes": passes}
    called = _call(config, solvers, loss, starts, settled)
    question = _question(comparison, refused, test, settled, called, time.perf_counter() - began)
    record = Record(
        subject=_words(problem),
        questions={"optimization": question},
        environment=environment(device),
        config=called,
        budget={"race": settled},
        seconds=time.perf_counter() - began,
    )
    return Race(record, comparison)


def _check(solvers: Sequence[str], starts: Sequence[str], budget: str, seeds: int | None, passes: int | None) -> None:
    if budget not in BUDGETS:
        raise InputError(f"unknown budget {budget!r}", f"give {' or '.join(BUDGETS)}")
    for what, names in (("solver", solvers), ("start", starts)):
        if not names:
            raise InputError(f"no {what} is named", f"name one {what} at least")
        twice = [name for k, name in enumerate(names) if name in names[:k]]
        if twice:
            raise InputError(f"{what} {twice[0]!r} is named twice", "name each once")
    unknown = [name for name in starts if name not in STARTS]
    if unknown:
        raise InputError(f"unknown start {unknown[0]!r}", f"give {' or '.join(STARTS)}")
    for name, number in (("seeds", seeds), ("passes", passes)):
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}", "give 1 at least")


def _starts(names: Sequence[str], fresh: Callable[[torch.Generator], nn.Module]) -> tuple[list[Start], dict[str, str]]:
    """Return the starts that the network admits, and why not the others."""
    known: dict[str, Callable[[torch.Generator], nn.Module]] = {
        "default": fresh,
        "corrected": lambda stream: corrected(fresh(stream), stream),
    }
    taken, refused = [], {}
    for name in names:
        try:
            known[name](torch.Generator().manual_seed(0))
        except InputError as reason:
            if name == "default" or len(names) == 1:
                raise
            refused[name] = reason.reason
            continue
        taken.append(Start(f"{name} start", known[name]))
    return taken, refused


def _question(
    comparison: Comparison,
    refused: Mapping[str, str],
    test: Data,
    settled: Mapping[str, int],
    called: Mapping[str, Any],
    seconds: float,
) -> Question:
    missing = [NotDone(name, name, reason) for name, reason in comparison.refused.items()]
    missing += [NotDone(name, f"the {name} start", reason) for name, reason in refused.items()]
    failed: tuple[NotDone, ...] = ()
    if not comparison.complete:
        failed = (NotDone("race", TITLE, f"interrupted after {len(comparison.runs)} runs"),)
    if not comparison.runs:
        return Question((), failed, tuple(missing))
    classes = test.classes is not None
    observation, answer = _seen(comparison, len(test), classes, settled)
    raced = {run.solver.partition("?")[0] for run in comparison.runs}
    grids = "; ".join(
        f"{name}: " + ", ".join(f"{WORDS.get(key, key)} {', '.join(map(str, tried))}" for key, tried in grid.items())
        for name, grid in GRIDS.items()
        if name in raced
    )
    section = Section(
        instrument="race",
        title=TITLE,
        lecture="Alternating minimisation with multipliers has no chain of gradients that could vanish through the "
        "layers; back-propagation has, unless the start is right.",
        source='slides "ADMM for DNN Learning"',
        rule="each solver counts with the start from which its risk on held-back training data is least; the solver "
        "with the least mean test score is ahead of a rival when the interval of their paired differences over seeds "
        "(Student, jointly 95 % over all pairs, the spread at least one test sample) lies above 0, else they are "
        "level; the verdict is that at equal seconds",
        caveat="what fits into equal seconds depends on the machine and its load, so a seed does not repeat it; "
        "intervals cover the seeds, not the choice of data and network; "
        f"the settings tried are few ({grids or 'none'}), "
        f"and a solver makes at most {MOST} times the passes at equal seconds",
        answer=answer,
        observation=observation,
        command=str(called["command"]),
        python=str(called["python"]),
        seconds=seconds,
    )
    return Question((section,), failed, tuple(missing))


def _seen(
    comparison: Comparison, samples: int, classes: bool, settled: Mapping[str, int]
) -> tuple[Observation, Answer]:
    """Return what was measured, and the answer by its rule."""
    equals = [e for e in ("seconds", "passes") if any(run.equal == e for run in comparison.runs)]
    seen = {equal: standings.standing(comparison, equal, samples=samples, classes=classes) for equal in equals}
    amounts = {"passes": str(settled["passes"]), "seconds": " and ".join(map(duration, comparison.time.values()))}
    measurements = [exact(f"equal seconds, {s}", t, unit="seconds") for s, t in comparison.time.items() if t]
    for one in seen.values():
        measurements += [*one.leads.values(), *one.scores.values()]
    first = seen[equals[0]]
    headline = next(iter(first.leads.values()), first.scores[first.order[0]])
    exhibits: list[Exhibit] = [standings.scores(comparison, classes=classes)]
    solvers = list(dict.fromkeys(run.solver for run in comparison.runs))
    for start in dict.fromkeys(run.start for run in comparison.runs):
        for equal in sorted(equals):
            groups = {solver: comparison.of(solver, start, equal) for solver in solvers}
            if any(groups.values()):
                title = f"From the {start}, over {equal}"
                exhibits.append(standings.progress(groups, equal, title))
    exhibits.append(standings.table(comparison, classes=classes, note=_kept(comparison)))
    said = " ".join(standings.sentence(seen[e], e, amounts[e], classes=classes) for e in equals)
    return Observation(tuple(measurements), tuple(exhibits)), Answer(said, first.verdict, "neutral", headline.name)


def _kept(comparison: Comparison) -> str:
    """Return how well the runs at equal seconds kept to their time: a changing load shows here."""
    shares = [
        run.seconds / comparison.time[run.start]
        for run in comparison.runs
        if run.equal == "seconds" and comparison.time[run.start] > 0
    ]
    if not shares:
        return ""
    low, high = percent(min(shares)), f"{100 * max(shares):.0f} %"
    return f"The runs at equal seconds took {low} to {high} of the time that was meant; a steady machine keeps closer."


def _call(
    config: Mapping[str, Any] | None,
    solvers: Sequence[str],
    loss: Loss | str | PerSample,
    starts: Sequence[str],
    settled: Mapping[str, int],
) -> dict[str, Any]:
    """What the page says of the call; a call from Python has no command."""
    setup = "import whydeep as wd\n# model (makes a fresh network), train and test as in your call"
    own = f", loss={loss!r}" if isinstance(loss, str) else ""
    given: dict[str, Any] = {"command": "", "python": setup, "arguments": own} | dict(config or {})
    call = f"race = wd.race(model, train, test, solvers={list(solvers)}"
    call += f", starts={list(starts)}" if tuple(starts) != STARTS else ""
    call += f", seeds={settled['seeds']}, passes={settled['passes']}{given.pop('arguments')})"
    given["python"] = f"{given['python']}\n{call}\nprint(race.answer)"
    return given | {"solvers": list(solvers), "starts": list(starts)} | dict(settled)


def _words(problem: Problem) -> dict[str, Any]:
    seen = summary(problem.model, problem.train)
    assert problem.test is not None
    kind = "images" if len(problem.train.input_shape) == 3 else "samples"
    own = "" if isinstance(problem.model, nn.Sequential) else f"{type(problem.model).__name__}, "
    return {
        "network": f"Race of solvers: {own}{seen.words}",
        "parameters": seen.parameters,
        "depth": seen.depth,
        "data": f"{problem.train.name}, {len(problem.train):,} + {len(problem.test):,} {kind}",
        "train_samples": len(problem.train),
        "test_samples": len(problem.test),
        "loss": problem.per_sample.name,
    }
