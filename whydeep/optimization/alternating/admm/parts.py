"""The samples of an ADMM sweep in parts, how its steps are taken, and the misfit of one layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.optimization.alternating.activation import Activation
from whydeep.optimization.alternating.chain import Layer
from whydeep.optimization.alternating.majoriser import exact_constant
from whydeep.optimization.distributed.group import ALONE, Group
from whydeep.optimization.lagrangian.kkt import State

Constant = Callable[[Activation, float, float], float]
"""(activation, least c, largest c) -> curvature of the quadratic; see `majoriser.CONSTANTS`."""

INNER_STEPS = 200
INNER_CHANGE = 1e-7
"""An exact minimisation ends when a step changes a weight matrix, or a sample's state, by this share of its norm."""


@dataclass(frozen=True)
class Options:
    """How the steps are taken.

    constant: curvature of the quadratics. exact: each step is repeated until it no longer moves.
    relaxation: a in a s(U_i) + (1 - a) V_i, which takes the place of s(U_i) in the steps for V_i and Lambda_i.
    group: the processes that hold samples; sums over samples are taken over all of them.
    """

    constant: Constant = exact_constant
    exact: bool = False
    relaxation: float = 1.0
    group: Group = ALONE


@dataclass(frozen=True)
class Part:
    """Some of the samples: V_0..V_N, Lambda_1..Lambda_N and targets, rows each; a sweep overwrites all V but V_0.

    kept: during a sweep the pre-activations behind a kink, by index; None where there is no memory for them.
    """

    states: tuple[Tensor, ...]
    multipliers: tuple[Tensor, ...]
    targets: Tensor
    kept: dict[int, Tensor] | None = None

    def wanted(self, index: int, beta: float) -> Tensor:
        """Return B = V_i - Lambda_i/beta_i for layer i = index + 1."""
        return torch.add(self.states[index + 1], self.multipliers[index], alpha=-1 / beta)

    def keep(self, index: int, preactivation: Tensor) -> None:
        """Keep U_i for the rest of the sweep, if there is memory."""
        if self.kept is not None:
            self.kept[index] = preactivation

    def preactivation(self, layer: Layer, weight: Tensor, index: int) -> Tensor:
        """Return U_i at this weight and the present states: what was kept of it, or the product."""
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        return layer.preactivation(weight, self.states[index])


def parts_of(state: State, targets: Tensor, rows: int, *, keep: bool = True) -> list[Part]:
    """Return the samples of `state` in parts of `rows`, which share its memory; `keep` what a sweep can use again."""
    cuts = [slice(first, first + rows) for first in range(0, len(targets), rows)]
    return [
        Part(
            tuple(v[cut] for v in state.states),
            tuple(m[cut] for m in state.multipliers),
            targets[cut],
            {} if keep else None,
        )
        for cut in cuts
    ]


def misfit_gradient(layer: Layer, preactivation: Tensor, wanted: Tensor) -> Tensor:
    """Return G = (s(U) - B) * s'(U), (n, outputs)."""
    value, slope = layer.activation.value_and_slope(preactivation)
    return value.sub_(wanted).mul_(slope) if not layer.activation.linear else value - wanted


def curvature(layer: Layer, low: float, high: float, constant: Constant) -> float:
    """Return the curvature of the quadratic for B in [low, high]; raises `ArithmeticError` when B is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ArithmeticError("a hidden state or a multiplier is not finite")
    # Behind a kink 1 is the square of the steepest slope: right where no pre-activation changes its side.
    return 1.0 if layer.activation.left is not None else constant(layer.activation, low, high)
