"""The lecture's compositional function of eight variables: a binary tree of functions of two variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .checks import at_least, non_negative, standard

Leaves = Literal["shared", "distinct"]
Node = Callable[[Tensor, Tensor], Tensor]


def _wave(a: Tensor, b: Tensor) -> Tensor:
    return torch.sin(2 * (a + b)) * torch.cos(a - b)


def _saddle(a: Tensor, b: Tensor) -> Tensor:
    return torch.tanh(2 * a * b + a - b)


def _mirrored_wave(a: Tensor, b: Tensor) -> Tensor:
    return _wave(a, -b)


def _mirrored_saddle(a: Tensor, b: Tensor) -> Tensor:
    return _saddle(a, -b)


LEAVES: dict[str, tuple[Node, Node, Node, Node]] = {
    "shared": (_wave, _saddle, _wave, _saddle),
    "distinct": (_wave, _saddle, _mirrored_wave, _mirrored_saddle),
}


def tree_function(x: Tensor, *, leaves: Leaves = "shared") -> Tensor:
    """Return f(x) (n,) of x (n, 8): f = g3(g21(h1(x1, x2), h2(x3, x4)), g22(h3(x5, x6), h4(x7, x8))).

    g3 = g21 = h1 = sin(2 (a + b)) cos(a - b) and g22 = h2 = tanh(2 a b + a - b): functions that keep the variance of
    what they are given, where products of many factors lose it.
    leaves "shared": h3 = h1 and h4 = h2, as on the slide, where one leaf function serves several pairs. "distinct":
    h3(a, b) = h1(a, -b) and h4(a, b) = h2(a, -b), four functions (Poggio et al. 2017, recalled, not checked against
    the paper).
    """
    if leaves not in LEAVES:
        raise ValueError(f"leaves={leaves!r}; give one of {', '.join(LEAVES)}")
    if x.ndim != 2 or x.shape[1] != 8:
        raise ValueError(f"x has shape {tuple(x.shape)}; give (n, 8)")
    one, two, three, four = (leaf(x[:, 2 * pair], x[:, 2 * pair + 1]) for pair, leaf in enumerate(LEAVES[leaves]))
    return _wave(_wave(one, two), _saddle(three, four))


def compositional(
    n: int = 2000,
    *,
    leaves: Leaves = "shared",
    permuted: bool = False,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Data:
    """Return x (n, 8) uniform in [-1, 1]^8 and y (n, 1), `tree_function` standardised, plus noise.

    y has mean 0 and sd 1 over the n samples before `noise` times N(0, 1) is added.
    permuted: the columns of x are put in a random order; the name of the data tells which variable of the tree
    (1 to 8) each column holds, so that what is discovered can be compared.
    """
    at_least(2, n=n)
    non_negative(noise=noise)
    generator = or_default(generator)
    x = 2 * torch.rand(n, 8, generator=generator) - 1
    y = standard(tree_function(x, leaves=leaves).unsqueeze(1)) + noise * torch.randn(n, 1, generator=generator)
    name = f"compositional function, {leaves} leaves, noise {noise:g}"
    if permuted:
        order = torch.randperm(8, generator=generator)
        x = x[:, order]
        name += f", columns {' '.join(str(int(variable) + 1) for variable in order)}"
    return Data(x, y, name, bounds=(-1.0, 1.0))
