"""From a feasible point with consistent multipliers, ADMM's weight steps are preconditioned gradient steps.

Statement: where V_i is the forward pass and Lambda_i = dl/dV_i, as the KKT conditions ask of states and multipliers,
at weights that need not be optimal, the linearised W-step of ADMM for every layer is

    W_i - dR/dW_i (ridge I + beta h_i A_i'A_i)^-1:       the chain rule's gradient, preconditioned from one side,

with A_i its inputs and a column of ones, R the sum of the losses over samples plus ridge/2 sum ||W||^2, and
h_i = sup f'' of the layer's misfit.
Source: Zeng, Lin, Yao and Zhou, JMLR 2021, W-step of Algorithm 1; Benzing 2022 calls such steps FOOF (both recalled,
not checked against the papers). With B = V_i - Lambda_i/beta and s(U_i) = V_i the step's beta (s(U_i) - B) s'(U_i) is
Lambda_i s'(U_i) = dl/dU_i, and (dl/dU_i)'A_i is the gradient by W_i.
Assumptions: states feasible, multipliers consistent; both are checked. beta and ridge are arbitrary.
A sweep that goes on from the moved weights with its old states is the lecture's ADMM; one that sets states and
multipliers anew is `StochasticADMM`, which besides takes minibatches, a running Gram matrix and another size of step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from whydeep.core.claim import Claim, OnDraw
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.verdict import Prediction
from whydeep.networks.mlp import mlp
from whydeep.optimization.alternating.admm.sweep import weight_step
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.majoriser import exact_constant
from whydeep.optimization.alternating.proximal import output_loss, target_rows
from whydeep.optimization.lagrangian.kkt import Lagrangian, State


@dataclass(frozen=True)
class Case:
    """A sigmoid network on random samples, and the point from which one sweep starts.

    dual: the factor of the multipliers, 1 where they are consistent; 0 is ADMM's own cold start.
    drift: standard deviation of what is added to the hidden states, 0 where they are feasible.
    stretched: the factor of the curvature h_i in the step that is run; 1, unless the mechanism is damaged.
    """

    widths: tuple[int, ...] = (4, 6, 5, 3)
    samples: int = 40
    loss: str = "cross_entropy"
    beta: float = 0.7
    ridge: float = 0.3
    dual: float = 1.0
    drift: float = 0.0
    stretched: float = 1.0


@dataclass(frozen=True)
class _Drawn:
    problem: Problem
    directions: tuple[Tensor, ...]
    noise: torch.Generator


def _draw(case: Case, seed: int) -> _Drawn:
    """The same network, samples and directions for the same seed: predict and measure look at one step."""
    generator = torch.Generator().manual_seed(seed)
    model = mlp(case.widths, activation="sigmoid", init="xavier", gain=4.0, generator=generator).double()
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.bias.normal_(0, 0.5, generator=generator)
    x = torch.randn(case.samples, case.widths[0], dtype=torch.float64, generator=generator)
    labels = torch.arange(case.samples) % case.widths[-1]
    directions = tuple(
        torch.randn(layer.out_features, layer.in_features + 1, dtype=torch.float64, generator=generator)
        for layer in model
        if isinstance(layer, nn.Linear)
    )
    problem = Problem(model, Data(x, labels, classes=case.widths[-1]), loss=case.loss)
    return _Drawn(problem, directions, spawn(generator))


def _states(problem: Problem) -> tuple[list[Tensor], list[Tensor]]:
    """V_0..V_N by the network's own modules, and dl/dV_1..dl/dV_N by autograd, l summed over samples."""
    assert isinstance(problem.model, nn.Sequential)
    assert isinstance(problem.train.x, Tensor)
    states, value = [problem.train.x], problem.train.x
    modules = [module for module in problem.model if not isinstance(module, nn.Flatten)]
    for index, module in enumerate(modules):
        value = module(value)
        if not isinstance(module, nn.Linear) or index == len(modules) - 1:
            states.append(value)
    loss = problem.per_sample(states[-1], problem.train.targets).sum()
    return [state.detach() for state in states], list(torch.autograd.grad(loss, states[1:]))


def _start(case: Case, drawn: _Drawn) -> tuple[Lagrangian, State]:
    chain = Chain.of(drawn.problem.copy())
    states, multipliers = _states(drawn.problem)
    for state in states[1:-1]:
        state += case.drift * torch.randn(state.shape, dtype=state.dtype, generator=drawn.noise)
    layers = len(chain.layers)
    targets = target_rows(drawn.problem.train.targets, case.widths[-1])
    lagrangian = Lagrangian(chain, output_loss(drawn.problem), targets, (case.ridge,) * layers, (case.beta,) * layers)
    return lagrangian, State(chain.weights(), tuple(states), tuple(case.dual * one for one in multipliers))


def _feasible(case: Case, generator: torch.Generator) -> bool:
    lagrangian, state = _start(case, _draw(case, generator.initial_seed()))
    # Two forward passes differ by rounding: some 1e-15 of states of order one.
    return lagrangian.residuals(state).infeasibility < 1e-12


def _consistent(case: Case, generator: torch.Generator) -> bool:
    lagrangian, state = _start(case, _draw(case, generator.initial_seed()))
    return max(float(part.abs().max()) for part in lagrangian.residuals(state).states) < 1e-12


def _curvature(low: float, high: float) -> float:
    """sup over u of s'^2 + (s - c) s'' for the sigmoid, c at the worse end of [low, high]: a grid, then Brent's search.

    The supremum is flat at its top: an argument good to 1e-8 gives a value good to 1e-16.
    """

    def bend(u: float, c: float) -> float:
        s = 1 / (1 + np.exp(-u))
        return float((s * (1 - s)) ** 2 + (s - c) * s * (1 - s) * (1 - 2 * s))

    best = 0.0
    for c in (low, high):
        top = max(np.linspace(-20, 20, 4001), key=lambda u, c=c: bend(u, c))  # type: ignore[misc]
        found = minimize_scalar(
            lambda u, c=c: -bend(u, c), bounds=(top - 0.01, top + 0.01), method="bounded", options={"xatol": 1e-9}
        )
        best = max(best, -float(found.fun))
    return best


def _predict(case: Case, generator: torch.Generator) -> Prediction:
    drawn = _draw(case, generator.initial_seed())
    states, multipliers = _states(drawn.problem)
    linears = [module for module in drawn.problem.model.modules() if isinstance(module, nn.Linear)]
    gradients = torch.split(
        drawn.problem.gradient() * case.samples,  # of the sum over samples, not of their mean
        [parameter.numel() for linear in linears for parameter in (linear.weight, linear.bias)],
    )
    value = 0.0
    for index, linear in enumerate(linears):
        whole = torch.cat([linear.weight.detach(), linear.bias.detach()[:, None]], 1)
        by_weight = gradients[2 * index].view_as(linear.weight)
        gradient = torch.cat([by_weight, gradients[2 * index + 1][:, None]], 1) + case.ridge * whole
        inputs = torch.cat([states[index], torch.ones(case.samples, 1, dtype=torch.float64)], 1)
        wanted = states[index + 1] - multipliers[index] / case.beta
        last = index == len(linears) - 1  # linear: the misfit is its own quadratic
        curvature = 1.0 if last else _curvature(float(wanted.min()), float(wanted.max()))
        gram = case.ridge * torch.eye(inputs.shape[1]).double() + case.beta * curvature * inputs.T @ inputs
        value -= float((drawn.directions[index] * torch.linalg.solve(gram, gradient.T).T).sum())
    # Both routes solve systems of condition below 1e5 in float64 and find h to 1e-12: they differ by some 1e-11 of
    # each layer's share of the value, which is of order one. A step 1 % longer moves it by 1e-2 of that.
    return Prediction("equals", value, tolerance=1e-8, constants={"beta": case.beta, "ridge": case.ridge})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    drawn = _draw(case, generator.initial_seed())
    lagrangian, state = _start(case, drawn)
    value = 0.0
    for index, direction in enumerate(drawn.directions):
        moved = weight_step(lagrangian, state, index, lambda *given: case.stretched * exact_constant(*given))
        value += float((direction * (moved - state.weights[index])).sum())
    return exact(
        "ADMM's step of all weights along a random direction", value, method="one sweep's W-steps", evaluations=1
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="From feasible states and consistent multipliers ADMM's weight steps are preconditioned gradient steps.",
    source="Zeng, Lin, Yao and Zhou (JMLR 2021), Algorithm 1; Benzing (2022); lecture, ADMM for DNN Learning",
    assumptions={
        "states are the forward pass": OnDraw(_feasible),
        "multipliers are back-propagated gradients": OnDraw(_consistent),
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # The published cold start: multipliers zero, so that the hidden layers only shrink by the ridge.
    fails_on=lambda: Case(dual=0.0),
    corrupted=lambda: Case(stretched=1.01),
    convincing=lambda: Case(widths=(30, 40, 40, 40, 10), samples=500, loss="squared", beta=3.0, ridge=1.0),
)
