"""Where does the error come from: too small a class, too few samples, or too short a training?"""

from __future__ import annotations

import torch

from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.core.numbers import plain
from whydeep.generalization.experiments.excess_risk import split_excess_risk


def applies(subject: Subject) -> str | None:
    """Return why there is no population to draw from, or None."""
    train = subject.problem.train
    if train.y is None:
        return "the data have no targets"
    if len(train) < 100:
        return f"there are {len(train)} training samples; a pool to draw from needs at least 100"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Take the training samples as the population and a quarter of them as what is seen."""
    pool = subject.problem.train.subsample(budget["samples"], generator).in_memory()
    samples = len(pool) // 4
    widths = sorted({max(1, round(samples * factor)) for factor in (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)})
    found = split_excess_risk(
        pool, widths=widths, samples=samples, steps=budget["steps"], draws=budget["draws"], generator=generator
    )
    at = found.widths.index(found.best)
    measurements = (
        exact("excess risk at the best width", found.total[at], method="mean over draws"),
        exact("approximation", found.approximation[at]),
        exact("estimation", found.estimation[at]),
        exact("optimisation", found.optimisation[at]),
        exact("best width", found.best, unit="features"),
        exact("widest", widths[-1], unit="features"),
        exact("samples", samples, unit="samples"),
    )
    return Observation(measurements, (found.curve(),))


def answer(seen: Observation) -> Answer:
    """Say the three parts at the best width, and which is the largest."""
    parts = {name: seen[name].value for name in ("approximation", "estimation", "optimisation")}
    largest = max(parts, key=lambda name: parts[name])
    shown = ", ".join(f"{name} {plain(float(f'{value:.2g}'))}" for name, value in parts.items())
    sentence = (
        f"Random features on {seen['samples'].value:,.0f} of these samples do best at width "
        f"{seen['best width'].value:,.0f}; their excess squared loss there: {shown}."
    )
    if parts["optimisation"] < 0:
        sentence += " Optimisation is negative: stopping early did better than fitting these samples to the end."
    return Answer(sentence, f"mostly {largest}", "neutral", "excess risk at the best width")


instrument = Instrument(
    name="excess_risk",
    question="generalization",
    title="Excess risk: approximation, estimation, optimisation",
    lecture="Excess risk is approximation error plus estimation error plus optimisation error; more capacity trades "
    "the first for the second.",
    source='Slide "Generalization Error"; Bottou and Bousquet 2008',
    rule="mostly X: the part that is the largest at the best number of features.",
    caveat="Of linear functions of random features, for which the parts are exact; the samples given stand for the "
    "population. Optimisation is the risk reached minus that of the best fit to the samples seen: negative where "
    "stopping early does better on the population than fitting to the end.",
    rank=11,
    budgets={
        "quick": {"samples": 800, "steps": 1_000, "draws": 8},
        "full": {"samples": 5_000, "steps": 1_000, "draws": 5},
    },
    applies=applies,
    run=run,
    answer=answer,
)
