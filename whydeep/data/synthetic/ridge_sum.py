"""A sum of ridge functions: each term varies in one direction only, and a shallow network is the right form."""

from __future__ import annotations

import math

import torch

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .checks import at_least, non_negative, standard


def ridge_sum(
    n: int = 2000,
    *,
    d: int = 8,
    ridges: int = 20,
    frequency: float = 4.0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Data:
    """Return x (n, d) uniform in [-1, 1]^d and y (n, 1), sum_j cos(frequency u_j'x + b_j) standardised, plus noise.

    The u_j are `ridges` random unit vectors, the b_j uniform in [0, 2 pi]. y has mean 0 and sd 1 over the n samples
    before `noise` times N(0, 1) is added.
    """
    at_least(2, n=n)
    at_least(1, d=d, ridges=ridges)
    non_negative(noise=noise, frequency=frequency)
    generator = or_default(generator)
    x = 2 * torch.rand(n, d, generator=generator) - 1
    directions = torch.nn.functional.normalize(torch.randn(d, ridges, generator=generator), dim=0)
    phases = 2 * math.pi * torch.rand(ridges, generator=generator)
    y = standard(torch.cos(frequency * x @ directions + phases).sum(1, keepdim=True))
    y = y + noise * torch.randn(n, 1, generator=generator)
    return Data(x, y, f"sum of {ridges} ridges in {d} variables, noise {noise:g}", bounds=(-1.0, 1.0))
