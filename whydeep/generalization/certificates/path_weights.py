"""Whether the weights of a network are a path's own: its certificate pays for nothing else."""

from __future__ import annotations

import math
from collections import Counter

from torch import nn

from whydeep.core.errors import InputError
from whydeep.generalization.risk import Classifier

from .path_sums import Path


def check_weights(path: Path, model: Classifier) -> tuple[str, ...]:
    """Return what remains on trust of `model` being a function of the path; raise `InputError` where it is none.

    A network at a point that the steps left is the path's own, whatever happened to the weights later. Refused: one
    that trains weights which are not on the path (several networks of the path that vote are given as a function), one
    that lacks weights of the path, and one that is at none of its points when something else than its steps has moved
    the weights. On trust: another network made of the path's points (their mean) where nothing else moved the weights;
    that an earlier point than the last was not picked by its errors; frozen weights and buffers, which are not on the
    path; rates that changed; anything that is no network.
    """
    trust = []
    if len(path.rates) > 1:
        trust.append("step size or temperature changed on the path: that the samples did not say when is on trust")
    if not isinstance(model, nn.Module):
        return (*trust, f"that {_name(model)} is made of points of the path alone is on trust")
    everything = list(model.parameters())
    trained = [value for value in everything if value.requires_grad]
    own = Counter(path.shapes)
    if own - Counter(tuple(value.shape) for value in everything):
        raise InputError(
            "the network lacks weights that are on the path",
            "give the network that was trained; what was made of it otherwise can be given as a function",
        )
    stray = Counter(tuple(value.shape) for value in trained) - own
    if stray:
        raise InputError(
            f"the network trains weights of shape {next(iter(stray))} that the path does not have, so it does not pay "
            "for them",
            "give all trainable weights to the optimizer, or freeze the others before the start; several networks of "
            "the path that vote can be given as a function",
        )
    place = path.place(trained) or path.place(everything)
    if place is None and path.strayed:
        raise InputError(
            "the network is at no point of the path, and something else than the path's steps moved its weights",
            "give a copy made after one of the steps, or train by these steps alone",
        )
    if place is None:
        trust.append("the network is at no point of the path: that it is made of such points alone is on trust")
    elif place < path.steps:
        trust.append(
            f"the network is that of step {place:,} of {path.steps:,}: that it was not picked by its errors is on trust"
        )
    others = sum(value.numel() for value in everything) - sum(map(math.prod, path.shapes))
    others += sum(value.numel() for value in model.buffers())
    if others:
        trust.append(f"{others:,} numbers of it are not on the path: that these samples did not shape them is on trust")
    return tuple(trust)


def _name(model: Classifier) -> str:
    return f"the classifier ({getattr(model, '__name__', type(model).__name__)})"
