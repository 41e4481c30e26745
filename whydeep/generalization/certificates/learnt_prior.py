"""A prior for PAC-Bayes that is trained on a part of the data, and never sees the samples that are counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whydeep.core import parameters
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.randomness import spawn
from whydeep.core.training import Solver

from .gaussian_posterior import Gaussian, around
from .pac_bayes import draw_errors

SCALES = tuple(2.0**-k for k in range(1, 12))
"""Prior scales tried, in units of each layer's root mean square weight."""
TOLERATED = 0.0005
"""By how much a draw's training error may exceed that of the centre: it comes on top of the certificate, where a wide
prior saves a few nats of n at best."""
LOOKED_AT = 10_000
"""Training samples on which that is measured: five draws tell an excess of `TOLERATED` at an error of a percent."""


def learnt_prior(model: nn.Module, train: Data, solver: Solver, *, generator: torch.Generator) -> Gaussian:
    """Return the Gaussian around the network that `solver` trains on `train` from a copy of `model`.

    The scale of each weight is s times the root mean square of its tensor (of the whole network where that is 0), with
    the largest s of `SCALES` at which the training error of five draws exceeds that of the centre by at most
    `TOLERATED` on average: wide, so that moving is cheap. Nothing else than `train` is looked at, so nothing is paid.
    Raises `InputError` when the training diverges.
    Cost: a training, and at most 11 x 5 passes over `LOOKED_AT` samples.
    """
    trained = solver.train(Problem(model, train), generator=spawn(generator))
    if trained.outcome.diverged:
        raise InputError(f"the training of the prior diverged: {trained.outcome.reason}", "give a smaller step size")
    few = train.subsample(LOOKED_AT, spawn(generator))
    units = _units(trained.model)
    centre = around(trained.model, 1e-6 * units)
    base = float(draw_errors(centre, few, draws=1, samples=len(few), generator=spawn(generator)).errors.mean())
    for scale in SCALES:
        prior = around(trained.model, scale * units)
        found = draw_errors(prior, few, draws=5, samples=len(few), generator=spawn(generator)).errors
        if float(found.mean()) <= base + TOLERATED:
            return prior
    return prior


def _units(model: nn.Module) -> Tensor:
    """Return for each weight the root mean square of its tensor, (p,)."""
    named = parameters.named(model)
    if not named:
        raise InputError("the network has no trainable parameters", "give one that has")
    whole = float(parameters.flatten(named).square().mean().sqrt()) or 1.0
    sizes = [torch.full_like(v, float(v.square().mean().sqrt()) or whole) for v in named.values()]
    return torch.cat([size.reshape(-1) for size in sizes])
