"""Walking to where the gradient is shortest nearby: damped Newton steps on its length."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from whydeep.core.problem import Problem

from .climbing import gradient_at
from .dense_hessian import dense_hessian
from .linear_model import LinearModel
from .spectra.hessian import Hessian

FLAT = 1e-2
"""|H g|/(|H| |g|) below which H g counts as zero: no step of first order lowers |g| by more than so little."""

PATIENCE, PROGRESS = 20, 0.99
"""A search whose H g is zero has ended where so many steps did not shorten the gradient to this part."""


@dataclass(frozen=True)
class Shortest:
    """Where the search ended: problem at that place, length |g|, steps and products with vectors that it took."""

    problem: Problem
    length: float
    steps: int
    products: int


def shorten_gradient(problem: Problem, *, tolerance: float, most: int, krylov: int, dense: bool) -> Shortest:
    """Minimise |grad R| from `problem.model` until it is at most `tolerance`, for `most` steps at most.

    Every step minimises |H p + g|^2 + mu |p|^2 and is bent along the valley by the second derivative of the gradient;
    mu falls where |g|^2 falls as the linear model promises and rises where it does not (Levenberg and Marquardt). |g|
    never rises. Ends, too, where no step shortens it or where it is flat (`FLAT`) and `PATIENCE` steps hardly did.
    dense: form H; else the step is sought in a Krylov space of at most `krylov` products.
    Cost of a step: p or `krylov` products and two gradients or four.
    """
    vector, gradient = problem.vector(), problem.gradient()
    lengths, products = [float(gradient.norm())], 0
    damping = 1e-3  # of |H|^2
    while lengths[-1] > tolerance and len(lengths) <= most:
        if dense:
            model = LinearModel.dense(dense_hessian(problem), gradient)
        else:
            hessian = Hessian(problem)
            model = LinearModel.krylov(hessian, gradient, krylov)
            products += hessian.products
        tired = len(lengths) > PATIENCE and lengths[-1] > PROGRESS * lengths[-1 - PATIENCE]
        if tired and float(model.along(gradient).norm()) <= FLAT * model.norm * lengths[-1]:
            break
        while damping < 1e8:
            step, left = model.least(damping)
            step = model.corrected(step, partial(gradient_at, problem, vector), damping)
            moved = problem.at(vector + step)
            ahead = moved.gradient()
            reached = float(ahead.norm())
            promised = max(lengths[-1] ** 2 - left**2, torch.finfo(ahead.dtype).tiny)
            gain = (lengths[-1] ** 2 - reached**2) / promised
            if gain > 0.75:
                damping = max(damping / 10, 1e-20)
            elif not gain > 0.25:  # not a number counts as no gain
                damping *= 4
            if gain > 1e-3:
                break
        else:
            break
        problem, vector, gradient = moved, moved.vector(), ahead
        lengths.append(reached)
    return Shortest(problem, lengths[-1], len(lengths) - 1, products)
