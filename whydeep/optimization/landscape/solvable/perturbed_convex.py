"""A convex function, perturbed until it is no longer convex, on which gradient descent still converges.

F(theta) = sum_i theta_i^2 + a sin^2 theta_i. Its second derivative 2 + 2 a cos 2 theta changes sign for a > 1, yet zero
stays the only critical point up to a* = 4.6033..., where theta + a/2 sin 2 theta first vanishes elsewhere. Below a* the
inequality of Polyak and Lojasiewicz, |grad F|^2 >= 2 mu (F - min F), holds with mu > 0 on all of R^d, so that gradient
descent with step 1/L, L = 2 + 2 a, loses a factor 1 - mu/L of the excess at every step: what convexity would give.
Polyak (1963); the example with a = 3 is that of Karimi, Nutini and Schmidt (2016), recalled, not checked against the
paper.
"""

from __future__ import annotations

import math

import torch
from scipy import optimize
from torch import Tensor


def value(theta: Tensor, amplitude: float) -> Tensor:
    """Return F (...,) at theta (..., d).

    >>> half_pi = torch.tensor([math.pi / 2], dtype=torch.float64)
    >>> round(float(value(half_pi, 3.0)) - (math.pi / 2) ** 2, 9)
    3.0
    """
    return (theta.square() + amplitude * theta.sin().square()).sum(-1)


def gradient(theta: Tensor, amplitude: float) -> Tensor:
    """Return dF/dtheta = 2 theta + a sin 2 theta, (..., d)."""
    return 2 * theta + amplitude * (2 * theta).sin()


def smoothness(amplitude: float) -> float:
    """Return L = 2 + 2 a, the largest curvature, at zero; a >= 0."""
    return 2 + 2 * amplitude


def convex(amplitude: float) -> bool:
    """Return whether F is convex: a <= 1."""
    return amplitude <= 1


def critical_amplitude() -> float:
    """Return a*, the amplitude at which a second critical point appears: -1/min_z (sin z)/z, at tan z = z.

    >>> round(critical_amplitude(), 4)
    4.6033
    """
    z = float(optimize.brentq(lambda t: math.sin(t) - t * math.cos(t), math.pi, 1.5 * math.pi, xtol=1e-14))
    return -z / math.sin(z)


def dominance(amplitude: float) -> float:
    """Return the largest mu with F'^2 >= 2 mu F in one dimension, and so in every one; 0 from a* on.

    The ratio F'^2/(2 F) is 2 + 2 a at zero and tends to 2 for large theta; its least value, near theta = 3 pi/4 where
    sin 2 theta = -1, is sought on a grid of 1e-4 up to a + 6 and refined. Beyond that |F'| >= 2 theta - a and
    F <= theta^2 + a leave the ratio above the value at the dip.
    Raises `ValueError` when a < 0.

    >>> dominance(0.0), dominance(5.0)
    (2.0, 0.0)
    """
    if amplitude < 0:
        raise ValueError(f"amplitude={amplitude}; give a number >= 0")
    if amplitude >= critical_amplitude():
        return 0.0

    def ratio(theta: float) -> float:
        slope = 2 * theta + amplitude * math.sin(2 * theta)
        return slope * slope / (2 * (theta * theta + amplitude * math.sin(theta) ** 2))

    grid = torch.arange(1, int((amplitude + 6) * 1e4), dtype=torch.float64) * 1e-4
    slopes = gradient(grid[:, None], amplitude)[:, 0]
    ratios = slopes.square() / (2 * value(grid[:, None], amplitude))
    best = float(grid[int(ratios.argmin())])
    refined = optimize.minimize_scalar(ratio, bounds=(max(best - 1e-4, 1e-9), best + 1e-4), method="bounded")
    return min(2.0, float(ratios.min()), float(refined.fun))


def descend(theta: Tensor, amplitude: float, *, steps: int, step: float | None = None) -> Tensor:
    """Return theta (..., d) after `steps` of gradient descent of size `step`, 1/L by default."""
    step = 1 / smoothness(amplitude) if step is None else step
    for _ in range(steps):
        theta = theta - step * gradient(theta, amplitude)
    return theta
