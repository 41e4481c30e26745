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
    kept: the buffers that no layer sets anew, which are those of the network given.
    """

    model: nn.Module
    start: Tensor
    unit: Tensor
    matrix: Tensor
    kept: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What of it is on trust, since a prior must not have seen the samples."""
        if not self.kept:
            return ()
        return (f"buffers kept as they are given: {', '.join(self.kept[:5])}; that no sample shaped them is on trust",)


def fresh_weights(model: nn.Module, *, generator: torch.Generator) -> Fresh:
    """Return a copy of `model` whose layers drew their weights anew; its present weights do not matter.

    Raises `InputError` when some trainable weight is not drawn by a layer's `reset_parameters`.
    """
    fresh = copy.deepcopy(model).eval()
    with torch.no_grad(), global_seed(generator):
        for value in fresh.parameters():
            value.fill_(math.nan)
        _reset(fresh)
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
    return Fresh(fresh, start, unit, matrix, _kept(model))


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        # nn.MultiheadAttention has the underscore.
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()


def _kept(model: nn.Module) -> tuple[str, ...]:
    """Names of the buffers that a reset leaves as they are: looked up on a copy in which they hold nothing sensible."""
    probe = copy.deepcopy(model)
    owners = [(module, name) for module in probe.modules() for name, _ in module.named_buffers(recurse=False)]
    for module, name in owners:
        module._buffers[name] = _nonsense(getattr(module, name))
    with torch.no_grad(), global_seed(torch.Generator()):
        _reset(probe)
    return tuple(name for name, value in probe.named_buffers() if value.numel() and _is_nonsense(value))


def _nonsense(like: Tensor) -> Tensor:
    return torch.full_like(like, math.nan if like.is_floating_point() else 101)


def _is_nonsense(value: Tensor) -> bool:
    return bool((value.isnan() if value.is_floating_point() else value == _nonsense(value)).all())
