"""Walking towards saddles of a chosen index: uphill along the lowest curvatures, downhill along all others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from whydeep.core.problem import Problem

from .dense_hessian import dense_hessian
from .linear_model import bent, second_derivative


def saddle_free_step(values: Tensor, directions: Tensor, gradient: Tensor, *, damping: float, index: int = 0) -> Tensor:
    """Return -sum_i s_i v_i (v_i . g)/(|lambda_i| + damping max_j |lambda_j|), (p,), s_i = -1 for i < index, else 1.

    values: (k,) eigenvalues, ascending where index > 0; directions: (k, p) their vectors, in rows. Where all
    eigenvalues are zero the step is -g/damping. With index 0 it never climbs: its product with g is not positive. With
    index k it climbs along the k lowest curvatures, so that, damping apart, the critical points that attract it are
    those with k downhill directions, and it goes there as Newton's step does.

    >>> g = torch.tensor([1.0, 1.0])
    >>> saddle_free_step(torch.tensor([-0.5, 2.0]), torch.eye(2), g, damping=0.0)
    tensor([-2.0000, -0.5000])
    >>> saddle_free_step(torch.tensor([-0.5, 2.0]), torch.eye(2), g, damping=0.0, index=1)  # -H^-1 g
    tensor([ 2.0000, -0.5000])
    """
    largest = float(values.abs().max())
    divisor = values.abs() + damping * (largest if largest > 0 else 1.0)
    slopes = (directions @ gradient) / divisor
    slopes[:index] *= -1
    return -slopes @ directions


def climb(problem: Problem, index: int, *, tolerance: float, most: int) -> tuple[Problem, int]:
    """Walk by `saddle_free_step` of this index from `problem.model`; return the best place, and the steps taken.

    Best: the shortest gradient among the points whose Hessian has exactly `index` negative eigenvalues; where there was
    none, the last point. A step is at most a tenth as long as the parameters at the start, and bent along valleys as
    `LinearModel.corrected` says; the damping rises where the gradient comes out other than g + H p. Stops at
    |g| <= tolerance or after `most` steps.
    Cost of a step: a dense Hessian, its eigenvalues and two gradients.
    Source: index-k saddle dynamics, Yin, Zhang and Zhang (2019), with steps scaled as by Dauphin et al. (2014);
    recalled, not checked against the papers.
    """
    vector, gradient = problem.vector(), problem.gradient()
    # Parameters that are all zero have no scale of their own.
    reach = 0.1 * (float(vector.norm()) or 1.0)
    damping, steps = 1e-2, 0
    best: tuple[float, Problem] | None = None
    while True:
        hessian = dense_hessian(problem)
        values, vectors = torch.linalg.eigh(hessian)
        length = float(gradient.norm())
        if int((values < 0).sum()) == index and (best is None or length < best[0]):
            best = length, problem
        ended = True
        while length > tolerance and steps < most:
            step = saddle_free_step(values, vectors.T, gradient, damping=damping, index=index)
            step = step * min(1.0, reach / float(step.norm()))
            image = hessian @ step
            second = second_derivative(step, gradient, image, partial(gradient_at, problem, vector))
            step = bent(step, saddle_free_step(values, vectors.T, second, damping=damping, index=index))
            ahead = problem.at(vector + step)
            reached = ahead.gradient()
            steps += 1
            # How far the gradient is from the one foretold, as a part of its length; NaN is as bad as can be.
            off = float((reached - gradient - image).norm()) / length
            if off <= 1 or (damping >= 1 and bool(torch.isfinite(reached).all())):
                ended = False
                break
            damping *= 4
            if damping > 1e8:
                break
        if ended:
            return (problem if best is None else best[1]), steps
        damping = max(damping / 3, 1e-10) if off < 0.3 else min(2 * damping, 1.0) if off > 0.6 else damping
        problem, vector, gradient = ahead, vector + step, reached


def gradient_at(problem: Problem, vector: Tensor, step: Tensor) -> Tensor:
    """Return the gradient (p,) of the risk at the parameters `vector` + `step`."""
    return problem.at(vector + step).gradient()
