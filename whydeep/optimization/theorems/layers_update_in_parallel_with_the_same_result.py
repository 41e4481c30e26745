"""All layers' weights can be updated at the same time: the order of ADMM's W-steps does not matter.

Statement: in one sweep W_1, ..., W_N come out the same whether they are computed one after the other, as Algorithm 1
writes it, or all at once in any order on several workers.
Source: slides "ADMM for DNN Learning", Algorithm 1 (backward estimation), and "parallelizable" on slide
"Better Optimization Algorithms?". In the augmented Lagrangian W_i occurs only in layer i's terms, and its step reads
V_{i-1}, V_i and Lambda_i of the last sweep.
Assumption: the W-steps precede the V-steps, as in Algorithm 1. An order that corrects V_i as soon as W_i is new
(Gauss and Seidel's way through the layers) makes each step wait for the one below.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.sweep import sweep, weight_step
from whydeep.optimization.alternating.majoriser import exact_constant
from whydeep.optimization.lagrangian.kkt import Lagrangian, State, lagrangian_of


@dataclass(frozen=True)
class Case:
    """A sigmoid network in the middle of a training by ADMM.

    workers: threads among which the layers are dealt out, in random order.
    interleaved: every V_i is set anew before the next W-step reads it. late: one worker has only the iterate before
    the last, as happens where nobody waits for it.
    """

    widths: tuple[int, ...] = (4, 7, 6, 5, 3)
    samples: int = 50
    sweeps: int = 3
    workers: int = 3
    interleaved: bool = False
    late: bool = False


def _before(case: Case, seed: int) -> tuple[Lagrangian, State, State, torch.Generator]:
    """The last two iterates before the sweep that is looked at."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(case.samples, case.widths[0], dtype=torch.float64, generator=generator)
    labels = torch.arange(case.samples) % case.widths[-1]
    model = mlp(case.widths, activation="sigmoid", init="xavier", gain=4.0, generator=generator).double()
    problem = Problem(model, Data(x, labels, classes=case.widths[-1]), loss="squared")
    lagrangian = lagrangian_of(problem, beta=0.7, ridge=0.3)
    older = state = State.feasible(lagrangian.chain, lagrangian.chain.weights(), x)
    for _ in range(case.sweeps):
        older, state = state, sweep(lagrangian, state, exact_constant)
    return lagrangian, older, state, generator


def _projected(weights: list[Tensor], generator: torch.Generator) -> float:
    directions = [torch.randn(w.shape, dtype=w.dtype, generator=generator) for w in weights]
    return sum(float((d * w).sum()) for d, w in zip(directions, weights, strict=True))


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    lagrangian, _, state, draws = _before(case, generator.initial_seed())
    # The slides' loop i = N, ..., 1, each step through the iterate that already holds the new weights above it, by the
    # published formula W = beta (h W A' - G)' A (ridge I + beta h A'A)^-1.
    weights = list(state.weights)
    for index in range(len(weights) - 1, -1, -1):
        layer, below = lagrangian.chain.layers[index], state.states[index]
        beta, ridge = lagrangian.betas[index], lagrangian.ridges[index]
        inputs = torch.cat([below, torch.ones(case.samples, 1, dtype=torch.float64)], 1)
        wanted = state.states[index + 1] - state.multipliers[index] / beta
        before = inputs @ weights[index].T
        value, slope = layer.activation.value_and_slope(before)
        h = exact_constant(layer.activation, float(wanted.min()), float(wanted.max()))
        right = beta * (h * before - (value - wanted) * slope).T @ inputs
        gram = ridge * torch.eye(inputs.shape[1]).double() + beta * h * inputs.T @ inputs
        weights[index] = torch.linalg.solve(gram, right.T).T
    # Systems of condition below 1e4 in float64: the two ways differ by 1e-11 or so of a value of order ten. Steps move
    # it by 1e-2 and more.
    return Prediction("equals", _projected(weights, draws), tolerance=1e-8)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    lagrangian, older, state, draws = _before(case, generator.initial_seed())
    layers = len(state.weights)
    order = torch.randperm(layers, generator=torch.Generator().manual_seed(generator.initial_seed())).tolist()
    if case.interleaved:
        weights = _one_after_another(lagrangian, state)
    else:

        def step(index: int) -> Tensor:
            read = older if case.late and index == order[0] else state
            return weight_step(lagrangian, read, index, exact_constant)

        with ThreadPoolExecutor(case.workers) as workers:
            done = dict(zip(order, workers.map(step, order), strict=True))
        weights = [done[index] for index in range(layers)]
    return exact(
        "new weights along a random direction",
        _projected(weights, draws),
        method=f"{layers} layers on {case.workers} threads, in random order",
        evaluations=1,
    )


def _one_after_another(lagrangian: Lagrangian, state: State) -> list[Tensor]:
    """From the first layer up; each new W_i sets V_i to s(W_i V_{i-1}) before the layer above is updated."""
    weights, states = [], list(state.states)
    for index, layer in enumerate(lagrangian.chain.layers):
        now = State(state.weights, tuple(states), state.multipliers)
        weights.append(weight_step(lagrangian, now, index, exact_constant))
        states[index + 1], _ = layer.activation.value_and_slope(layer.preactivation(weights[-1], states[index]))
    return weights


def _weights_first(case: Case) -> bool:
    return not case.interleaved


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="The layers' weights come out the same whether ADMM updates them one after another or all at once.",
    source="Lecture, ADMM for DNN Learning, Algorithm 1; Zeng, Lin, Yao and Zhou (JMLR 2021)",
    assumptions={"all W-steps precede the V-steps": _weights_first},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(interleaved=True),
    corrupted=lambda: Case(late=True),
    convincing=lambda: Case(widths=(30, 60, 60, 60, 60, 60, 10), samples=600, workers=8),
)
