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
    that trains weights which are not on the path, one that lacks weights of the path, and one that is at none of its
    points when something else than its steps has moved the weights. Where nothing else did, another network with these
    weights (their mean) is taken on trust, and so are frozen weights that are not on the
    path. Anything that is no network is taken as it is.
    """
    if not isinstance(model, nn.Module):
        return ()
    everything = list(model.parameters())
    trained = [value for value in everything if value.requires_grad]
    own, present = Counter(path.shapes), Counter(tuple(value.shape) for value in everything)
    copies = int(all(present[shape] >= count for shape, count in own.items()))  # several that vote are a function
    if copies < 1:
        raise InputError(
            "the network lacks weights that are on the path",
            "give the network that was trained; what was made of it otherwise can be given as a function",
        )
    extra = Counter(tuple(value.shape) for value in trained)
    extra.subtract({shape: copies * count for shape, count in own.items()})
    stray = [shape for shape, count in extra.items() if count > 0]
    if stray:
        raise InputError(
            f"the network trains weights of shape {stray[0]} that the path does not have, so it does not pay for them",
            "give all trainable weights to the optimizer, or freeze the others before the start",
        )
    trust = []
    if not (path.passed(trained) or path.passed(everything)):
        if path.strayed:
            raise InputError(
                "the network is at no point of the path, and something else than the path's steps moved its weights",
                "give a copy made after one of the steps, or train by these steps alone",
            )
        trust.append("the network is at no point of the path: that it is made of such points alone is on trust")
    others = sum(value.numel() for value in everything) - copies * sum(map(math.prod, path.shapes))
    if others:
        trust.append(f"{others:,} weights are not on the path: that these samples did not shape them is on trust")
    return tuple(trust)
