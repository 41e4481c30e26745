"""Initial weights that have seen no data: what a prior may be built on when the training samples are those counted."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core import parameters
from whydeep.core.errors import InputError
from whydeep.core.randomness import global_seed


@dataclass(frozen=True)
class Fresh:
    """A copy of a network with new initial weights, in evaluation mode, its buffers as they are initially.

    start: its trainable weights (p,). unit: the root mean square of each one's tensor, or of the whole where that is
    zero, (p,). matrix: which weights belong to tensors of two dimensions or more, (p,) bool.
    """

    model: nn.Module
    start: Tensor
    unit: Tensor
    matrix: Tensor


def fresh_weights(model: nn.Module, *, generator: torch.Generator) -> Fresh:
    """Return a copy of `model` whose layers drew their weights anew; its present weights do not matter.

    Raises `InputError` when some trainable weight is not drawn by a layer's `reset_parameters`.
    """
    fresh = copy.deepcopy(model).eval()
    with torch.no_grad(), global_seed(generator):
        for value in fresh.parameters():
            value.fill_(math.nan)
        for module in fresh.modules():
            # nn.MultiheadAttention has the underscore.
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
    named = parameters.named(fresh)
    left = [name for name, value in fresh.named_parameters() if not bool(torch.isfinite(value).all())]
    if left or not named:
        raise InputError(
            f"the weights {', '.join(left[:5])} cannot be drawn anew" if left else "the network has no weights",
            "build the network of PyTorch's layers, or take method binomial",
        )
    start = parameters.flatten(named).clone()
    whole = float(start.square().mean().sqrt())
    sizes = [float(value.square().mean().sqrt()) or whole for value in named.values()]
    unit = torch.cat([torch.full_like(v.reshape(-1), s) for v, s in zip(named.values(), sizes, strict=True)])
    matrix = torch.cat([torch.full_like(v.reshape(-1), v.ndim >= 2, dtype=torch.bool) for v in named.values()])
    return Fresh(fresh, start, unit, matrix)
