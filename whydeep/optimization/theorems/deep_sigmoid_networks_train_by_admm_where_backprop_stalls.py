"""Deep sigmoid networks train by ADMM from a start where back-propagation stays at guessing.

Statement: where the gradient has vanished at the start, the least training error that ADMM reaches is lower than the
better of Adam's and SGD's, in as many passes, by at least half the error of guessing.
Source: slide "Better Optimization Algorithms?" ("no vanishing gradients"); ADMM: slides, Algorithm 1. No theorem: the
half is what this check asks for, to tell learning from guessing.
Assumption: the gradient vanishes at the start, the first layer's being below 1e-3 of the last one's; checked. With
PyTorch's default start it does, as a sigmoid has slope 1/4 at most. Xavier's start with gain 4 undoes that factor: then
Adam trains as well, here even where ADMM does not, and nothing is left of the difference: the case that breaks.
What carries ADMM through are its multipliers: without their steps it stays at guessing, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from whydeep.core.claim import Claim, OnDraw
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, spawn
from whydeep.core.verdict import Prediction
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.sweep import sweep
from whydeep.optimization.alternating.majoriser import published_constant
from whydeep.optimization.backprop import Backprop
from whydeep.optimization.lagrangian.kkt import State, lagrangian_of

VANISHED = 1e-3


@dataclass(frozen=True)
class Case:
    """Gaussian clouds around three points and a deep sigmoid network.

    init, gain: the start, as `mlp` takes it. passes: sweeps of ADMM, and epochs of Adam and SGD.
    dual: factor of the multipliers' steps; 1, unless the mechanism is damaged.
    """

    hidden: int = 10
    width: int = 12
    samples: int = 90
    classes: int = 3
    passes: int = 60
    init: str = "default"
    gain: float = 1.0
    dual: float = 1.0


def _problem(case: Case, generator: torch.Generator) -> Problem:
    labels = torch.arange(case.samples) % case.classes
    noise = torch.randn(case.samples, case.classes, generator=generator, dtype=torch.float64)
    x = 3 * torch.eye(case.classes, dtype=torch.float64)[labels] + 0.3 * noise
    widths = (case.classes, *[case.width] * case.hidden, case.classes)
    with global_seed(generator):  # PyTorch's default start draws from the global generator
        model = mlp(widths, activation="sigmoid", init=case.init, gain=case.gain, generator=generator).double()
    return Problem(model, Data(x, labels, classes=case.classes), loss="squared")


def _vanishes(case: Case, generator: torch.Generator) -> bool:
    problem = _problem(case, generator)
    linears = [module for module in problem.model.modules() if isinstance(module, nn.Linear)]
    risk = problem.per_sample(problem.model(problem.train.x), problem.train.targets).mean()
    first, last = torch.autograd.grad(risk, [linears[0].weight, linears[-1].weight])
    return float(first.norm()) < VANISHED * float(last.norm())


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    # Counted in samples, of which the classes have equally many: fractions such as 2/3 - 1/3 would be rounded.
    guessing = case.samples - case.samples / case.classes
    # With ten hidden layers Adam and SGD guessed for all seeds from 0 to 30, where ADMM left at most 29 of 90 samples
    # wrong; with eight, Adam found one of the three classes in some.
    return Prediction("at least", guessing / 2, constants={"hidden layers": case.hidden, "wrong by guessing": guessing})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    problem = _problem(case, generator)
    batch = case.samples // 3
    rivals = [
        Backprop(torch.optim.Adam, lr=3e-3, epochs=case.passes, batch_size=batch),
        Backprop(torch.optim.SGD, lr=0.1, epochs=case.passes, batch_size=batch, options={"momentum": 0.9}),
    ]
    errors = [float(one.train(problem, generator=spawn(generator)).history["error"].min()) for one in rivals]
    return exact(
        "samples that back-propagation gets wrong minus those that ADMM does",
        round(min(errors) * case.samples) - _admm_mistakes(case, problem),
        unit="samples",
        method=f"the better of Adam and SGD, {case.passes} passes each",
        evaluations=3,
    )


def _admm_mistakes(case: Case, problem: Problem) -> int:
    """The least number of wrong samples after a sweep; with the loose constant, the steadier for so many layers."""
    lagrangian = lagrangian_of(problem, beta=1.0, ridge=1e-2)
    chain = lagrangian.chain
    state = State.feasible(chain, chain.weights(), chain.rows(problem.train))
    least = case.samples
    for _ in range(case.passes):
        after = sweep(lagrangian, state, published_constant)
        steps = zip(state.multipliers, after.multipliers, strict=True)
        state = State(after.weights, after.states, tuple(old + case.dual * (new - old) for old, new in steps))
        outputs = chain.outputs(state.weights, state.states[0])
        least = min(least, int((outputs.argmax(1) != problem.train.targets).sum()))
        if not least:
            break
    return least


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Where the gradient has vanished at the start, deep sigmoid networks train by ADMM, not by gradients.",
    source="Lecture, Better Optimization Algorithms? and ADMM for DNN Learning, Algorithm 1",
    assumptions={"the gradient vanishes at the start": OnDraw(_vanishes)},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(init="xavier", gain=4.0),
    corrupted=lambda: Case(dual=0.0),
    convincing=lambda: Case(width=20, samples=150, passes=100),
)
