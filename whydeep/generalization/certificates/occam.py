"""Occam's certificate: a network that can be written in few bits cannot have been fitted to much noise.

Blumer, Ehrenfeucht, Haussler and Warmuth 1987: with a prefix code fixed before the samples, all networks h at once have
P(R(h) > bound(h)) <= delta where each is paid delta 2^-bits(h). So the network may be trained on the very samples that
are counted. The description here is a random subspace of the weights (Li et al. 2018; Lotfi et al. 2022) in which each
weight moves with one shared coordinate (hashed weights, Chen et al. 2015), and the coordinates as quantised integers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whydeep.core import parameters
from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Solver
from whydeep.generalization.fresh_weights import fresh_weights
from whydeep.generalization.risk import mistakes

from .certificate import Certificate, guessing, shares
from .heldout import heldout_certificate
from .inversion import binomial_tail_inverse, check_delta, kl_inverse
from .prefix_code import decode, encode, number

ASSUMPTIONS = (
    "the training samples are independent draws of the distribution that the risk is about",
    "architecture, initial weights, subspace and code were fixed without them",
)
DIMENSIONS = (50, 100, 200, 400)
"""Sizes of the subspace that are tried; two bits say which."""
STEPS = tuple(2.0 ** (3 - k / 2) for k in range(8))
"""Quantisation steps that are tried, in units of a layer's root mean square initial weight; three bits say which."""


@dataclass(frozen=True)
class Subspace:
    """Weights start_i + unit_i sign_i v[which_i], i = 1..p, of `model` for a coordinate vector v.

    start: fresh initial weights; unit: root mean square of their tensor; which, sign: drawn once. All are fixed by
    a generator that has seen no data. model stays in evaluation mode, so that its buffers never change; notes: of
    those that are the given network's.
    """

    model: nn.Module
    start: Tensor
    unit: Tensor
    which: Tensor
    sign: Tensor
    notes: tuple[str, ...] = ()

    def weights(self, coordinates: Tensor) -> Tensor:
        """Return the weights (p,) at `coordinates` (k,)."""
        return self.start + self.unit * self.sign * coordinates[self.which]

    def network(self, coordinates: Tensor) -> nn.Module:
        """Return the network at `coordinates`, in evaluation mode."""
        made = copy.deepcopy(self.model)
        parameters.load(made, self.weights(coordinates))
        return made

    def read(self, code: str) -> nn.Module:
        """Return the network that `written` wrote: the decoder of the code that is paid for."""
        bits = iter(code)
        size, step = DIMENSIONS[number(bits, 2)], STEPS[number(bits, 3)]
        integers = torch.tensor(decode(bits, size), dtype=self.start.dtype, device=self.start.device)
        return _of_size(self, size).network(step * integers)


class _Trainable(nn.Module):
    """The subspace as a network whose only parameters are the coordinates, so that any solver can train it."""

    subspace: Subspace

    def __init__(self, subspace: Subspace, size: int) -> None:
        super().__init__()
        # A dataclass is no module, so its network is not registered: its weights are no parameters of this one, and
        # it stays in evaluation mode.
        self.subspace = _of_size(subspace, size)
        self.coordinates = nn.Parameter(torch.zeros(size, dtype=subspace.start.dtype, device=subspace.start.device))

    def forward(self, x: Tensor) -> Tensor:
        space = self.subspace
        named = parameters.unflatten(space.weights(self.coordinates), parameters.named(space.model))
        output: Tensor = functional_call(space.model, named, (x,))
        return output


def subspace(model: nn.Module, *, generator: torch.Generator) -> Subspace:
    """Return a random subspace around fresh initial weights of a copy of `model`; its present weights do not matter.

    Raises `InputError` when some trainable weight is not drawn by a layer's `reset_parameters`.
    """
    fresh = fresh_weights(model, generator=generator)
    size = len(fresh.start)
    which = torch.randint(2**40, (size,), generator=generator)
    sign = 2 * torch.randint(2, (size,), generator=generator).to(fresh.start.dtype) - 1
    device = fresh.start.device
    return Subspace(fresh.model, fresh.start, fresh.unit, which.to(device), sign.to(device), fresh.notes)


def _of_size(space: Subspace, size: int) -> Subspace:
    """The subspace of `size` dimensions: every weight moves with the coordinate of its number modulo size."""
    return replace(space, which=space.which % size)


def written(coordinates: Tensor, step: float) -> str:
    """Return the code of `coordinates` (k,), k in `DIMENSIONS`, rounded to multiples of `step`, of `STEPS`."""
    integers = torch.round(coordinates.double() / step).long().tolist()
    return f"{DIMENSIONS.index(len(integers)):02b}{STEPS.index(step):03b}" + encode(integers)


def occam_bound(k: int, n: int, delta: float, bits: int) -> float:
    """Return the binomial tail inversion at delta 2^-bits; below 1e-290, the kl inversion with its logarithm."""
    share = math.ldexp(delta, -bits)
    if share > 1e-290:
        return binomial_tail_inverse(k, n, share)
    return kl_inverse(k / n, (math.log(1 / delta) + bits * math.log(2)) / n)


def occam_certificate(
    model: nn.Module,
    train: Data,
    solver: Solver,
    *,
    delta: float = 0.05,
    heldout: Data | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Train `model` in random subspaces, write it down, read it back, and certify what was read on its training data.

    bound: the largest risk under which so few mistakes of n have probability delta 2^-bits. Every size of `DIMENSIONS`
    below the number of weights is trained and every step of `STEPS` tried; the code names both, so nothing more is
    paid. Terms: the error; delta; the bits. The baseline is the plain certificate of the same network on `heldout`.
    Raises `InputError` when every training diverges or the weights cannot be drawn anew.
    Cost: four trainings, and 32 passes over the data.
    """
    check_delta(delta)
    generator = or_default(generator)
    space, n = subspace(model, generator=spawn(generator)), len(train)
    best: tuple[float, int, str, nn.Module] | None = None
    for size in [d for d in DIMENSIONS if d < len(space.start)] or [DIMENSIONS[0]]:
        trained = solver.train(Problem(_Trainable(space, size), train), generator=spawn(generator))
        if trained.outcome.diverged:
            continue
        (coordinates,) = (value.detach() for value in trained.model.parameters())
        for step in STEPS:
            code = written(coordinates, step)
            network = space.read(code)
            errors = int(mistakes(network, train).sum())
            bound = occam_bound(errors, n, delta, len(code))
            if best is None or (bound, len(code)) < (best[0], len(best[2])):
                best = bound, errors, code, network
    if best is None:
        raise InputError("every training in a subspace diverged", "give a smaller step size")
    bound, errors, code, network = best
    alone = occam_bound(errors, n, delta, 0)
    baseline = None if heldout is None else heldout_certificate(network, heldout, delta=delta)
    return Certificate(
        bound=bound,
        method="occam",
        n=n,
        delta=delta,
        error=errors / n,
        terms=shares([("error measured", errors / n), ("confidence, ln(1/delta)", alone), ("code length", bound)]),
        assumptions=ASSUMPTIONS,
        errors=errors,
        trivial=guessing(train),
        subject="the network written in a short code",
        classifier=network,
        union=(f"delta / 2^{len(code)}, for all networks that have a code",),
        details={"bits": len(code), "dimensions": DIMENSIONS[int(code[:2], 2)], "step": STEPS[int(code[2:5], 2)]},
        notes=space.notes,
        baseline=None if baseline is None else replace(baseline, subject="the same network"),
    )
