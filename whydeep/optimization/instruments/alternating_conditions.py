"""Does ADMM converge as the lecture's theorem says, and what does it cost? Conditions, KKT residuals, and the price."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from whydeep.core.claim import Finding, judged
from whydeep.core.data import Data
from whydeep.core.exhibit import Curve, Exhibit, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact
from whydeep.core.numbers import percent, plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.verdict import Assumption, Prediction
from whydeep.networks.mlp import initialise
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.lagrangian.compliance import Rung, ladder, smallest_convergent
from whydeep.optimization.lagrangian.conditions import Conditions, theorem_conditions
from whydeep.optimization.lagrangian.kkt import kkt_residuals

from .vanishing_updates import applies

USEFUL_BETA, USEFUL_RIDGE = 1.0, 1e-2
"""Parameters that train: beta of the authors' code; their ridge of 1e-6 is too small for classes."""

TOLERANCE = 1e-6
WIDTH = 20
LITTLE = 0.01
"""A run that explains less than this share of the targets has learned nothing of use."""

SOURCE = (
    'slide "Convergence of ADMM (3-layers for example)"; Zeng, Lin, Yao and Zhou, JMLR 2021 (recalled, not checked)'
)


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Hold useful parameters against the conditions, and run ADMM from compliant parameters down to useful ones."""
    train = subject.problem.train.subsample(budget["samples"], spawn(generator)).in_memory()
    problem = Problem(_panel(train, spawn(generator)), train, loss="squared")
    useful = theorem_conditions(problem, USEFUL_BETA, USEFUL_RIDGE)
    shares = [index / (budget["rungs"] - 1) for index in range(budget["rungs"])]
    rungs = ladder(problem, shares=shares, ridge=USEFUL_RIDGE, sweeps=budget["sweeps"], tolerance=TOLERANCE)
    last, first = rungs[0], rungs[-1]
    compliant = theorem_conditions(problem, first.beta, first.ridge)
    method = f"{budget['sweeps']} sweeps"
    measurements = [
        exact("conditions that useful parameters meet", sum(one.holds for one in useful.conditions)),
        exact("conditions", len(useful.conditions)),
        exact("useful ridge over what is asked", useful.ridge[0] / first.ridge),
        *_of_run("compliant", first, method),
        *_of_run("useful", last, method),
    ]
    smallest = smallest_convergent(rungs)
    if smallest is not None:
        measurements.append(exact("smallest convergent, ridge", smallest.ridge))
        measurements += _of_run("smallest convergent", smallest, method)
    own, shown = _own(subject, train)
    exhibits: tuple[Exhibit, ...] = (
        _curve({"compliant": first, "useful": last}),
        _price(rungs, budget["sweeps"]),
        _conditions_table(useful),
        _by_layer(problem, last, budget["sweeps"]),
    )
    return Observation((*measurements, *own), (*exhibits, *shown), (_finding(compliant, first),))


def _panel(train: Data, generator: torch.Generator) -> nn.Sequential:
    """The network of the slide: two sigmoid layers, a linear output and no biases."""
    outputs = train.classes if train.classes is not None else train.targets.shape[1]
    widths = (math.prod(train.input_shape), WIDTH, WIDTH, outputs)
    modules: list[nn.Module] = [nn.Flatten()]
    for index in range(3):
        linear = nn.utils.skip_init(nn.Linear, widths[index], widths[index + 1], bias=False)  # type: ignore[no-untyped-call]
        # A sigmoid has slope 1/4 at zero: gain 4 keeps the size of signals.
        initialise(linear, "xavier", 1.0 if index == 2 else 4.0, generator)
        modules += [linear, nn.Sigmoid()]
    assert isinstance(train.x, Tensor)
    return nn.Sequential(*modules[:-1]).to(train.x.device, train.x.dtype)


def _of_run(name: str, rung: Rung, method: str) -> list[Measurement]:
    return [
        exact(f"{name}, KKT residual", rung.kkt, method=method),
        exact(f"{name}, explained", 1 - rung.fit, unit="fraction", method="1 - loss over that of answering zero"),
    ]


def _finding(compliant: Conditions, rung: Rung) -> Finding:
    """The guarantee as far as learning goes: it ends no worse than the network that answers zero."""
    cap = 1.0 if compliant.cap is None else compliant.cap
    return judged(
        "compliant_admm_ends_no_worse_than_answering_zero",
        question="optimization",
        statement="With parameters as the convergence theorem asks, ADMM reaches a KKT point, which is no worse than "
        "answering zero to everything.",
        source=SOURCE,
        # Nothing better than zero is promised, and at most 1 - (1 - cap)^2 is possible: ||f - Y|| >= (1 - cap) ||Y||.
        # A run that stops short of the KKT point by the tolerance may fall short by as much.
        predicted=Prediction("at least", -TOLERANCE, trivial=0.0, constants={"at most": 1 - (1 - cap) ** 2}),
        measured=exact("compliant, explained", 1 - rung.fit, unit="fraction"),
        assumptions={"parameters comply": Assumption.CHECKED if compliant.hold else Assumption.BROKEN},
    )


def _own(subject: Subject, train: Data) -> tuple[list[Measurement], list[Exhibit]]:
    """Return how far the subject's own weights are from a KKT point without a ridge, where the network is a chain."""
    own = Problem(subject.problem.model, train, None, subject.problem.loss)
    try:
        end = kkt_residuals(own)
        outside = theorem_conditions(own, USEFUL_BETA, USEFUL_RIDGE).outside
        start = None if subject.start is None else kkt_residuals(own.with_model(subject.start))
    except ValueError:  # no chain of linear layers, or a loss without a proximal map
        return [], []
    if start is not None and len(start.weights) != len(end.weights):
        start = None
    rows = tuple(
        (
            index + 1,
            float(f"{float(residual.norm()) / len(train):.2g}"),
            None if start is None else float(f"{float(start.weights[index].norm()) / len(train):.2g}"),
        )
        for index, residual in enumerate(end.weights)
    )
    note = (
        "States from the forward pass and multipliers from back-propagation, no ridge: what the conditions leave is "
        f"the gradient of the risk.{' Not covered by the theorem: ' if outside else ''}{'; '.join(outside)}"
    )
    table = Table("KKT residual of the network examined", ("layer", "now", "at its start"), rows, note)
    return [exact("own network, KKT residual a sample", end.norm / len(train), method="no ridge")], [table]


def _curve(rungs: dict[str, Rung]) -> Curve:
    lines = [
        # A logarithm has no place for zero.
        Line(name, list(range(len(rung.path))), [value if value > 0 else math.nan for value in rung.path])
        for name, rung in rungs.items()
    ]
    ends = "; ".join(f"{name} {plain(rung.path[0], 2)} to {plain(rung.path[-1], 2)}" for name, rung in rungs.items())
    return Curve(
        "KKT residual during ADMM",
        "sweeps over the data",
        "KKT residual over the size of the data (log scale)",
        tuple(lines),
        alt=f"Relative norm of all KKT residuals by sweep, for each choice of parameters from start to end: {ends}.",
        y_log=True,
    )


def _price(rungs: tuple[Rung, ...], sweeps: int) -> Table:
    columns = ("towards compliance", "beta, layers 1 to 3", "ridge", "KKT residual", "converged", "explained (%)")
    rows = tuple(
        (
            round(rung.share, 3),
            ", ".join(f"{beta:.3g}" for beta in rung.beta),
            float(f"{rung.ridge:.3g}"),
            float(f"{rung.kkt:.2g}") if math.isfinite(rung.kkt) else None,
            "yes" if rung.converged else "no",
            float(f"{100 * (1 - rung.fit):.3g}"),
        )
        for rung in rungs
    )
    note = (
        f"Converged: residual at most {TOLERANCE:g} after {sweeps} sweeps; none where a step broke down. Explained: 1 "
        "less the loss over that of answering zero. From 0 (useful) to 1 (compliant) beta and ridge change by equal "
        "factors."
    )
    return Table("The price of compliance", columns, rows, note)


def _conditions_table(useful: Conditions) -> Table:
    rows = tuple(
        (one.name, one.formula, float(f"{one.value:.3g}"), float(f"{one.threshold:.3g}"), float(f"{one.ratio:.2g}"))
        for one in useful.conditions
    )
    assert useful.size is not None
    note = (
        f"At beta {USEFUL_BETA:g} and ridge {USEFUL_RIDGE:g}, two sigmoid layers of {WIDTH}; B = {useful.size:.3g}, "
        f"||X|| = {useful.norms[0]:.3g}. A ratio of 1 and more meets the condition."
    )
    return Table("The lecture's conditions", ("parameter", "at least", "value", "threshold", "ratio"), rows, note)


def _by_layer(problem: Problem, rung: Rung, sweeps: int) -> Table:
    trained = problem.copy()
    Chain.of(trained).load(rung.weights)
    residuals = kkt_residuals(problem.with_model(trained), ridge=USEFUL_RIDGE)
    rows = tuple((index + 1, float(f"{norms[0]:.2g}")) for index, norms in enumerate(residuals.by_layer))
    note = (
        f"Frobenius norm of ridge W + (multipliers x slopes)' V after {sweeps} sweeps with useful parameters, states "
        "and multipliers taken from the weights: the gradient of the objective, zero at a KKT point."
    )
    return Table("KKT residual by layer", ("layer", "weights"), rows, note)


def answer(seen: Observation) -> Answer:
    """Say what the useful parameters meet, and what the compliant ones leave to learn."""

    def value(name: str) -> float:
        return seen[name].value

    met, every = value("conditions that useful parameters meet"), value("conditions")
    residual, learned = seen["compliant, KKT residual"], value("compliant, explained")
    sentence = (
        f"Useful parameters meet {met:.0f} of the theorem's {every:.0f} conditions, explain "
        f"{_share(value('useful, explained'))} and end at a KKT residual of "
        f"{plain(value('useful, KKT residual'), 2)}; "
        f"compliant ones end at {plain(residual.value, 2)} and explain {_share(learned)}."
    )
    names = [measurement.name for measurement in seen.measurements]
    if "smallest convergent, ridge" in names:
        sentence += f" The smallest that still converged explain {_share(value('smallest convergent, explained'))}."
    if residual.value > TOLERANCE:
        return Answer(sentence, "guarantee not reached", "caution", residual.name)
    if learned < LITTLE:
        return Answer(sentence, "guarantee vacuous", "neutral", residual.name)
    return Answer(sentence, "guarantee of use", "good", residual.name)


def _share(fraction: float) -> str:
    # Rounding may leave a network of nought on either side of zero.
    return "nothing" if abs(fraction) < 1e-6 else percent(fraction)


instrument = Instrument(
    name="alternating_conditions",
    question="optimization",
    title="ADMM's convergence theorem and what it costs",
    lecture="With the penalties large enough ADMM converges to a KKT point from any finite start; regularisation "
    "parameters may grow with the number of layers in the worst case.",
    source=SOURCE,
    rule=(
        "Guarantee vacuous: the compliant run converges and explains less than 1 % of the targets, as a network that "
        "answers zero; of use: it explains more; not reached: its KKT residual stays above 1e-6."
    ),
    caveat=(
        "One small network without biases, as on the slide, and one start; a run that has not converged within its "
        "sweeps may still do so."
    ),
    rank=6,
    budgets={
        "quick": {"samples": 150, "rungs": 5, "sweeps": 250},
        "full": {"samples": 500, "rungs": 9, "sweeps": 1000},
    },
    applies=applies,
    run=run,
    answer=answer,
)
