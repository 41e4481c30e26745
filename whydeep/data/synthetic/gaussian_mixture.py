"""Gaussian clouds of equal shape: the classes overlap, and the least possible error is known."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import quad
from scipy.linalg import helmert
from scipy.special import ndtr

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .checks import at_least, non_negative


def gaussian_mixture(
    n: int = 2000,
    *,
    d: int = 10,
    classes: int = 2,
    separation: float = 2.0,
    generator: torch.Generator | None = None,
) -> Data:
    """Return n samples x (n, d) of N(m_c, I) with the class c drawn uniformly.

    The means m_c are the corners of a regular simplex around the origin: every two are `separation` apart (in units
    of the noise's standard deviation). No classifier errs less often than `bayes_error(separation, classes)`.
    Raises `ValueError` when d < classes - 1 (the simplex needs so many dimensions) or a size is too small.
    """
    at_least(2, n=n, classes=classes)
    at_least(1, d=d)
    if d < classes - 1:
        raise ValueError(f"d={d} is too small for {classes} means at equal distances; give d >= {classes - 1}")
    non_negative(separation=separation)
    generator = or_default(generator)
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator)
    # The rows of Helmert's matrix are an orthonormal basis of the vectors with sum zero, so its columns are the unit
    # vectors without their mean: distance sqrt(2) of every two.
    means = torch.from_numpy(helmert(classes).T * separation / math.sqrt(2)).float()
    x[:, : classes - 1] += means[y]
    return Data(x, y, f"gaussian mixture, separation {separation:g}", classes=classes)


def bayes_error(separation: float, classes: int = 2) -> float:
    """Return the error of the best classifier on `gaussian_mixture`.

    Two classes: Phi(-separation / 2), with Phi the distribution function of N(0, 1). k classes: the nearest mean is
    best, and it is right with probability E[Phi(Z + separation / sqrt(2))^(k-1)], Z from N(0, 1): turn the simplex
    into the means separation / sqrt(2) e_c; then sample c wins if its own coordinate is the largest.

    >>> round(bayes_error(2.0), 6)
    0.158655
    """
    if classes == 2:
        return float(ndtr(-separation / 2))

    def right(z: float) -> float:
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return density * float(ndtr(z + separation / math.sqrt(2))) ** (classes - 1)

    return 1 - float(quad(right, -np.inf, np.inf, epsabs=1e-12)[0])
