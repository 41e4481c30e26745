"""Directions and planes in the space of the weights, along which the landscape is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core import parameters
from whydeep.core.errors import InputError
from whydeep.core.numbers import plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.optimization.landscape.spectra.matrix_spectrum import Spectrum


@dataclass(frozen=True)
class Plane:
    """w(a, b) = centre + a first + b second, each (p,); names: of the two axes.

    trajectory: (t, 2), points to be drawn in it, as (a, b). explained: the parts of the trajectory's variation that
    lie along the two directions.
    """

    centre: Tensor
    first: Tensor
    second: Tensor
    names: tuple[str, str]
    trajectory: Tensor | None = None
    explained: tuple[float, float] | None = None

    @property
    def directions(self) -> Tensor:
        """Both directions, (2, p)."""
        return torch.stack([self.first, self.second])


def filter_normalised(problem: Problem, direction: Tensor) -> Tensor:
    """Return `direction` (p,) with every filter as long as that of the network: d_f <- d_f |w_f| / |d_f|.

    A filter is a row of a weight matrix or a kernel of a convolution, all that feeds one unit. Biases and the weights
    of normalisation layers, which have one number a unit, get zero: scaling a unit's input up and its output down
    changes nothing in the function, and this makes it change nothing in the picture (Li et al. 2018).

    >>> from whydeep.core import Data
    >>> data = Data(torch.ones(1, 2), torch.ones(1, 1))
    >>> problem = Problem(torch.nn.Linear(2, 1), data, loss="squared").at(torch.tensor([3.0, 4.0, 1.0]))
    >>> filter_normalised(problem, torch.tensor([0.0, 2.0, 7.0]))
    tensor([0., 5., 0.])
    """
    weights = parameters.named(problem.model)
    scaled = {}
    for name, piece in parameters.unflatten(direction, weights).items():
        weight = weights[name]
        if weight.ndim < 2:
            scaled[name] = torch.zeros_like(piece)
            continue
        rows, lengths = piece.flatten(1), weight.flatten(1).norm(dim=1, keepdim=True)
        own = rows.norm(dim=1, keepdim=True)
        scaled[name] = torch.where(own > 0, rows * (lengths / own), torch.zeros_like(rows)).view_as(piece)
    return parameters.flatten(scaled)


def random_direction(problem: Problem, *, generator: torch.Generator | None = None) -> Tensor:
    """Return a filter-normalised Gaussian direction (p,).

    Drawn from a child of `generator`: a network that was itself drawn from the same seed would else have weights along
    the direction.
    Raises `InputError` when no trainable weight has filters (biases and normalisation only).
    """
    centre = problem.vector()
    draw = torch.randn(len(centre), generator=spawn(or_default(generator)), dtype=centre.dtype).to(centre.device)
    direction = filter_normalised(problem, draw)
    if not float(direction.norm()) > 0:
        raise InputError("no trainable weight has filters of a length above 0", "give a network with weight matrices")
    return direction


def random_plane(problem: Problem, *, generator: torch.Generator | None = None) -> Plane:
    """Return the plane of two filter-normalised Gaussian directions: one unit moves every filter by its own length."""
    generator = or_default(generator)
    first, second = (random_direction(problem, generator=generator) for _ in range(2))
    names = ("first random direction (filter lengths)", "second random direction (filter lengths)")
    return Plane(problem.vector(), first, second, names)


def eigenvector_plane(problem: Problem, seen: Spectrum) -> Plane:
    """Return the plane of the directions of largest and of smallest curvature, each of length 1."""
    largest, smallest = plain(seen.largest, 3), plain(seen.smallest, 3)
    names = (f"along the largest curvature, {largest} (length)", f"along the smallest curvature, {smallest} (length)")
    return Plane(problem.vector(), seen.sharpest, seen.softest, names)


def trajectory_plane(problem: Problem, weights: Sequence[Tensor]) -> Plane:
    """Return the plane through the network that best holds the `weights` (p,) of its training: principal components.

    The differences w_t - w are decomposed without subtracting their mean, so that the plane goes through w; explained
    are the parts of sum_t |w_t - w|^2 along each direction (Li et al. 2018; that random walks, too, seem to lie in few
    dimensions shows Antognini and Sohl-Dickstein 2018). Directions have length 1.

    Raises `InputError` when fewer than two of the weights differ from the network's.
    """
    centre = problem.vector()
    wrong = [tuple(weight.shape) for weight in weights if weight.shape != centre.shape]
    if wrong:
        raise InputError(
            f"a point of the trajectory has shape {wrong[0]} and the network {len(centre)} parameters",
            "give vectors as `Problem.vector` returns them",
        )
    steps = torch.stack([weight.to(centre) - centre for weight in weights]) if weights else centre.new_zeros(0, 1)
    if len(steps) < 2 or torch.linalg.matrix_rank(steps.double() @ steps.double().T) < 2:
        raise InputError(
            f"{len(steps)} weights of a trajectory do not span a plane", "give two or more, at different places"
        )
    _, strengths, right = torch.linalg.svd(steps, full_matrices=False)
    parts = strengths.double().square() / strengths.double().square().sum()
    shown = [
        f"{name} principal direction ({100 * float(part):.0f} % of the variation)"
        for name, part in zip(("first", "second"), parts, strict=False)
    ]
    return Plane(
        centre,
        right[0],
        right[1],
        (shown[0], shown[1]),
        trajectory=(steps @ right[:2].T).double(),
        explained=(float(parts[0]), float(parts[1])),
    )
