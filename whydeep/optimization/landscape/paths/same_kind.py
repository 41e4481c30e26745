"""Whether two networks are of one kind: the same weights make them compute the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating

SAMPLES = 128
"""Samples on which the outputs are compared; two activations that agree on all of them differ where no data lie."""


def check_same_kind(first: nn.Module, second: nn.Module, data: Data) -> None:
    """Raise `InputError` unless `first` with the weights of `second` computes on `data` what `second` does.

    Weights and buffers are compared by name and shape, then the outputs of the first 128 samples, in evaluation mode:
    a network of sigmoids has the shapes of one of rectified units. Settings that leave the function as it is, such as
    the probability of dropout, may differ. The message names the first weight, or up to three layers, that differ.
    Neither network is changed. Cost: two forward passes and two copies.
    """
    check_same_shape(first, second)
    if first is second:
        return
    one, other = copy.deepcopy(first), copy.deepcopy(second)
    one.load_state_dict(second.state_dict())
    like = next(one.parameters(), None)
    if like is not None:  # a network in another precision or place is of the same kind
        other = other.to(like)
    x = data.x[torch.arange(min(SAMPLES, len(data)))]
    with evaluating(one), evaluating(other), torch.no_grad(), torch.random.fork_rng(devices=[]):
        mine: Tensor = one(x)
        theirs: Tensor = other(x)
    # The same operations on the same numbers are equal to the bit; written otherwise they differ by roundings.
    tolerance = 1000 * torch.finfo(mine.dtype).eps * max(1.0, float(mine.abs().max()))
    if mine.shape == theirs.shape and torch.allclose(mine, theirs, rtol=0, atol=tolerance, equal_nan=True):
        return
    different = "; ".join(islice(_differences(first, second), 3))
    raise InputError(
        "with the same weights the two networks compute different outputs: "
        + (different or "their layers are alike, so the forward functions differ"),
        "give two networks of one kind",
    )


def check_same_shape(first: nn.Module, second: nn.Module) -> None:
    """Raise `InputError` that names the first weight or buffer in which the two networks differ."""
    one, other = first.state_dict(), second.state_dict()
    for name in [*one, *(name for name in other if name not in one)]:
        if name in one and name in other and one[name].shape == other[name].shape:
            continue
        has = [f"{tuple(state[name].shape)}" if name in state else "none" for state in (one, other)]
        raise InputError(
            f"the two networks differ: {name} has shape {has[0]} in the first and {has[1]} in the second",
            "give two networks of one kind",
        )


def _differences(first: nn.Module, second: nn.Module) -> Iterator[str]:
    """Yield in words how layers of the same name differ: in type, else in a public setting."""
    one, other = dict(first.named_modules()), dict(second.named_modules())
    for name in [*one, *(name for name in other if name not in one)]:
        what = f"layer {name}" if name else "the network"
        if name not in one or name not in other:
            which = "second" if name in other else "first"
            yield f"{what}, {type((one | other)[name]).__name__}, is in the {which} alone"
        elif type(one[name]) is not type(other[name]):
            yield f"{what} is {_shown(one[name])} in the first and {_shown(other[name])} in the second"
        else:
            mine, theirs = _settings(one[name]), _settings(other[name])
            for key in mine:
                if key in theirs and mine[key] != theirs[key]:
                    values = [getattr(value, "__name__", value) for value in (mine[key], theirs[key])]
                    yield f"{what} has {key}={values[0]} in the first and {values[1]} in the second"


def _shown(module: nn.Module) -> str:
    return type(module).__name__ if any(module.children()) else repr(module)


def _settings(module: nn.Module) -> dict[str, object]:
    plain = (bool, int, float, str, tuple)
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and (isinstance(value, plain) or hasattr(value, "__name__"))
    }
