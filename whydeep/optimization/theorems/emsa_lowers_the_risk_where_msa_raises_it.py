"""With a large rho each iteration of E-MSA lowers the risk by its extended Hamiltonians' gain; MSA's does not.

Statement: for x_{t+1} = f_t(x_t) = x_t + delta tanh(W_t x_t + b_t), t = 0..T-1, and the loss 1/2 ||x_T - y||^2, let
E-MSA move controls theta to phi, and let gain be the sum over t of the rise of the extended Hamiltonian of layer t.
If rho >= c_s for every s, then R(phi) <= R(theta) - gain, with

    c_s = T P_{Ts}^2 + sum_{t=s+1}^{T-1} (K_t + 1/rho) t P_{ts}^2,    P_{ts} = product over s < r < t of L_r,
    L_r = 1 + delta ||W_r||,    K_t = 4/(3 sqrt 3) delta ||W_t||^2 max |p_{t+1}|,

norms of phi's matrices, the maximum over samples and entries of theta's co-states.
Proof: d_t the difference of states, a_t = f_t(x_t, phi) - x_{t+1} and b_t = grad_x H_t(x_t, phi) - p_t at theta's
states, of one sample. The loss is quadratic: its change is -<p_T, d_T> + 1/2 ||d_T||^2, and <p_T, d_T> telescopes over
<p_{t+1}, d_{t+1}> - <p_t, d_t> = dH_t + <b_t, d_t> + r_t, |r_t| <= K_t/2 ||d_t||^2 as |tanh''| <= 4/(3 sqrt 3). Then
-<b_t, d_t> <= rho/2 ||b_t||^2 + 1/(2 rho) ||d_t||^2, and ||d_t||^2 <= t sum_{s<t} P_{ts}^2 ||a_s||^2 as d_0 = 0.
Source: Li, Chen, Tai and E, JMLR 2018, the lemma behind E-MSA, which has a constant C without a value (recalled, not
checked against the paper); the constants here are of this proof.
Assumption, checked at every iteration that is run: rho is at least c_s. With rho = 0 the method is MSA: the maximum of
H_t is far away, where it says nothing about the risk, and the risk rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whydeep.core import parameters
from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, exact
from whydeep.core.problem import Problem
from whydeep.core.verdict import Prediction
from whydeep.networks.residual import residual_mlp
from whydeep.optimization.hamiltonian import layers_of, maximise, trajectory

Array = NDArray[np.float64]
Controls = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Case:
    """A residual tanh network, and targets that lie near its outputs at the start, so that a far step overshoots.

    error: standard deviation of target less output. terminal: p_T is so many times -grad loss; 1, unless the mechanism
    is damaged. seed: draws everything; the assumption is checked on the iterations that are run.
    """

    width: int = 3
    depth: int = 4
    delta: float = 0.25
    samples: int = 20
    error: float = 0.1
    iterations: int = 4
    rho: float = 20.0
    inner: int = 10
    terminal: float = 1.0
    seed: int = 0


def _problem(case: Case) -> Problem:
    generator = torch.Generator().manual_seed(case.seed)
    model = residual_mlp(case.width, case.depth, delta=case.delta, generator=generator, scale=0.5).double()
    x = torch.randn(case.samples, case.width, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        y = model(x) + case.error * torch.randn(x.shape, dtype=torch.float64, generator=generator)
    return Problem(model, Data(x, y), loss="squared")


@lru_cache(maxsize=8)
def _iterates(case: Case) -> tuple[Tensor, ...]:
    """The parameters at the start and after every iteration: the run that both routes judge."""
    problem = _problem(case)
    model = problem.copy()
    layers = layers_of(model)
    assert isinstance(problem.train.x, Tensor)
    found = [problem.vector()]
    for _ in range(case.iterations):
        path = trajectory(layers, problem.per_sample, problem.train.x, problem.train.targets)
        path = replace(path, costates=tuple(case.terminal * one for one in path.costates))
        for index in range(len(layers)):
            maximise(layers, path, index, rho=case.rho, inner=case.inner)
        found.append(problem.with_model(model).vector())
    return tuple(found)


class _ByHand:
    """States, co-states and Hamiltonians of one iterate, written out in NumPy."""

    def __init__(self, case: Case, iterate: Tensor) -> None:
        problem = _problem(case)
        assert isinstance(problem.train.x, Tensor)
        self.case, self.controls = case, self.split(case, iterate)
        self.states = [problem.train.x.numpy()]
        for control in self.controls:
            self.states.append(self.states[-1] + case.delta * self.active(self.states[-1], control))
        error = self.states[-1] - problem.train.targets.numpy()
        self.risk = float(0.5 * (error**2).sum(1).mean())
        self.costates = [-case.terminal * error]
        for state, control in zip(self.states[-2::-1], self.controls[::-1], strict=True):
            self.costates.insert(0, self.slope(state, self.costates[0], control))

    @staticmethod
    def split(case: Case, iterate: Tensor) -> Controls:
        pieces = iterate.numpy().reshape(case.depth, -1)
        size = case.width**2
        return [(piece[:size].reshape(case.width, case.width), piece[size:]) for piece in pieces]

    @staticmethod
    def active(state: Array, control: tuple[Array, Array]) -> Array:
        found: Array = np.tanh(state @ control[0].T + control[1])
        return found

    def slope(self, state: Array, costate: Array, control: tuple[Array, Array]) -> Array:
        """grad_x of <p, x + delta tanh(W x + b)>."""
        inside = costate * (1 - self.active(state, control) ** 2)
        found: Array = costate + self.case.delta * inside @ control[0]
        return found

    def extended(self, index: int, control: tuple[Array, Array]) -> float:
        """The extended Hamiltonian of layer `index` at another control; zero penalty at its own."""
        state, costate = self.states[index], self.costates[index + 1]
        result = state + self.case.delta * self.active(state, control)
        misfit = ((self.states[index + 1] - result) ** 2).sum(1)
        if index > 0:
            misfit += ((self.costates[index] - self.slope(state, costate, control)) ** 2).sum(1)
        return float(((costate * result).sum(1) - self.case.rho / 2 * misfit).mean())

    def gain(self, following: Controls) -> float:
        """The sum over layers of what the extended Hamiltonian rises by."""
        return sum(
            self.extended(index, new) - self.extended(index, old)
            for index, (new, old) in enumerate(zip(following, self.controls, strict=True))
        )

    def constant(self, following: Controls) -> float:
        """The largest c_s of the step to `following`."""
        depth, delta, rho = self.case.depth, self.case.delta, self.case.rho
        norms = [float(np.linalg.norm(weight, 2)) for weight, _ in following]
        bend = [
            4 / (3 * math.sqrt(3)) * delta * norm**2 * float(np.abs(costate).max())
            for norm, costate in zip(norms, self.costates[1:], strict=True)
        ]
        found = []
        for s in range(depth):
            product, total = 1.0, 0.0
            for t in range(s + 1, depth + 1):
                total += (bend[t] + 1 / rho if t < depth else 1.0) * t * product**2
                product *= 1 + delta * norms[t] if t < depth else 1.0
            found.append(total)
        return max(found)


def _large(case: Case) -> bool:
    if case.rho <= 0:
        return False
    iterates = _iterates(case)
    return all(_ByHand(case, old).constant(_ByHand.split(case, new)) <= case.rho for old, new in pairwise(iterates))


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    iterates = _iterates(case)
    start = _ByHand(case, iterates[0]).risk
    gains = [_ByHand(case, old).gain(_ByHand.split(case, new)) for old, new in pairwise(iterates)]
    # Deterministic, in float64: rounding is of order 1e-16, both sides differ by a hundredth of the risk and more.
    return Prediction(
        "at most", start - sum(gains), trivial=start, constants={"rho": case.rho, "gain": sum(gains), "start": start}
    )


def _measure(case: Case, _generator: torch.Generator) -> Measurement:
    problem = _problem(case)
    model = problem.copy()
    parameters.load(model, _iterates(case)[-1])
    return exact("risk after the iterations", problem.with_model(model).risk(), evaluations=case.iterations)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="With a large rho each iteration of E-MSA lowers the risk by its Hamiltonians' gain; MSA's does not.",
    source="Li, Chen, Tai and E (JMLR 2018), E-MSA; lecture, Discrete EMSA of PMP",
    assumptions={"rho at least the constant of the proof, at every iteration": _large},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # rho = 0 is plain MSA: each layer goes to the maximum of its Hamiltonian, and all together overshoot.
    fails_on=lambda: Case(rho=0.0),
    corrupted=lambda: Case(terminal=3.0),
    convincing=lambda: Case(width=8, depth=5, samples=200, iterations=10, delta=0.2, rho=40.0),
)
