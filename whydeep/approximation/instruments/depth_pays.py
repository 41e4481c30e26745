"""Does depth pay here? The given network against networks of one and two hidden layers with as many parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from whydeep.approximation.depth import Contender, Trial, average, compete, matching_width, rule_of_three, scores
from whydeep.approximation.ridge import ridge_sum
from whydeep.core.data import Data
from whydeep.core.evaluation import evaluating
from whydeep.core.exhibit import Curve, Line, Table
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed
from whydeep.core.training import Solver
from whydeep.networks import linear, mlp
from whydeep.networks.mlp import ACTIVATIONS
from whydeep.optimization import Backprop

RATES = {3: (1e-3, 3e-3, 1e-2), 5: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
ROUNDS = (1, 3, 10)
"""Rounds of 20 L-BFGS iterations that a baseline may choose from: stopping early is its only regulariser."""

GIVEN, ONE, TWO = "given network", "one hidden layer", "two hidden layers"
GIVEN_GAIN, SECOND_GAIN = "gain of the given network's depth", "gain of a second hidden layer"
PLAIN = "the given network is a perceptron (1 yes, 0 no)"
FEWEST = 40
"""Training samples without which a validation part cannot choose anything."""


def applies(subject: Subject) -> str | None:
    """Return why depths cannot be compared, or None."""
    train, test = subject.problem.train, subject.problem.test
    if test is None:
        return "there are no test data to compare networks on"
    if len(train) < FEWEST:
        return f"there are {len(train)} training samples; choosing learning rates needs {FEWEST}"
    if len(test) < 2:
        return "there is one test sample; a comparison needs at least 2"
    if next(subject.problem.model.parameters(), None) is None:
        return "the network has no parameters, so no other can have as many"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Train all contenders and baselines, and take the differences of their test scores."""
    given = subject.problem.model
    assert subject.problem.test is not None
    test = subject.problem.test.subsample(budget["test"], generator).in_memory()
    rates = RATES[budget["rates"]]
    samples = _affordable(subject.problem, budget, trainings=budget["seeds"] * len(rates))
    train = subject.problem.train.subsample(samples, generator).in_memory()
    problem = Problem(given, train, test, loss=subject.problem.loss)
    trials = compete(
        problem,
        _contenders(subject, train, passes=budget["passes"], rates=rates),
        seeds=budget["seeds"],
        generator=generator,
    )
    by_name = {trial.name.split(" (")[0]: trial for trial in trials}
    unit = "fraction" if test.classes is not None else "loss"
    apart = "fraction difference" if unit == "fraction" else unit
    score = _score(unit)
    resolution = rule_of_three(len(test)) if test.classes is not None else 0.0
    shallow, two, own = by_name.get(ONE), by_name.get(TWO), by_name.get(GIVEN)
    depth = _weight_layers(given)
    shallow = shallow or own
    assert shallow is not None
    measurements: list[Measurement] = []
    pairs = [(GIVEN_GAIN, own if depth > 2 else None), (SECOND_GAIN, two)]
    for name, deep in pairs:
        if deep is not None and deep is not shallow:
            gain = average(name, shallow.test - deep.test, resolution=resolution, unit=apart)
            measurements += [
                gain,
                exact(f"detectable difference, {name}", gain.high - gain.value, unit=apart, method="half the interval"),
                exact(f"training {score}, {name}", float(deep.train.mean()), unit=unit),
            ]
    measurements += [
        exact(f"training {score}, shallow", float(shallow.train.mean()), unit=unit),
        exact(PLAIN, float(_is_perceptron(given, _widths(given)))),
        exact("seeds", budget["seeds"]),
        exact("test samples", len(test)),
        exact("training samples", len(train)),
        exact("trainings", sum(trial.trainings for trial in trials)),
    ]
    tests = [_bounded(average(f"test {score}, {t.name}", t.test, unit=unit), unit) for t in trials]
    rows = [_row(trial, tested) for trial, tested in zip(trials, tests, strict=True)]
    if own is None:
        reached = float(scores(subject.problem, test).mean())
        total = sum(value.numel() for value in given.parameters())
        rows.insert(0, ("given network, as it came", total, "not retrained", None, reached, None, None))
    note = f"{unit}: misclassified fraction of samples" if unit == "fraction" else "loss: mean loss of samples"
    table = Table(
        "Networks with as many parameters, and two baselines",
        ("network", "parameters", "setting chosen", "training", "test", "test, low", "test, high"),
        tuple(rows),
        f"{note}; {budget['seeds']} seeds, {len(train)} training and {len(test)} test samples.",
    )
    return Observation((*measurements, *tests), (_curve(trials, tests, unit), table))


def _contenders(subject: Subject, train: Data, passes: int, rates: tuple[float, ...]) -> tuple[Contender, ...]:
    given = subject.problem.model
    like = next(given.parameters())
    inputs, outputs = math.prod(train.input_shape), train.outputs
    total = sum(value.numel() for value in given.parameters())
    activation = _activation(given)
    adam: dict[str, Solver] = {
        f"Adam, rate {rate:g}": Backprop(torch.optim.Adam, lr=rate, epochs=passes, batch_size=100, schedule="cosine")
        for rate in rates
    }
    options = {"max_iter": 20, "line_search_fn": "strong_wolfe"}
    newton: dict[str, Solver] = {
        f"L-BFGS, {20 * rounds} steps": Backprop(
            torch.optim.LBFGS, lr=1.0, epochs=rounds, batch_size=None, options=options
        )
        for rounds in ROUNDS
    }

    def perceptron(widths: tuple[int, ...]) -> Callable[[torch.Generator], nn.Module]:
        def build(generator: torch.Generator) -> nn.Module:
            with global_seed(generator):
                return mlp(widths, activation=activation).to(like)

        return build

    def logistic(generator: torch.Generator) -> nn.Module:
        with global_seed(generator):
            return linear(inputs, outputs).to(like)

    def ridges(generator: torch.Generator) -> nn.Module:
        return ridge_sum(train, generator=generator).to(like)

    plain, merged = [], ""
    for hidden, name in ((1, ONE), (2, TWO)):
        width = matching_width(total, inputs=inputs, outputs=outputs, hidden=hidden)
        widths = (inputs, *[width] * hidden, outputs)
        if subject.factory is not None and _is_perceptron(given, widths):
            merged = f" ({name})"  # the same architecture twice would only cost time
        else:
            plain.append(Contender(name, perceptron(widths), adam))
    own = [] if subject.factory is None else [Contender(GIVEN + merged, subject.fresh, adam)]
    k = outputs
    baselines = [
        Contender(f"sum of {k} ridge functions", ridges, newton),
        Contender("linear", logistic, newton),
    ]
    return (*own, *plain, *baselines)


def _affordable(problem: Problem, budget: Budget, *, trainings: int) -> int:
    """How many training samples the budget of multiplications allows, at `trainings` for each of the three networks.

    A training multiplies about 3 x (forward multiplications) x samples x passes times: forward, and backward twice.
    """
    model = copy.deepcopy(problem.model)
    counter = FlopCounterMode(display=False)
    # With gradients on, attention takes the kernels that the counter knows.
    with evaluating(model), torch.enable_grad(), counter:
        model(problem.train.x[torch.arange(1)])
    parameters = sum(value.numel() for value in model.parameters())
    forward = max(counter.get_total_flops() // 2, parameters)
    each = 3 * budget["passes"] * trainings * (forward + 2 * parameters)  # perceptrons: one a parameter
    allowed = budget["billion multiplications"] * 10**9 // each
    return min(max(int(allowed), 10 * FEWEST), budget["samples"])


def _weight_layers(model: nn.Module) -> int:
    """How many weight matrices, kernels or embeddings the network has."""
    return sum(value.ndim > 1 for value in model.parameters())


def _activation(model: nn.Module) -> str:
    """The name of the network's activation, where it has exactly one that is known; else relu."""
    kinds = {type(module) for module in model.modules()}
    names = [name for name, kind in ACTIVATIONS.items() if kind in kinds and name != "identity"]
    return names[0] if len(names) == 1 else "relu"


def _score(unit: str) -> str:
    return "error" if unit.startswith("fraction") else "loss"


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear]


def _widths(model: nn.Module) -> tuple[int, ...]:
    """The widths of the network's dense layers, as a perceptron would have them."""
    dense = _linears(model)
    return tuple(layer.in_features for layer in dense) + tuple(layer.out_features for layer in dense[-1:])


def _is_perceptron(model: nn.Module, widths: tuple[int, ...]) -> bool:
    leaves = [module for module in model.modules() if not list(module.children())]
    plain = all(type(leaf) in (nn.Flatten, nn.Linear, nn.Identity, *ACTIVATIONS.values()) for leaf in leaves)
    found = [(layer.out_features, layer.in_features) for layer in _linears(model)]
    return plain and found == [(outgoing, incoming) for incoming, outgoing in pairwise(widths)]


def _bounded(measured: Measurement, unit: str) -> Measurement:
    """Cut an interval to the values the quantity can take: [0, 1] for a fraction."""
    if unit != "fraction":
        return measured
    low, high = max(measured.low, 0.0), min(measured.high, 1.0)
    return Measurement(measured.name, measured.value, low, high, unit=unit, method=measured.method)


def _row(trial: Trial, test: Measurement) -> tuple[str | float | int | None, ...]:
    return (
        trial.name,
        trial.parameters,
        trial.setting,
        float(trial.train.mean()),
        test.value,
        test.low,
        test.high,
    )


def _curve(trials: tuple[Trial, ...], tests: list[Measurement], unit: str) -> Curve:
    places = list(range(len(trials)))
    what = "error (misclassified fraction)" if unit == "fraction" else "loss"
    fitted = [float(trial.train.mean()) for trial in trials]
    best = min(zip(trials, tests, strict=True), key=lambda pair: pair[1].value)
    return Curve(
        "Depth at equal parameters",
        "network",
        what,
        (
            Line("test", places, [m.value for m in tests], [m.low for m in tests], [m.high for m in tests], marks=True),
            # Bars without length: networks have no order in which a line could join them.
            Line("training", places, fitted, fitted, fitted, role="reference", marks=True),
        ),
        alt=f"Test and training {what} of {len(trials)} networks; the lowest test value, {best[1].value:.3g}, has: "
        f"{best[0].name}.",
        x_ticks=tuple(trial.name for trial in trials),
    )


def answer(seen: Observation) -> Answer:
    """Say whether the deep network's advantage over one hidden layer differs from zero."""
    names = [measurement.name for measurement in seen.measurements]
    name = GIVEN_GAIN if GIVEN_GAIN in names else SECOND_GAIN
    gain, half = seen[name], seen[f"detectable difference, {name}"].value
    deep = "the given network" if name == GIVEN_GAIN else "two"
    more = "more" if gain.value >= 0 else "less"
    size, limit = _points(abs(gain.value), half, gain.unit)
    score = _score(gain.unit)
    errs = "errs" if score == "error" else "loses"
    comparison = f"one hidden layer with as many parameters {errs} {size} {more} than {deep}"
    data = f"{seen['seeds'].value:.0f} seeds and {seen['test samples'].value:.0f} test samples"
    if gain.low > 0:
        if name == SECOND_GAIN or seen[PLAIN].value:
            return Answer(f"Depth pays: {comparison}; {data} tell {limit} apart.", "depth pays", "good", name)
        sentence = f"Depth or architecture pays: {comparison}; {data} tell {limit} apart."
        if SECOND_GAIN in names and seen[SECOND_GAIN].low <= 0:
            sentence += " A second hidden layer alone gains nothing detectable."
        return Answer(sentence, "depth or architecture pays", "good", name)
    if gain.high < 0:
        what = (
            "Depth does not pay" if name == SECOND_GAIN or seen[PLAIN].value else "Neither depth nor architecture pays"
        )
        sentence = f"{what}: {comparison}, by more than the {limit} that {data} can tell apart."
        behind = seen[f"training {score}, {name}"].value - seen[f"training {score}, shallow"].value
        if behind > half:
            sentence += " The deep network also fits the training data worse, so its training is at fault."
        return Answer(sentence, "shallow is better", "caution", name)
    sentence = f"No benefit of depth detected: {comparison}, within the {limit} that {data} can tell apart."
    return Answer(sentence, "depth pays: not detectably", "neutral", name)


def _points(value: float, half: float, unit: str) -> tuple[str, str]:
    """Return a difference and its half-interval in words, with the digits that the interval supports."""
    fraction = unit.startswith("fraction")
    if fraction:
        digits = 2 if half < 0.0095 else 1 if half < 0.1 else 0
        value, half = 100 * value, 100 * half
    else:
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    # A difference just outside its half-interval must not read like a tie; beyond nine digits there is none to see.
    while digits < 9 and value > half and f"{value:.{digits}f}" == f"{half:.{digits}f}":
        digits += 1
    return (
        f"{value:.{digits}f}{' points' if fraction else ''}",
        f"{half:.{digits}f} {'points' if fraction else 'in loss'}",
    )


instrument = Instrument(
    name="depth_pays",
    question="approximation",
    title="Depth against width at equal parameters",
    lecture="Shallow and deep networks both approximate any function; for compositional functions of d variables the "
    "shallow one needs exponentially many parameters in d, the deep one does not.",
    source="Mhaskar, Liao and Poggio (2016), When and why are deep networks better than shallow ones",
    rule="depth pays: the 95 % interval of (error of one hidden layer - error of the deep network) lies above zero "
    "(depth or architecture pays, where the given network is no perceptron); "
    "shallow is better: below zero; otherwise depth pays: not detectably. The deep network is the given one if it can "
    "be made anew and has at least three weight layers, else the perceptron with two hidden layers.",
    caveat="Where the given network is no perceptron, its architecture differs from one hidden layer in more than "
    "depth; every network chose its learning rate from the same few.",
    rank=1,
    budgets={
        "quick": {
            "samples": 5_000,
            "passes": 20,
            "seeds": 3,
            "rates": 3,
            "test": 10_000,
            "billion multiplications": 450,
        },
        "full": {
            "samples": 60_000,
            "passes": 40,
            "seeds": 7,
            "rates": 5,
            "test": 10_000,
            "billion multiplications": 45_000,
        },
    },
    applies=applies,
    run=run,
    answer=answer,
)
