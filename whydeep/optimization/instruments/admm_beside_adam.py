"""ADMM beside Adam on a deep sigmoid network, at equal seconds, from both starts; and on the subject's own network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import errors
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact, proportion
from whydeep.core.numbers import percent
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, spawn
from whydeep.core.training import Training
from whydeep.networks.mlp import initialise, mlp
from whydeep.optimization.admm import ADMM
from whydeep.optimization.backprop import Backprop
from whydeep.optimization.chain import Chain
from whydeep.optimization.proximal import output_loss

STARTS = ("default start", "corrected start")
SOLVERS = ("ADMM", "Adam")
# Two percentage points: one run each, and runs from other seeds differ by about one.
DIFFERENCE = 0.02
RATES = (1e-3, 3e-3)
WIDTH = 100
AT_SECONDS = "training error at equal seconds"
GAINS = {"sigmoid": 4.0, "tanh": 1.0}


@dataclass(frozen=True)
class Run:
    """One training of one solver from one start; `setting` says what was chosen for it."""

    solver: str
    start: str
    setting: str
    training: Training
    test: Measurement

    @property
    def label(self) -> str:
        """Solver and start."""
        return f"{self.solver}, {self.start}"

    def error_at(self, seconds: float) -> float:
        """Return the training error at that time, between the two passes around it by linear interpolation."""
        history = self.training.history
        return float(np.interp(seconds, history["seconds"].numpy(), history["error"].numpy()))


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
    """Train the panel network, and the subject's own where ADMM can, by both solvers from both starts."""
    train = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    test = subject.problem.test
    assert test is not None
    assert train.classes is not None
    assert isinstance(train.x, Tensor)
    device, dtype = train.x.device, train.x.dtype
    widths = (math.prod(train.input_shape), *[WIDTH] * budget["hidden_layers"], train.classes)

    def panel(start: str, stream: torch.Generator) -> nn.Module:
        with global_seed(stream):
            if start == STARTS[0]:
                made = mlp(widths, activation="sigmoid")
            else:
                made = mlp(widths, activation="sigmoid", init="xavier", gain=GAINS["sigmoid"])
        return made.to(device, dtype)

    # The lecture's squared loss for ADMM and the cross-entropy, the better one for it, for Adam: errors are compared.
    losses = {"ADMM": "squared", "Adam": "cross_entropy"}
    runs = list(_runs(panel, lambda solver: (losses[solver], train, test), "published", budget, generator))
    name = f"{budget['hidden_layers']} sigmoid layers"
    guess = 1 - float(torch.bincount(train.targets).max()) / len(train)
    measurements = _measure(runs, "")
    measurements += [
        exact(f"equal seconds, {start}", seconds, unit="seconds", method="the shorter of the two runs")
        for start, seconds in _equal_seconds(runs).items()
    ]
    measurements += [
        exact("error of guessing", guess, unit="fraction", method="the most frequent class"),
        exact("hidden layers of the panel", budget["hidden_layers"]),
    ]
    why_not = _why_not(subject)
    exhibits = [_curve(runs, name)]
    tables = [_table(runs, name, why_not or "")]
    if why_not is None:
        own = list(_own_runs(subject, train, test, budget, generator))
        measurements += _measure(own, "own network, ")
        exhibits.append(_curve(own, "the network examined"))
        tables.append(_table(own, "the network examined", ""))
    return Observation(tuple(measurements), (*exhibits, *tables))


def _runs(
    network: Callable[[str, torch.Generator], nn.Module],
    setting: Callable[[str], tuple[object, Data, Data]],
    constant: str,
    budget: Budget,
    generator: torch.Generator,
) -> Iterator[Run]:
    for start in STARTS:
        model, seed = network(start, spawn(generator)), spawn(generator).initial_seed()

        def problem(solver: str, model: nn.Module = model) -> Problem:
            loss, train, test = setting(solver)
            return Problem(model, train, test, loss=loss)  # type: ignore[arg-type]  # a name or the subject's own loss

        def stream(seed: int = seed) -> torch.Generator:
            return torch.Generator().manual_seed(seed)

        admm = ADMM(sweeps=budget["sweeps"], constant=constant, validation=0.1)
        chosen = f"{constant} step constant"
        yield _finished("ADMM", start, chosen, admm.train(problem("ADMM"), generator=stream()), problem)
        # A short run by each step size; the one with the least validation risk then runs in full.
        risks = {
            rate: _least(adam(rate, budget["pilot_epochs"]).train(problem("Adam"), generator=stream()))
            for rate in RATES
        }
        rate = min(risks, key=lambda one: risks[one])
        training = adam(rate, budget["epochs"]).train(problem("Adam"), generator=stream())
        yield _finished("Adam", start, f"step size {rate:g}", training, problem)


def adam(rate: float, epochs: int) -> Backprop:
    """Return the back-propagation that ADMM is compared with."""
    return Backprop(torch.optim.Adam, lr=rate, epochs=epochs, batch_size=64, validation=0.1)


def _least(training: Training) -> float:
    risks = training.history.get("validation")
    return math.inf if risks is None else float(risks.min())


def _finished(solver: str, start: str, setting: str, training: Training, problem: Callable[[str], Problem]) -> Run:
    test = problem(solver).test
    assert test is not None
    wrong = int(errors(training.model, test).sum())
    return Run(solver, start, setting, training, proportion(f"test error: {solver}, {start}", wrong, len(test)))


def _why_not(subject: Subject) -> str | None:
    """Return why the subject's own network is not trained by both solvers, too, or None where it is."""
    if subject.factory is None:
        return "Not repeated on the network examined: only an instance was given, so there is no fresh start."
    try:
        chain = Chain.of(subject.problem.model)
        output_loss(subject.problem)
    except InputError as reason:
        return f"Not repeated on the network examined: {reason.reason}."
    names = {layer.activation.name for layer in chain.layers[:-1]}
    if not names or not names <= set(GAINS):
        return "Not repeated on the network examined: its hidden layers are not all sigmoid or tanh."
    return None


def _own_runs(subject: Subject, train: Data, test: Data, budget: Budget, generator: torch.Generator) -> Iterator[Run]:
    def network(start: str, stream: torch.Generator) -> nn.Module:
        model = copy.deepcopy(subject.fresh(stream))
        if start == STARTS[1]:
            layers = Chain.of(model).layers
            for index, layer in enumerate(layers):
                gain = GAINS[layer.activation.name] if index + 1 < len(layers) else 1.0
                initialise(layer.linear, "xavier", gain, stream)
        return model

    deep = len(Chain.of(subject.problem.model).layers) > 8
    constant = "published" if deep else "exact"
    yield from _runs(network, lambda solver: (subject.problem.loss, train, test), constant, budget, generator)


def _equal_seconds(runs: list[Run]) -> dict[str, float]:
    """Return for each start the time that both solvers have had: that of the shorter run."""
    return {start: min(one.training.seconds for one in runs if one.start == start) for start in STARTS}


def _measure(runs: list[Run], prefix: str) -> list[Measurement]:
    found, seconds = [], _equal_seconds(runs)
    for one in runs:
        method = f"{one.setting}, at {seconds[one.start]:.2g} s"
        value = one.error_at(seconds[one.start])
        found.append(exact(f"{prefix}{AT_SECONDS}: {one.label}", value, unit="fraction", method=method))
    found += [replace(one.test, name=f"{prefix}{one.test.name}") for one in runs]
    return found


def _curve(runs: list[Run], name: str) -> Curve:
    lines, seconds = [], _equal_seconds(runs)
    for one in runs:
        history = one.training.history
        lines.append(Line(one.label, history["seconds"].tolist(), (100 * history["error"]).tolist()))
    ends = "; ".join(
        f"{one.label} {percent(one.error_at(seconds[one.start]))} at {seconds[one.start]:.2g} s" for one in runs
    )
    return Curve(
        title=f"Training on {name}",
        x_label="seconds of training",
        y_label="training error (%)",
        lines=tuple(lines),
        alt=f"Training error against seconds on {name}: {ends}.",
    )


def _table(runs: list[Run], name: str, note: str) -> Table:
    seconds = _equal_seconds(runs)
    rows = tuple(
        (
            run.solver,
            run.start,
            run.setting,
            len(run.training.history["error"]) - 1,
            round(run.training.seconds, 2),
            round(seconds[run.start], 2),
            round(100 * run.error_at(seconds[run.start]), 1),
            round(100 * run.test.value, 1),
            f"{100 * run.test.low:.1f} to {100 * run.test.high:.1f}",
            run.training.outcome.reason,
        )
        for run in runs
    )
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
    return Table(f"Both solvers on {name}", columns, rows, note)


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
        "the corrected start (Xavier, gain 4 for sigmoid) is what a "
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
