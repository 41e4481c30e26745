"""Do updates vanish towards the input? How far each layer moves by ADMM and by back-propagation; saturated units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.exhibit import Cell, Curve, Exhibit, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact
from whydeep.core.numbers import percent, plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, spawn
from whydeep.core.training import Solver
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.proximal import target_rows
from whydeep.optimization.backprop import Backprop
from whydeep.optimization.saturation import Saturation, saturation, unjudged, update_sizes

VANISHED = 1e-3
"""Updates have vanished where the first layer moves by less than this fraction of its own weights."""

STARTS = ("default start", "corrected start")
SOLVERS = ("ADMM", "SGD", "Adam")
WIDTH = 50
SGD_RATE, ADAM_RATE = 0.1, 1e-3


@dataclass(frozen=True)
class Run:
    """The first passes of one solver from one start.

    updates: of every layer, relative to its own weights, first to last.
    left: risk afterwards over that of the best constant answer: 1 where nothing has been learned from the inputs.
    saturated: the share of flat values of every activation afterwards.
    """

    solver: str
    start: str
    updates: tuple[float, ...]
    left: float
    saturated: tuple[float, ...]

    @property
    def first_over_last(self) -> float:
        """Update of the first layer over that of the last; infinite where the last has not moved at all."""
        first, last = self.updates[0], self.updates[-1]
        return first / last if last > 0 else math.inf


def applies(subject: Subject) -> str | None:
    """Return why no panel network can be trained on these data, or None."""
    train = subject.problem.train
    if len(train) < 20:
        return f"{len(train)} training samples are too few; 20 are needed"
    if train.classes is None and train.targets.ndim != 2:
        return "the targets are neither classes nor rows of numbers"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Take the first passes on a deep sigmoid network by each solver from both starts; look at the subject's own."""
    train = subject.problem.train.subsample(budget["samples"], spawn(generator)).in_memory()
    runs = list(_runs(train, budget, generator))
    measurements = [
        exact("hidden layers of the panel", budget["hidden_layers"]),
        exact("passes", budget["passes"]),
    ]
    for one in runs:
        name = f"{one.solver}, {one.start}"
        method = f"relative Frobenius norm, {budget['passes']} passes over {len(train)} samples"
        measurements += [
            exact(f"first over last: {name}", one.first_over_last, method=method),
            exact(f"update of the first layer: {name}", one.updates[0], method=method),
            exact(f"unexplained: {name}", one.left, unit="fraction", method="risk over that of the best constant"),
        ]
    exhibits: list[Exhibit] = [_curve(runs, start, budget["passes"]) for start in STARTS]
    exhibits.append(_table(runs, budget))
    own, shown = _own(subject, train)
    return Observation((*measurements, *own), (*exhibits, *shown))


def _runs(train: Data, budget: Budget, generator: torch.Generator) -> Iterator[Run]:
    outputs = train.classes if train.classes is not None else train.targets.shape[1]
    widths = (math.prod(train.input_shape), *[WIDTH] * budget["hidden_layers"], outputs)
    rows = target_rows(train.targets, outputs)
    constant = float((rows - rows.mean(0)).square().sum()) / 2 / len(rows)
    for start in STARTS:
        with global_seed(spawn(generator)):
            if start == STARTS[0]:
                model = mlp(widths, activation="sigmoid")
            else:  # a sigmoid has slope 1/4 at zero: gain 4 keeps the size of signals and gradients
                model = mlp(widths, activation="sigmoid", init="xavier", gain=4.0)
        assert isinstance(train.x, Tensor)
        problem = Problem(model.to(train.x.device, train.x.dtype), train, loss="squared")
        seed = spawn(generator).initial_seed()
        for name in SOLVERS:
            training = _solver(name, budget["passes"]).train(problem, generator=torch.Generator().manual_seed(seed))
            yield Run(
                name,
                start,
                tuple(update_sizes(model, training.model).values()),
                float(training.history["loss"][-1]) / constant if constant > 0 else math.inf,
                tuple(layer.share for layer in saturation(training.model, train)),
            )


def _solver(name: str, passes: int) -> Solver:
    if name == "ADMM":
        return ADMM(sweeps=passes, spread=None)  # both from the very same weights
    if name == "SGD":
        return Backprop(torch.optim.SGD, lr=SGD_RATE, epochs=passes, batch_size=64)
    return Backprop(torch.optim.Adam, lr=ADAM_RATE, epochs=passes, batch_size=64)


def _own(subject: Subject, train: Data) -> tuple[list[Measurement], list[Exhibit]]:
    """Return what the subject's own network shows: its saturation, and its updates where its start is known."""
    model = subject.problem.model
    flat = saturation(model, train)
    updates = {} if subject.start is None else _moved(subject.start, model)
    measurements: list[Measurement] = []
    exhibits: list[Exhibit] = []
    if flat:
        most = max(flat, key=lambda one: one.share)
        measurements.append(
            exact("own network, most saturated layer", most.share, unit="fraction", method=f"module {most.name}")
        )
    exhibits.append(_saturation_table(flat, {name: type(m).__name__ for name, m in unjudged(model).items()}))
    if updates:
        sizes = list(updates.values())
        largest = max(sizes)
        ratio = min(sizes) / largest if 0 < largest < math.inf else 0.0
        measurements.append(exact("own network, least update over largest", ratio, method="over its whole training"))
        rows = tuple((name, float(f"{size:.3g}")) for name, size in updates.items())
        exhibits.append(Table("Updates of the network examined", ("layer", "relative update in training"), rows))
    return measurements, exhibits


def _moved(start: nn.Module, end: nn.Module) -> dict[str, float]:
    try:
        return update_sizes(start, end)
    except ValueError:  # weights that were given need not belong to the start
        return {}


def _curve(runs: list[Run], start: str, passes: int) -> Curve:
    lines, spoken = [], []
    for one in (one for one in runs if one.start == start):
        # A logarithm has no place for zero.
        shown = [size if size > 0 else math.nan for size in one.updates]
        role = "measured" if one.solver == "ADMM" else "reference"
        lines.append(Line(one.solver, list(range(1, len(shown) + 1)), shown, role=role, marks=True))  # type: ignore[arg-type]
        spoken.append(f"{one.solver} {plain(one.updates[0], 2)} to {plain(one.updates[-1], 2)}")
    return Curve(
        f"How far each layer moves, {start}",
        "layer, from input to output",
        "relative update of the weights (log scale)",
        tuple(lines),
        alt=f"Relative update of the weights over {passes} passes by layer, first to last, from the {start}: "
        f"{'; '.join(spoken)}.",
        y_log=True,
    )


def _table(runs: list[Run], budget: Budget) -> Table:
    columns = (
        "solver",
        "start",
        "update of the first layer",
        "of the last",
        "first over last",
        "unexplained (%)",
        "most saturated layer (%)",
    )
    rows = tuple(
        (
            one.solver,
            one.start,
            float(f"{one.updates[0]:.2g}"),
            float(f"{one.updates[-1]:.2g}"),
            float(f"{one.first_over_last:.2g}"),
            round(100 * one.left, 1),
            round(100 * max(one.saturated), 1),
        )
        for one in runs
    )
    note = (
        f"{budget['hidden_layers']} sigmoid layers of {WIDTH}, squared loss, {budget['passes']} passes; ADMM as set by "
        f"default, SGD with step {SGD_RATE:g}, Adam with step {ADAM_RATE:g}, batches of 64. Unexplained: risk on the "
        "training data over that of the best constant answer; 100 % has learned nothing from the inputs."
    )
    return Table("The first passes on the panel", columns, rows, note)


def _saturation_table(flat: tuple[Saturation, ...], others: dict[str, str]) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple((one.name, one.kind, round(100 * one.share, 1)) for one in flat)
    rows += tuple((name, kind, "not judged") for name, kind in others.items())
    note = (
        "Share of values with a slope below 1 % of the activation's largest; for ReLU, of values that are off. Not "
        "judged are activations whose outputs depend on several inputs each; not seen, those that the network applies "
        "as functions or by modules of its own kind."
    )
    if not rows:
        rows = (("none seen", "", "not judged"),)
    return Table("Saturation in the network examined", ("module", "activation", "saturated (%)"), rows, note)


def answer(seen: Observation) -> Answer:
    """Judge how far the first layer moves from the default start, by ADMM and by plain back-propagation."""

    def moved(solver: str, start: str) -> float:
        return seen[f"update of the first layer: {solver}, {start}"].value

    def everyone(start: str) -> str:
        return ", ".join(f"{plain(moved(solver, start), 2)} by {solver}" for solver in ("SGD", "Adam", "ADMM"))

    def unexplained(solver: str) -> str:
        return f"{percent(seen[f'unexplained: {solver}, {default}'].value)} by {solver}"

    default, corrected = STARTS
    sentence = (
        f"The first of {seen['hidden layers of the panel'].value + 1:.0f} layers moves, as a share of its weights, "
        f"{everyone(default)} from the default start; {everyone(corrected)} from the corrected one. From the default "
        f"start {', '.join(map(unexplained, SOLVERS))} stays unexplained."
    )
    gone = {solver: moved(solver, default) < VANISHED for solver in ("ADMM", "SGD")}
    words = {
        (False, True): "vanish by SGD, not by ADMM",
        (True, False): "vanish by ADMM, not by SGD",
        (True, True): "vanish by both",
        (False, False): "vanish by neither",
    }
    return Answer(sentence, words[gone["ADMM"], gone["SGD"]], "neutral", f"update of the first layer: ADMM, {default}")


instrument = Instrument(
    name="vanishing_updates",
    question="optimization",
    title="How far each layer moves: ADMM against back-propagation",
    lecture="Alternating minimisation has no chain rule through the layers, so no gradients that vanish on the way.",
    source='slides "Alternative: (Augmented) Lagrangian Multiplier with Block Coordinate Descent" and "ADMM for DNN '
    'Learning"; Zeng, Lin, Yao and Zhou, JMLR 2021 (recalled, not checked)',
    rule=(
        "Over the first passes from the default start: updates vanish by a solver where the first layer moves by less "
        "than 0.001 of its own weights (Frobenius norms)."
    ),
    caveat=(
        "How far SGD moves depends on its step size, and that a layer moves does not mean that it learns; the "
        "corrected start (Xavier, gain 4) is what a careful user of back-propagation takes."
    ),
    rank=5,
    budgets={
        "quick": {"samples": 500, "hidden_layers": 10, "passes": 40},
        "full": {"samples": 2000, "hidden_layers": 10, "passes": 40},
    },
    applies=applies,
    run=run,
    answer=answer,
)
