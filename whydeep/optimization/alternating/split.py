"""A network split at its layers: what the methods share in which pre-activations and states are variables of their own.

Such a method keeps U_i beside [V_{i-1}, 1] W_i' and V_i beside s(U_i), and starts where all of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.training import Callback, Training
from whydeep.optimization.distributed.checkpoint import Checkpoint
from whydeep.optimization.distributed.memory import check_states

from .chain import Chain
from .proximal import OutputLoss, output_loss, target_rows
from .sweeps import Iteration, Sweeper, train_in_sweeps


class SplitSolver(Sweeper, Protocol):
    """The hyper-parameters of such a method that are read here."""

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the states; None is that of the network's weights."""


def train_split(
    solver: SplitSolver,
    problem: Problem,
    begin: Callable[[Chain, OutputLoss, Tensor, Tensor], Iteration],
    *,
    copies: int,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train a copy of `problem.model` in sweeps (`train_in_sweeps`), in the solver's type of number.

    begin: (chain, loss, samples as rows (n, inputs), targets as float64 rows (n, outputs)) -> the iteration at its
    start. copies: how many numbers it keeps for each sample and unit, for the check of memory before the start.
    Raises `InputError` when the model is no chain, the loss has no proximal map, or there is too little memory.
    """
    name = type(solver).__name__
    loss = output_loss(problem, solver=name)

    def checked(chain: Chain, data: Data) -> Iteration:
        check_states(name, chain, data, copies=copies, dtype=solver.dtype)
        targets = target_rows(data.targets, chain.layers[-1].linear.out_features)
        return begin(chain, loss, chain.rows(data, solver.dtype or chain.dtype), targets)

    return train_in_sweeps(
        solver, problem, checked, name=name, generator=generator, callback=callback, checkpoint=checkpoint
    )


def forward_pass(chain: Chain, weights: Sequence[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return U_1..U_N and V_1..V_N of the forward pass, each (n, width); no two of them share memory.

    >>> from torch import nn
    >>> chain = Chain.of(nn.Sequential(nn.Linear(1, 1, bias=False)))
    >>> (u,), (v,) = forward_pass(chain, [torch.tensor([[2.0]])], torch.tensor([[3.0]]))
    >>> float(u), float(v), u is v
    (6.0, 6.0, False)
    """
    preactivations: list[Tensor] = []
    states = [x]
    for layer, weight in zip(chain.layers, weights, strict=True):
        preactivations.append(layer.preactivation(weight, states[-1]))
        value = layer.activation.value(preactivations[-1])
        # A linear layer gives its argument back, and two blocks must not share their memory.
        states.append(value.clone() if value is preactivations[-1] else value)
    return preactivations, states[1:]


def squares(tensor: Tensor) -> float:
    """Return the sum of squares of (n, m): by rows in the tensor's own type, over rows in float64."""
    return float(torch.linalg.vector_norm(tensor, dim=1).double().square().sum())
