"""Does depth pay here? Networks with as many parameters, compared fairly on the same data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.evaluation import errors, outputs
from whydeep.core.measurement import Measurement
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver


@dataclass(frozen=True)
class Contender:
    """A network that takes part: `build` makes it anew from a generator, `solvers` are the settings it may choose."""

    name: str
    build: Callable[[torch.Generator], nn.Module]
    solvers: Mapping[str, Solver]


@dataclass(frozen=True)
class Trial:
    """How a contender did with the setting it chose on the validation part.

    train: (seeds,) mean score on the part it was trained on. test: (seeds, n) score of every test sample.
    A score is 1 for a misclassified sample and 0 otherwise; for regression it is the loss.
    """

    name: str
    parameters: int
    setting: str
    train: Tensor
    test: Tensor
    trainings: int


def matching_width(parameters: int, *, inputs: int, outputs: int, hidden: int) -> int:
    """Return the width h at which a perceptron with `hidden` layers of h units is nearest to a number of parameters.

    Its parameters, biases counted: P(h) = (hidden - 1) h^2 + (inputs + hidden + outputs) h + outputs.
    At least 1, however few parameters are asked for. Raises `ValueError` for hidden < 1.

    >>> matching_width(17_610, inputs=64, outputs=10, hidden=2)
    100
    """
    if hidden < 1:
        raise ValueError(f"hidden is {hidden}; give at least one hidden layer")
    a, b = hidden - 1, inputs + hidden + outputs

    def count(width: int) -> int:
        return a * width**2 + b * width + outputs

    # The positive root, in the form that is right for a = 0, too.
    rest = max(parameters - outputs, 0)
    root = int(2 * rest / (b + math.sqrt(b * b + 4 * a * rest)))
    return min(max(root, 1), root + 1, key=lambda width: abs(count(width) - parameters)) if root else 1


def scores(problem: Problem, data: Data) -> Tensor:
    """Return the score (n,) float64 of every sample: misclassified or not, for regression the loss."""
    if data.classes is not None:
        return errors(problem.model, data).double().cpu()
    return problem.per_sample(outputs(problem.model, data), data.targets).double().cpu()


def compete(
    problem: Problem,
    contenders: tuple[Contender, ...],
    *,
    seeds: int,
    held_back: float = 0.15,
    generator: torch.Generator | None = None,
) -> tuple[Trial, ...]:
    """Train every contender with every setting from `seeds` initialisations and test the setting it chose.

    A fraction `held_back` of the training data, the same for all, is split off for validation. A contender's setting
    is the one of least validation score, averaged over seeds; ties go to the lower validation risk. Only then the
    networks of that setting, trained on the rest, see the test data: once.
    The problem's own model is not used. Raises `ValueError` without test data or with fewer than 2 seeds.
    Cost: sum over contenders of settings times seeds trainings.
    """
    if problem.test is None:
        raise ValueError("a comparison needs test data, and the problem has none; give them")
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}; give at least 2, or the spread between trainings cannot be known")
    generator = or_default(generator)
    held, fit = problem.train.split(max(1, round(held_back * len(problem.train))), generator)
    trials = []
    for contender in contenders:
        starts = [contender.build(spawn(generator)) for _ in range(seeds)]
        orders = [int(torch.randint(2**62, (), generator=generator)) for _ in range(seeds)]
        best: tuple[tuple[float, float], str, list[Problem]] | None = None
        for setting, solver in contender.solvers.items():
            trained = []
            for start, order in zip(starts, orders, strict=True):
                task = Problem(start, fit, loss=problem.loss)
                training = solver.train(task, generator=torch.Generator().manual_seed(order))
                trained.append(task.with_model(training.model))
            score = sum(float(scores(one, held).mean()) for one in trained) / seeds
            risk = sum(one.risk(held) for one in trained) / seeds
            if best is None or (score, risk) < best[0]:
                best = ((score, risk), setting, trained)
        if best is None:
            raise ValueError(f"{contender.name} has no settings to choose from; give at least one solver")
        trials.append(
            Trial(
                name=contender.name,
                parameters=sum(value.numel() for value in starts[0].parameters()),
                setting=best[1],
                train=torch.stack([scores(one, fit).mean() for one in best[2]]),
                test=torch.stack([scores(one, problem.test) for one in best[2]]),
                trainings=seeds * len(contender.solvers),
            )
        )
    return tuple(trials)


def average(name: str, values: Tensor, *, confidence: float = 0.95, resolution: float = 0.0, unit: str) -> Measurement:
    """Return the mean of values (seeds, n) with an interval that covers new seeds and new test samples at once.

    Model: value[s, i] = mu + a_s + b_i + e_si, with a_s from the seed (initialisation and order of samples, the
    training set is fixed), b_i from the test sample. The variance of the grand mean is
    var(a)/S + var(b)/n + var(e)/(S n). Two terms estimate it:

        u = variance over seeds of the means over samples / S,    expectation var(a)/S + var(e)/(S n)
        v = variance over samples of the means over seeds / n,    expectation var(b)/n + var(e)/(S n)

    u + v counts var(e)/(S n) twice: it is never too small on average. The interval is Student's with
    Satterthwaite's degrees of freedom (u + v)^2 / (u^2/(S - 1) + v^2/(n - 1)).
    For the difference of two contenders, give the difference of their scores: test samples are then paired (with one
    seed the second term is McNemar's), seeds are not and need not be.

    resolution: the interval reaches at least so far on both sides; see `rule_of_three`.
    Raises `ValueError` for fewer than 2 seeds or samples.
    Satterthwaite (1946); the two-way layout is that of Owen (2007), "The pigeonhole bootstrap" (recalled, not checked
    against the paper).
    """
    seeds, samples = values.shape
    if seeds < 2 or samples < 2:
        raise ValueError(f"{name}: {seeds} seeds and {samples} samples; give at least 2 of each")
    by_seed = float(values.mean(1).var()) / seeds
    by_sample = float(values.mean(0).var()) / samples
    total = by_seed + by_sample
    half = 0.0
    if total > 0:
        freedom = total**2 / (by_seed**2 / (seeds - 1) + by_sample**2 / (samples - 1))
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)
    half = max(half, resolution)
    centre = float(values.mean())
    return Measurement(
        name,
        centre,
        centre - half,
        centre + half,
        confidence=confidence,
        unit=unit,
        method=f"Student over {seeds} seeds and {samples} test samples",
    )


def rule_of_three(samples: int, *, confidence: float = 0.95) -> float:
    """Return the error rate 1 - (1 - confidence)^(1/n), about 3/n, that n samples without an error cannot exclude.

    Where two networks agree on every test sample their differences have no variance, and still no more is known.

    >>> round(rule_of_three(20), 4)  # 1 - 0.05^(1/20)
    0.1391
    """
    return float(-math.expm1(math.log1p(-confidence) / samples))
