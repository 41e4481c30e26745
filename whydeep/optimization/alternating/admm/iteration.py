"""ADMM at work: the iterate of one training, for the loop that all alternating methods share and for looking at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.gram import automatic_ridge
from whydeep.optimization.alternating.majoriser import CONSTANTS
from whydeep.optimization.alternating.proximal import output_loss, target_rows
from whydeep.optimization.alternating.sweeps import data_norm
from whydeep.optimization.distributed.streaming import IN_MEMORY, storage
from whydeep.optimization.lagrangian.kkt import Lagrangian, State

from .monitor import conditions
from .parts import Options, parts_of
from .refit import refitted
from .sweep import sweep_parts

if TYPE_CHECKING:
    from .admm import ADMM


class ADMMIteration:
    """The variables of one training, from the forward pass at the chain's weights and multipliers zero.

    train: the samples of this process. lagrangian: the augmented Lagrangian with its constants. state: the present
    iterate at these samples, which a sweep changes in place.
    """

    def __init__(self, solver: ADMM, problem: Problem, chain: Chain, train: Data) -> None:
        layers, dtype = len(chain.layers), solver.dtype or chain.dtype
        self.group, self._block_size = solver.group, solver.block_size
        self._refits, self._keeps = solver.refit, solver.average
        self._storage = storage(solver.streaming)
        x = self._samples(chain, train, dtype)
        samples = torch.tensor([float(len(x))], dtype=torch.float64, device="cpu")
        self.group.add([samples])
        ridge = solver.ridge
        if isinstance(ridge, str):
            ridge = automatic_ridge(int(samples), classes=train.classes is not None)
        self.lagrangian = Lagrangian(
            chain,
            output_loss(problem),
            self._targets(train.targets, chain.layers[-1].linear.out_features),
            ridges=_by_layer("ridge", ridge, layers),
            betas=_by_layer("beta", solver.beta, layers),
        )
        self.options = Options(
            constant=CONSTANTS[solver.constant],
            exact=solver.update == "exact",
            relaxation=solver.over_relaxation,
            group=self.group,
        )
        self.scale = data_norm(x, self.lagrangian.targets, self.group)
        self._grams: dict[int, Tensor] = {}
        widths = [layer.linear.out_features for layer in chain.layers]
        states, multipliers = (
            tuple(self._storage.empty((len(x), width), dtype, x.device) for width in widths) for _ in range(2)
        )
        weights = chain.weights(dtype)
        self.group.hand_out(weights, [0] * layers)  # drawn on other machines they may differ in their last digits
        self.state = State(weights, (x, *states), multipliers)
        self._parts = parts_of(self.state, self.lagrangian.targets, self._block_size, keep=self._storage is IN_MEMORY)
        self._start(weights)

    def _samples(self, chain: Chain, train: Data, dtype: torch.dtype) -> Tensor:
        """Return V_0; a tensor of the right type is used as it is, others are converted or read block by block."""
        if self._storage is IN_MEMORY or (isinstance(train.x, Tensor) and train.x.dtype == dtype):
            return chain.rows(train, dtype)
        first = chain.layers[0].linear
        x = self._storage.empty((len(train), first.in_features), dtype, first.weight.device)
        for rows, (part, _) in zip(torch.split(x, self._block_size), train.batches(self._block_size), strict=True):
            rows.copy_(chain.flat(part, dtype))
        return x

    def _targets(self, targets: Tensor, outputs: int) -> Tensor:
        if self._storage is IN_MEMORY:
            return target_rows(targets, outputs)
        found = self._storage.empty((len(targets), outputs), torch.float64, targets.device)
        for rows, part in zip(
            torch.split(found, self._block_size), torch.split(targets, self._block_size), strict=True
        ):
            rows.copy_(target_rows(part, outputs))
        return found

    def _start(self, weights: tuple[Tensor, ...]) -> None:
        self.state = replace(self.state, weights=weights)
        self._shown = self._mean = weights
        self._averaged: tuple[Tensor, ...] | None = None
        for part in self._parts:
            for index, layer in enumerate(self.lagrangian.chain.layers):
                u = layer.preactivation(weights[index], part.states[index])
                part.states[index + 1].copy_(layer.activation.value(u))
                part.multipliers[index].zero_()

    def sweep(self) -> None:
        """Update every W_i, V_i and Lambda_i once; raises `ArithmeticError` where a step breaks down."""
        weights = sweep_parts(self.lagrangian, self._parts, self.state.weights, self.options, grams=self._grams)
        self.state = replace(self.state, weights=weights)
        self._shown = self._closed(weights)
        if self._keeps:
            pairs = zip(weights, self._mean, strict=True)
            self._mean = tuple(torch.lerp(new, mean, self._keeps) for new, mean in pairs)
            self._averaged = self._closed(self._mean)

    def _closed(self, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the weights with the last layer refitted, where the solver asks for that."""
        return refitted(self.lagrangian, self._parts, weights, self.options) if self._refits else weights

    def weights(self) -> tuple[Tensor, ...]:
        """Return the present W_1..W_N, the last one refitted where the solver asks for that."""
        return self._shown

    def averaged(self) -> tuple[Tensor, ...] | None:
        """Return the mean of the iterates' weights, the last one refitted likewise; None at a start or without one."""
        return self._averaged

    def monitor(self) -> dict[str, float]:
        """Return the augmented Lagrangian and the residuals of the KKT conditions, relative to [X, 1, Y]."""
        found = conditions(self.lagrangian, self._parts, self.state.weights, self.group)
        return {
            "objective": found.objective,
            "kkt": found.kkt / self.scale,
            "feasibility": found.feasibility / self.scale,
        }

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        """Start again from the forward pass at `weights`, multipliers zero, with all beta doubled."""
        # A larger penalty keeps states and weights closer to where the layers agree: the method moves more slowly.
        self.lagrangian = replace(self.lagrangian, betas=tuple(2 * beta for beta in self.lagrangian.betas))
        self._start(weights)
        return True


def _by_layer(name: str, value: float | tuple[float, ...], layers: int) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,) * layers
    if len(values) != layers:
        raise ValueError(f"{name} has {len(values)} entries for {layers} layers; give one each, or one number for all")
    return tuple(float(one) for one in values)  # numpy's are of their own types
