"""Block coordinate descent never increases its objective: every sweep lowers it by what its blocks have moved.

Statement: for the three-splitting objective F of `bcd.three`, any penalties gamma, rho > 0, proximal weight alpha > 0
and any start, a sweep from F_k to F_{k+1} in which V_N, the hidden U_i and the W_i move by D obeys

    F_k - F_{k+1} >= alpha/2 sum ||D||_F^2.

Each step minimises F + alpha/2 ||. - old||^2 over its block with the others held, so its new value of that is at most
the old value of F; the blocks without a proximal term (U_N and the hidden V_i) can only lower F. The sum telescopes.
Source: Zeng, Lau, Lin and Yao, "Global convergence of block coordinate descent in deep learning", ICML 2019, lemma on
sufficient decrease (recalled, not checked against the paper; the argument above is complete).
Assumptions: the blocks are updated in turn, each from the newest values of the others; alpha > 0.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.networks import mlp
from whydeep.optimization.alternating.bcd.three import ThreeSplitting
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import SQUARED


@dataclass(frozen=True)
class Case:
    """A network and Gaussian data; the generator of the check draws both.

    in_turn: whether each block sees the newest values of the others, or all move at once from the old ones.
    slip: the factor by which the steps weigh gamma wrongly; F has the right one.
    """

    widths: tuple[int, ...] = (4, 8, 8, 8, 3)
    activation: str = "relu"
    samples: int = 40
    sweeps: int = 30
    gamma: float = 1.0
    rho: float = 2.0
    alpha: float = 0.5
    in_turn: bool = True
    slip: float = 1.0

    def iteration(self, generator: torch.Generator) -> ThreeSplitting:
        """Return the iteration at the forward pass of a random network, with random targets."""
        network = mlp(self.widths, activation=self.activation, init="he", generator=generator).double()
        chain = Chain.of(network, solver="BCD")
        x, y = (torch.randn(self.samples, d, generator=generator).double() for d in (self.widths[0], self.widths[-1]))
        weights = chain.weights()
        return ThreeSplitting(
            chain,
            SQUARED,
            x=x,
            targets=y,
            weights=weights,
            gamma=self.gamma * self.slip,
            rho=self.rho,
            alpha=self.alpha,
        )


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    return Prediction("at least", 1.0, constants={"alpha": case.alpha, "gamma": case.gamma, "rho": case.rho})


def _objective(case: Case, iteration: ThreeSplitting) -> float:
    """Return F from the blocks alone, as it is printed."""
    u, v = iteration.preactivations, iteration.states
    total = 0.5 * (v[-1] - iteration.targets).square().sum()
    below = iteration.x
    for index, weight in enumerate(iteration.weights()):
        ones = torch.ones(len(below), 1, dtype=below.dtype)
        total = total + case.rho / 2 * (u[index] - torch.cat([below, ones], 1) @ weight.T).square().sum()
        last = index == len(u) - 1
        inner = u[index] if last else iteration.chain.layers[index].activation.value_and_slope(u[index])[0]
        total = total + case.gamma / 2 * (v[index] - inner).square().sum()
        below = v[index]
    return float(total)


def _proximal_blocks(iteration: ThreeSplitting) -> list[Tensor]:
    return [*iteration.weights(), iteration.states[-1].clone(), *(u.clone() for u in iteration.preactivations[:-1])]


def _all_at_once(iteration: ThreeSplitting) -> None:
    """Update every block from the old values of all others."""
    last = len(iteration.weights()) - 1
    new = copy.deepcopy(iteration)

    def alone() -> ThreeSplitting:
        return copy.deepcopy(iteration)

    (output := alone())._output_step()
    new.states[-1], new.preactivations[-1] = output.states[-1], output.preactivations[-1]
    for index in range(last, -1, -1):
        (by_weight := alone())._weight_step(index)
        new._weights[index] = by_weight._weights[index]
        if index:
            (by_state := alone())._state_step(index)
            new.states[index - 1] = by_state.states[index - 1]
            new.preactivations[index - 1] = by_state.preactivations[index - 1]
    iteration._weights, iteration.states, iteration.preactivations = new._weights, new.states, new.preactivations
    below = [iteration.x, *iteration.states]
    for index, layer in enumerate(iteration.chain.layers):
        forward = layer.preactivation(iteration._weights[index], below[index])
        iteration.residuals[index] = iteration.preactivations[index] - forward


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    iteration = case.iteration(generator)
    least, value, blocks = math.inf, _objective(case, iteration), _proximal_blocks(iteration)
    for _ in range(case.sweeps):
        if case.in_turn:
            iteration.sweep()
        else:
            _all_at_once(iteration)
        new_value, new_blocks = _objective(case, iteration), _proximal_blocks(iteration)
        moved = sum(float((new - old).square().sum()) for new, old in zip(new_blocks, blocks, strict=True))
        gained, bound = value - new_value, case.alpha / 2 * moved
        # A bound of nought, where nothing moves or alpha is 0, is met by every sweep that does not climb.
        least = min(least, gained / bound if bound else math.copysign(math.inf, gained))
        value, blocks = new_value, new_blocks
    return exact(
        "least decrease of a sweep over alpha/2 times the squared movement",
        least,
        method=f"F written out after each of {case.sweeps} sweeps; {value:.3g} at the end",
        evaluations=case.sweeps,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A sweep of block coordinate descent lowers its objective by at least alpha/2 the squared movement.",
    source="Zeng, Lau, Lin and Yao (ICML 2019), sufficient decrease; lecture, block coordinate descent",
    assumptions={
        "blocks are updated in turn": lambda case: case.in_turn,
        "alpha is positive": lambda case: case.alpha > 0,
    },
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Both sides of a penalty move towards each other and pass: the objective goes up.
    fails_on=lambda: Case(in_turn=False, sweeps=5),
    # The steps minimise another function than F and climb on F: by ten times the bound and more for eight seeds.
    corrupted=lambda: Case(slip=0.1),
    convincing=lambda: Case(widths=(20, 40, 40, 40, 40, 40, 5), samples=400, sweeps=60),
)
