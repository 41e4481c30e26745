"""Quadratics above the layer equation: how far a step may trust the linearised activation.

A layer asks for s(u) = c. Its misfit f(u) = 1/2 (s(u) - c)^2 has

    f'(u) = (s(u) - c) s'(u),        f''(u) = s'(u)^2 + (s(u) - c) s''(u),

so for every h >= sup_u f''(u) the quadratic f(v) + f'(v)(u - v) + h/2 (u - v)^2 lies above f and touches it at v.
Minimising it never raises f: this is the linearised step of Zeng, Lin, Yao and Zhou, "On ADMM in deep learning:
convergence and saturation-avoidance" (JMLR 2021; reference recalled, not checked against the paper).

f'' is linear in c, hence sup_u f'' is convex in c, and over an interval of c it is largest at one of the two ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import Polynomial

from .activation import Activation

# Roots and values of the quartics below carry rounding of some 1e-15 of their largest coefficient.
_ROUNDING = 1 + 1e-12


def exact_constant(activation: Activation, low: float, high: float) -> float:
    """Return the least h >= s'^2 + (s - c) s'' for all u and all c in [low, high]; a bound for softplus and SiLU.

    Raises `ValueError` for an activation with a kink, which has none.

    >>> from whydeep.optimization.alternating.activation import TANH
    >>> round(exact_constant(TANH, 0.0, 0.0), 9)  # (1 - t^2)(1 - 3 t^2), largest at t = 0
    1.0
    """
    if activation.left is not None:
        # For c < 0 the misfit has a convex kink at u = 0 (slope 0 on the left, -c > 0 on the right): no quadratic lies
        # above it there, and c = V - Lambda / beta does become negative.
        raise ValueError(f"{activation.name} has a kink, where no quadratic lies above the misfit; guard the step")
    return 1.0 if activation.linear else _CURVATURE[activation.name](low, high)


def published_constant(activation: Activation, low: float, high: float) -> float:
    """Return the constant of the authors' own code, max |c| / 2, raised to the least one where that is too small.

    Their max |c| / 2 is some six times looser than needed at |c| = 1, and for the sigmoid it is no majoriser below
    |c| of about 0.16 (sup f'' >= 1/16 for every c); the guard repairs that. A linear layer keeps its 1.
    """
    least = exact_constant(activation, low, high)
    return least if activation.linear else max(max(abs(low), abs(high)) / 2, least)


CONSTANTS: dict[str, Callable[[Activation, float, float], float]] = {
    "exact": exact_constant,
    "published": published_constant,
}


def _largest(polynomial: Polynomial, low: float, high: float) -> float:
    """Return the maximum over [low, high], up to rounding.

    Real parts of complex roots are only further points of the interval: they cannot raise the maximum.
    """
    stationary = np.clip(np.real(polynomial.deriv().roots()), low, high)
    return float(np.max(polynomial(np.array([low, high, *stationary]))))


def _sigmoid_curvature(low: float, high: float) -> float:
    # s' = s (1 - s), s'' = s (1 - s)(1 - 2 s): f'' = s (1 - s)[s (1 - s) + (s - c)(1 - 2 s)], on [0, 1] the quartic
    #      -c s + (2 + 3 c) s^2 - (5 + 2 c) s^3 + 3 s^4.
    # At s = 1/2 it is 1/16 whatever c. With |s'| <= 1/4 and |s''| <= 1/(6 sqrt 3) it is at most 1/16 + .0962 (1 + |c|).
    return _ROUNDING * max(_largest(Polynomial([0, -c, 2 + 3 * c, -5 - 2 * c, 3]), 0, 1) for c in (low, high))


def _tanh_curvature(low: float, high: float) -> float:
    # t' = 1 - t^2, t'' = -2 t (1 - t^2): f'' = (1 - t^2)(1 - 3 t^2 + 2 c t) is on [-1, 1] the quartic
    #     1 + 2 c t - 4 t^2 - 2 c t^3 + 3 t^4.
    # At t = 0 it is 1 whatever c. |t'| <= 1 and |t''| <= 4/(3 sqrt 3).
    return _ROUNDING * max(_largest(Polynomial([1, 2 * c, -4, -2 * c, 3]), -1, 1) for c in (low, high))


def _softplus_curvature(low: float, high: float) -> float:
    # With p = sigmoid(u): s' = p, s'' = p (1 - p) in (0, 1/4], s = -log(1 - p), so
    # f'' = [p^2 - p (1 - p) log(1 - p)] - c s''. The bracket is at most 1.04534 (at p = 0.957, by a fine grid), and
    # -c s'' at most max(0, -c)/4.
    return 1.0454 + max(0.0, -low) / 4


def _silu_curvature(low: float, high: float) -> float:
    # s = u p, s' = p + u p (1 - p), s'' = p (1 - p)(2 + u (1 - 2 p)) in [-0.03692, 1/2]. By a fine grid
    # s'^2 + s s'' is at most 1.29512 (beyond |u| = 40 it is within 1e-15 of 0 or 1), and -c s'' is largest at an end
    # of both intervals.
    return 1.2952 + max(-c * second for c in (low, high) for second in (-0.037, 0.5))


_CURVATURE: dict[str, Callable[[float, float], float]] = {
    "sigmoid": _sigmoid_curvature,
    "silu": _silu_curvature,
    "softplus": _softplus_curvature,
    "tanh": _tanh_curvature,
}
