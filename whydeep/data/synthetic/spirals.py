"""Interleaved spirals in the plane: easy to see, far from linearly separable."""

from __future__ import annotations

import math

import torch

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .checks import at_least, non_negative


def spirals(
    n: int = 1000,
    *,
    arms: int = 2,
    turns: float = 1.5,
    noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> Data:
    """Return x (n, 2): arm c is r (cos a, sin a) with a = 2 pi (turns r + c / arms), plus `noise` times N(0, I).

    The radius is r = sqrt(u), u uniform in [0, 1], so that points thin out little along the arm; the class is the
    arm. Arms are 1 / (arms turns) apart along a ray. Classes differ in size by one at most.
    """
    at_least(2, n=n, arms=arms)
    non_negative(noise=noise, turns=turns)
    generator = or_default(generator)
    y = (torch.arange(n) % arms)[torch.randperm(n, generator=generator)]
    radius = torch.rand(n, generator=generator).sqrt()
    angle = 2 * math.pi * (turns * radius + y / arms)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    x = x + noise * torch.randn(n, 2, generator=generator)
    return Data(x, y, f"{arms} spirals of {turns:g} turns, noise {noise:g}", classes=arms)
