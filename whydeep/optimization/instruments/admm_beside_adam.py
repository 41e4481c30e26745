"""ADMM beside Adam on a deep sigmoid network, at equal seconds, from both starts; and on the subject's own network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from whydeep.core.errors import InputError
from whydeep.core.exhibit import Curve, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.core.numbers import percent
from whydeep.core.randomness import global_seed, spawn
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.backprop import Backprop
from whydeep.optimization.comparison import HELD_BACK, Candidate, Entry, Run, Start, compare, corrected
from whydeep.optimization.standing import progress

STARTS = ("default start", "corrected start")
SOLVERS = ("ADMM", "Adam")
# Two percentage points: one run each, and runs from other seeds differ by about one.
DIFFERENCE = 0.02
RATES = (1e-3, 3e-3)
WIDTH = 100
DEEP = 8  # layers: from here on the looser step constant of ADMM is the steadier
AT_SECONDS = "training error at equal seconds"


def applies(subject: Subject) -> str | None:
    """Return why the instrument cannot run: it counts misclassified samples, on a test set, too."""
    if subject.problem.train.classes is None:
        return "the targets are no classes"
    if subject.problem.test is None:
        return "there is no test set"
    if len(subject.problem.train) < 20:
        return f"{len(subject.problem.train)} training samples are too few to hold some back; 20 are needed"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train the panel network, and the subject's own where it is a chain, by both solvers from both starts."""
    train = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    test = subject.problem.test
    assert test is not None
    assert train.classes is not None
    assert isinstance(train.x, Tensor)
    device, dtype = train.x.device, train.x.dtype
    widths = (math.prod(train.input_shape), *[WIDTH] * budget["hidden_layers"], train.classes)

    def panel(stream: torch.Generator) -> nn.Module:
        with global_seed(stream):
            return mlp(widths, activation="sigmoid").to(device, dtype)

    starts = (Start(STARTS[0], panel), Start(STARTS[1], lambda stream: corrected(panel(stream), stream)))
    # The lecture's squared loss for ADMM and the cross-entropy, the better one for it, for Adam: errors are compared.
    entries = _entries(budget, "published", {"ADMM": "squared", "Adam": "cross_entropy"})
    loss = subject.problem.per_sample
    options = {"train": train, "test": test, "loss": loss, "seeds": 1, "equal_seconds": False}
    runs = compare(entries, starts, **options, generator=spawn(generator)).runs  # type: ignore[arg-type]  # of options
    name = f"{budget['hidden_layers']} sigmoid layers"
    guess = 1 - float(torch.bincount(train.targets).max()) / len(train)
    measurements = _measure(runs, len(test), "")
    measurements += [
        exact(f"equal seconds, {start}", seconds, unit="seconds", method="the shorter of the two runs")
        for start, seconds in _equal_seconds(runs).items()
    ]
    measurements += [
        exact("error of guessing", guess, unit="fraction", method="the most frequent class"),
        exact("hidden layers of the panel", budget["hidden_layers"]),
    ]
    why_not = _why_not(subject)
    own: tuple[Run, ...] = ()
    if not why_not:
        constant = "published" if len(Chain.of(subject.problem.model).layers) > DEEP else "exact"
        starts = (Start(STARTS[0], subject.fresh), Start(STARTS[1], lambda s: corrected(subject.fresh(s), s)))
        found = compare(_entries(budget, constant, {}), starts, **options, generator=spawn(generator))  # type: ignore[arg-type]  # of options
        own = found.runs if not found.refused else ()
        why_not = "".join(_unrepeated(reason) for reason in found.refused.values())
    exhibits = [_curve(runs, name)]
    tables = [_table(runs, len(test), name, why_not)]
    if own:
        measurements += _measure(own, len(test), "own network, ")
        exhibits.append(_curve(own, "the network examined"))
        tables.append(_table(own, len(test), "the network examined", ""))
    return Observation(tuple(measurements), (*exhibits, *tables))


def _entries(budget: Budget, constant: str, losses: dict[str, str]) -> tuple[Entry, Entry]:
    solver = ADMM(sweeps=budget["sweeps"], constant=constant, validation=HELD_BACK, spread=None)
    # A short run by each step size; the one with the least validation risk then runs in full.
    rates = (
        Candidate(f"step size {rate:g}", adam(rate, budget["epochs"]), adam(rate, budget["pilot_epochs"]))
        for rate in RATES
    )
    return (
        Entry("ADMM", (Candidate(f"{constant} step constant", solver),), losses.get("ADMM")),
        Entry("Adam", tuple(rates), losses.get("Adam")),
    )


def adam(rate: float, epochs: int) -> Backprop:
    """Return the back-propagation that ADMM is compared with."""
    return Backprop(torch.optim.Adam, lr=rate, epochs=epochs, batch_size=64, validation=HELD_BACK)


def _why_not(subject: Subject) -> str:
    """Return why the subject's own network is not trained by both solvers, too, or "" where it is."""
    if subject.factory is None:
        return _unrepeated("only an instance was given, so there is no fresh start")
    try:
        corrected(subject.problem.model, torch.Generator())
    except InputError as reason:
        return _unrepeated(reason.reason)
    return ""


def _unrepeated(reason: str) -> str:
    return f"Not repeated on the network examined: {reason}."


def _label(one: Run) -> str:
    return f"{one.solver}, {one.start}"


def _equal_seconds(runs: Sequence[Run]) -> dict[str, float]:
    """Return for each start the time that both solvers have had: that of the shorter run."""
    return {start: min(one.seconds for one in runs if one.start == start) for start in STARTS}


def _tested(one: Run, samples: int) -> Measurement:
    return proportion(f"test error: {_label(one)}", round(one.score * samples), samples)


def _measure(runs: Sequence[Run], samples: int, prefix: str) -> list[Measurement]:
    found, seconds = [], _equal_seconds(runs)
    for one in runs:
        method = f"{one.setting}, at {seconds[one.start]:.2g} s"
        value = one.at(seconds[one.start])
        found.append(exact(f"{prefix}{AT_SECONDS}: {_label(one)}", value, unit="fraction", method=method))
    tests = [_tested(one, samples) for one in runs]
    return found + [replace(one, name=f"{prefix}{one.name}") for one in tests]


def _curve(runs: Sequence[Run], name: str) -> Curve:
    return progress({_label(one): [one] for one in runs}, "seconds", f"Training on {name}")


def _table(runs: Sequence[Run], samples: int, name: str, note: str) -> Table:
    seconds, rows = _equal_seconds(runs), []
    for one in runs:
        test = _tested(one, samples)
        row = (
            one.solver,
            one.start,
            one.setting,
            one.passes,
            round(one.seconds, 2),
            round(seconds[one.start], 2),
            round(100 * one.at(seconds[one.start]), 1),
            round(100 * test.value, 1),
            f"{100 * test.low:.1f} to {100 * test.high:.1f}",
            one.outcome.reason,
        )
        rows.append(row)
    columns = (
        "solver",
        "start",
        "chosen",
        "passes",
        "seconds",
        "equal seconds",
        "training error then (%)",
        "test error (%)",
        "95 % interval",
        "ended",
    )
    return Table(f"Both solvers on {name}", columns, tuple(rows), note)


def _errors(observation: Observation) -> dict[tuple[str, str], float]:
    return {
        (solver, start): observation[f"{AT_SECONDS}: {solver}, {start}"].value for solver in SOLVERS for start in STARTS
    }


def answer(observation: Observation) -> Answer:
    """Compose the sentence and the verdict from the panel's measurements."""
    found, chance = _errors(observation), observation["error of guessing"].value

    def phrase(solver: str, start: str) -> str:
        value = found[solver, start]
        # Within two points of the best constant guess nothing worth mentioning has been learnt.
        return f"{percent(value)}{' (chance)' if value > chance - DIFFERENCE else ''}"

    def compared(start: str) -> str:
        return f"ADMM {phrase('ADMM', start)}, Adam {phrase('Adam', start)}"

    sentence = (
        f"Training error at equal seconds on {observation['hidden layers of the panel'].value:.0f} sigmoid layers: "
        f"{compared(STARTS[0])} from the default start; {compared(STARTS[1])} from the sigmoid-correct start."
    )
    # The verdict rests on the whole runs, which a seed repeats; what happens at equal seconds depends on the machine.
    whole = {pair: observation[f"test error: {pair[0]}, {pair[1]}"].value for pair in found}
    best = {solver: min(STARTS, key=lambda start: whole[solver, start]) for solver in SOLVERS}
    lead = whole["Adam", best["Adam"]] - whole["ADMM", best["ADMM"]]
    if abs(lead) <= DIFFERENCE:
        verdict = "ADMM and Adam level"
    else:
        verdict = "ADMM ahead of Adam" if lead > 0 else "Adam ahead of ADMM"
    return Answer(sentence, verdict, "neutral", f"test error: ADMM, {best['ADMM']}")


instrument = Instrument(
    name="admm_beside_adam",
    question="optimization",
    title="ADMM beside Adam on a deep sigmoid network",
    lecture="Alternating minimisation with multipliers has no chain of gradients that could vanish through the layers.",
    source='slides "ADMM for DNN Learning"; Zeng, Lin, Yao and Zhou, JMLR 2021 (recalled, not checked)',
    rule=(
        "Each solver counts with the better of its two starts, by the test error of the iterate that its whole run "
        "kept: level within 2 percentage points, else the lower is ahead. Equal seconds are the time of the shorter "
        "run from a start."
    ),
    caveat=(
        "One run each; numbers at equal seconds depend on the machine and its load, so a seed does not repeat them; "
        "the corrected start (Xavier, gain 4 for sigmoid, He for ReLU) is what a "
        "careful user of Adam takes, so the default start alone says little."
    ),
    rank=3,
    budgets={
        "quick": {"samples": 1000, "hidden_layers": 10, "sweeps": 60, "epochs": 90, "pilot_epochs": 10},
        "full": {"samples": 5000, "hidden_layers": 10, "sweeps": 100, "epochs": 150, "pilot_epochs": 20},
    },
    applies=applies,
    run=run,
    answer=answer,
)
