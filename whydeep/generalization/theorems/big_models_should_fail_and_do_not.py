"""Big model should fail: the capacity bound grows with the width, and the test error falls.

Statement: on two interleaved spirals, from 2 to 100 hidden units the VC bound of a two-layer ReLU network grows, and
the test error of the network that training finds falls: what a bound for the whole class says of width is not what
happens.
Source: slide "Big model should fail!"; Neyshabur, Tomioka and Srebro 2015, "In search of the real inductive bias";
Zhang et al. 2017.
Assumptions: the wider network has the larger bound (checked from its growth function).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.data.synthetic import spirals
from whydeep.generalization.capacity.chain import read_chain
from whydeep.generalization.capacity.growth_function import log_growth
from whydeep.generalization.risk import mistakes
from whydeep.networks.mlp import mlp
from whydeep.optimization.backprop import Backprop


@dataclass(frozen=True)
class Case:
    """Trained by full-batch Adam for `steps`, the wide one for `wide_steps`."""

    narrow: int
    wide: int
    samples: int
    steps: int
    wide_steps: int


def data(case: Case, samples: int, generator: torch.Generator) -> Data:
    """Return fresh spirals of one turn."""
    return spirals(samples, turns=1.0, generator=generator)


def the_wider_network_has_the_larger_bound(case: Case) -> bool:
    """Compare ln Pi(n) of the growth functions; they depend on the architecture alone."""
    generator = torch.Generator().manual_seed(0)
    train = data(case, case.samples, generator)
    models = [mlp((2, width, 2), init="he", generator=generator) for width in (case.narrow, case.wide)]
    growth = [log_growth(read_chain(model, train), len(train)) for model in models]
    return growth[0] < growth[1]


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The wide network's test error minus the narrow one's is at most 0."""
    return Prediction("at most", 0.0)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The difference of the errors on the same fresh samples, +- 1.96 standard errors of the paired difference."""
    train, test = data(case, case.samples, generator), data(case, 1_000, generator)
    wrong = []
    for width in (case.narrow, case.wide):
        steps = case.wide_steps if width == case.wide else case.steps
        solver = Backprop(torch.optim.Adam, lr=0.05, epochs=steps, batch_size=None)
        model = mlp((2, width, 2), init="he", generator=generator)
        trained = solver.train(Problem(model, train), generator=generator).model
        wrong.append(mistakes(trained, test).double())
    change = wrong[1] - wrong[0]
    centre, half = float(change.mean()), 1.96 * float(change.std()) / len(test) ** 0.5
    return Measurement(
        "change of the test error from narrow to wide",
        centre,
        centre - half,
        centre + half,
        unit="fraction difference",
        method=f"paired, {len(test)} fresh samples; narrow {float(wrong[0].mean()):.3f}",
    )


def holds_on() -> Case:
    """Two units cannot follow the spiral (a fifth of the samples wrong), a hundred do (one in a hundred).

    The paired difference of 0.2 has standard error 0.013: 15 of them from 0. A wide network after one step is wrong on
    about half.
    """
    return Case(narrow=2, wide=100, samples=200, steps=200, wide_steps=200)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="From 2 to 100 hidden units the capacity bound grows and the test error falls.",
    source='Slide "Big model should fail!"; Neyshabur, Tomioka and Srebro 2015; Zhang et al. 2017',
    assumptions={"the wider network has the larger bound": the_wider_network_has_the_larger_bound},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), narrow=100, wide=2),
    corrupted=lambda: replace(holds_on(), wide_steps=1),
    convincing=lambda: Case(narrow=2, wide=1_000, samples=500, steps=400, wide_steps=400),
)
