"""What is watched of an ADMM iterate: the augmented Lagrangian and the KKT residuals, summed part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whydeep.optimization.distributed.group import ALONE, Group
from whydeep.optimization.lagrangian.kkt import Lagrangian, State

from .parts import Part


@dataclass(frozen=True)
class Conditions:
    """objective: the augmented Lagrangian. kkt, feasibility: Frobenius norms, of all residuals and of the gaps."""

    objective: float
    kkt: float
    feasibility: float


def conditions(
    lagrangian: Lagrangian, parts: Sequence[Part], weights: Sequence[Tensor], group: Group = ALONE
) -> Conditions:
    """Return the conditions at the samples in `parts` of all processes; `lagrangian.targets` are not read.

    Equal to `Lagrangian.value` and `Lagrangian.residuals` of one state that holds all samples, with sums over parts in
    float64 and memory for one part at a time. Cost: five products a layer, and one message as large as the weights.
    """
    # Ridges belong to the weights and not to a sample: they are added once, at the end.
    bare = (0.0,) * len(weights)
    pulled = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    sums = torch.zeros(3, dtype=torch.float64, device=weights[0].device)
    for part in parts:
        local = replace(lagrangian, targets=part.targets, ridges=bare)
        state = State(tuple(weights), part.states, part.multipliers)
        found = local.residuals(state)
        for total, own in zip(pulled, found.weights, strict=True):
            total += own
        sums += torch.stack([local.value(state).double(), _squares(found.states), _squares(found.feasibility)])
    group.add([*pulled, sums])
    value, by_states, gaps = sums.tolist()
    by_weights = 0.0
    for total, weight, ridge in zip(pulled, weights, lagrangian.ridges, strict=True):
        wide = weight.double()
        value += ridge / 2 * float(wide.square().sum())
        by_weights += float(total.add_(wide, alpha=ridge).square().sum())
    return Conditions(value, math.sqrt(by_weights + by_states + gaps), math.sqrt(gaps))


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(t, dtype=torch.float64).square() for t in tensors]).sum()
