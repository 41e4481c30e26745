"""A student of rectified units that learns from a teacher of the same kind: the exact risk over Gaussian inputs.

F(W) = 1/2 E (sum_i relu(w_i . x) - sum_j relu(v_j . x))^2 for x ~ N(0, I_k), in closed form by
E relu(w.x) relu(v.x) = f(w, v) = |w| |v| (sin t + (pi - t) cos t)/(2 pi), t the angle between w and v
(Cho and Saul 2009): no sample is drawn, so what is found is a property of the risk itself. Though the student can
represent the teacher, F has poor local minima for k = 6, ..., 20 orthonormal teacher units and as many student units
(Safran and Shamir 2018). With one unit it is the dynamics that Tian (2017) studied.

weights are (..., n, k), n units of k inputs, any number of networks at once; teacher is (m, k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.randomness import or_default

_RATES = (0.003, 0.055, 0.126, 0.218, 0.346, 0.455, 0.585, 0.73, 0.736, 0.803, 0.851, 0.897, 0.90, 0.934, 0.94)
PUBLISHED: Mapping[int, float] = dict(zip(range(6, 21), _RATES, strict=True))
"""Share of random starts that end in a poor minimum, by k = n (Safran and Shamir 2018, recalled, not checked against
the paper). The entry of k = 13 is doubtful: .677 of 1,000 and .640 of 300 starts were found here, both outside the
exact 95 % interval of .73 (.702 to .757 at 1,000). At k = 14 .735 of 1,000 lie inside and .803 of 300, other starts,
outside; all other k from 6 to 20 agree."""

NEAR_GLOBAL = 1e-6
"""A descent whose risk is below this goes to a global minimum: the poor minima found here for k <= 20 have risks above
.011, and towards a global minimum with units to spare the last digits take for ever (F falls as a power of time)."""


def risk(weights: Tensor, teacher: Tensor) -> Tensor:
    """Return F (...,) of `weights` (..., n, k).

    >>> w = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    >>> float(risk(w, -w))  # 1/2 (1/2 + 1/2): opposite units never answer together
    0.5
    """
    own, cross, fixed = (_answers(*pair) for pair in ((weights, weights), (weights, teacher), (teacher, teacher)))
    return 0.5 * own.sum((-1, -2)) - cross.sum((-1, -2)) + 0.5 * fixed.sum()


def gradient(weights: Tensor, teacher: Tensor) -> Tensor:
    """Return dF/dW (..., n, k): sum_j g(w_i, w_j) - sum_j g(w_i, v_j), g = (|v| sin t w/|w| + (pi - t) v)/(2 pi).

    A unit w_i = 0 has no direction; its gradient is not defined, and the first term is taken as zero there.
    """
    return _pull(weights, weights) - _pull(weights, teacher)


def hessian(weights: Tensor, teacher: Tensor) -> Tensor:
    """Return the second derivatives of F, (..., n k, n k), unit after unit.

    With u = w/|w|, v' = v/|v|, p the unit vector of v' - cos t u, q that of u - cos t v':
    dg/dw = |v| sin t/(2 pi |w|) (I - u u^T + p p^T),  dg/dv = ((pi - t) I + sin t (u v'^T + p q^T))/(2 pi),
    both continuous at t = 0 and pi. Derived for this library; the tests hold it against differences of the gradient.
    """
    *batch, n, k = weights.shape
    identity = torch.eye(k, dtype=weights.dtype, device=weights.device)
    straight, cross = _second(weights, weights)
    towards, _ = _second(weights, teacher)
    eye = torch.eye(n, dtype=weights.dtype, device=weights.device)[..., None, None]
    # f(w, w) = |w|^2/2, so that a unit's term with itself, 1/2 f(w, w), has second derivative I/2.
    own = 0.5 * identity + (straight * (1 - eye)).sum(-3) - towards.sum(-3)
    blocks = cross * (1 - eye) + own.unsqueeze(-3) * eye
    return blocks.transpose(-3, -2).reshape(*batch, n * k, n * k)


def _angles(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return lengths (..., n, 1) and (..., 1, m) and angles (..., n, m)."""
    tiny = torch.finfo(one.dtype).tiny
    lengths = one.norm(dim=-1, keepdim=True).clamp_min(tiny)
    others = other.norm(dim=-1).unsqueeze(-2).clamp_min(tiny)
    cosine = (one / lengths) @ (other / others.transpose(-1, -2)).transpose(-1, -2)
    return lengths, others, torch.arccos(cosine.clamp(-1, 1))


def _answers(one: Tensor, other: Tensor) -> Tensor:
    lengths, others, angle = _angles(one, other)
    return lengths * others * (torch.sin(angle) + (math.pi - angle) * torch.cos(angle)) / (2 * math.pi)


def _pull(one: Tensor, other: Tensor) -> Tensor:
    lengths, others, angle = _angles(one, other)
    along = (others * torch.sin(angle)).sum(-1, keepdim=True)
    return (along * one / lengths + (math.pi - angle) @ other) / (2 * math.pi)


def _second(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return dg/dw and dg/dv for every pair, (..., n, m, k, k)."""
    lengths, others, angle = (value.unsqueeze(-1).unsqueeze(-1) for value in _angles(one, other))
    u = (one / one.norm(dim=-1, keepdim=True)).unsqueeze(-2)
    v = (other / other.norm(dim=-1, keepdim=True)).unsqueeze(-3)
    sine, cosine = torch.sin(angle), torch.cos(angle)
    safe = sine.squeeze(-1).clamp_min(1e-150)  # where it is zero the vector is multiplied by zero afterwards
    p, q = (v - cosine.squeeze(-1) * u) / safe, (u - cosine.squeeze(-1) * v) / safe
    identity = torch.eye(one.shape[-1], dtype=one.dtype, device=one.device)
    outer = p.unsqueeze(-1) * p.unsqueeze(-2)
    plane = u.unsqueeze(-1) * u.unsqueeze(-2)
    crossed = u.unsqueeze(-1) * v.unsqueeze(-2) + p.unsqueeze(-1) * q.unsqueeze(-2)
    straight = others * sine / (2 * math.pi * lengths) * (identity - plane + outer)
    return straight, ((math.pi - angle) * identity + sine * crossed) / (2 * math.pi)


@dataclass(frozen=True)
class Descent:
    """Where gradient descent on F ended, one entry a start.

    weights: (b, n, k). risk, gradient_norm: (b,). curvature: (b,), the least eigenvalue of the Hessian at a poor end
    that was reached, NaN elsewhere. steps: (b,) of gradient descent. step: their size.
    """

    weights: Tensor
    risk: Tensor
    gradient_norm: Tensor
    curvature: Tensor
    steps: Tensor
    tolerance: float

    @property
    def fitted(self) -> Tensor:
        """(b,) bool: went to a global minimum."""
        return self.risk <= NEAR_GLOBAL

    @property
    def poor(self) -> Tensor:
        """(b,) bool: ended in a strict local minimum that is not global, by gradient, curvature and risk."""
        return (self.gradient_norm <= self.tolerance) & (self.curvature > 0) & ~self.fitted

    @property
    def unfinished(self) -> Tensor:
        """(b,) bool: neither, the steps were spent; never counted as a minimum."""
        return ~self.fitted & ~self.poor


def xavier(starts: int, units: int, inputs: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return random weights (starts, units, inputs), normal with variance 2/(units + inputs)."""
    drawn = torch.randn(starts, units, inputs, generator=or_default(generator), dtype=torch.float64)
    return drawn * math.sqrt(2 / (units + inputs))


def descend(
    starts: Tensor, teacher: Tensor, *, step: float | None = None, most: int = 50_000, tolerance: float = 1e-11
) -> Descent:
    """Follow gradient descent on F from every start until each has reached a minimum.

    starts: (b, n, k). step: 2.5/n by default. most: steps a start at most. A start is done when its risk is below
    `NEAR_GLOBAL`, or when at a positive definite Hessian Newton's method, begun where |grad F| < 1e-3 and kept only if
    it moves by less than 5 % of the weights and lowers the risk, brings |grad F| below `tolerance`. Newton only saves
    the last digits, linear convergence of gradient descent that would end in the same point. Done starts leave the
    batch. Raises `ValueError` on shapes that do not fit and steps that are not positive.
    """
    if starts.ndim != 3 or teacher.ndim != 2 or starts.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"starts are {tuple(starts.shape)}, the teacher {tuple(teacher.shape)}; give (starts, units, k) and (m, k)"
        )
    step = 2.5 / starts.shape[1] if step is None else step
    if not step > 0 or most < 1:
        raise ValueError(f"step={step}, most={most}; give both above zero")
    weights, moving = starts.clone(), starts.clone()
    alive = torch.arange(len(starts))
    curvature = torch.full((len(starts),), math.nan, dtype=starts.dtype)
    steps = torch.full((len(starts),), most)
    for done in range(most + 1):
        slope = gradient(moving, teacher)
        if done % 100 == 0 or done == most:
            fitted = risk(moving, teacher) <= NEAR_GLOBAL
            near = (slope.flatten(1).norm(dim=1) < 1e-3) & ~fitted
            ended = fitted.clone()
            if bool(near.any()) and (done % 500 == 0 or done == most):
                polished, least = _polish(moving[near], teacher, tolerance)
                good = least > 0
                positions = near.nonzero().squeeze(1)[good]
                moving[positions] = polished[good]
                curvature[alive[positions]] = least[good]
                ended[positions] = True
            weights[alive] = moving
            steps[alive[ended]] = done
            alive, moving, slope = alive[~ended], moving[~ended], slope[~ended]
            if not len(alive):
                break
        if done < most:
            moving = moving - step * slope
    norms = gradient(weights, teacher).flatten(1).norm(dim=1)
    return Descent(weights, risk(weights, teacher), norms, curvature, steps, tolerance)


def _polish(weights: Tensor, teacher: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the points that Newton's method reaches, and their least curvature, -1 where it was of no use."""
    ends, leasts = [], []
    for start in weights:
        point = start.clone()
        least = -1.0
        before = float(risk(start, teacher))
        for _ in range(8):  # quadratic: 1e-3, 1e-6, 1e-12 and a few to spare
            slope = gradient(point, teacher)
            matrix = hessian(point, teacher)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if int(failed):
                break
            if float(slope.norm()) <= tolerance:
                near = float((point - start).norm()) <= 0.05 * float(start.norm())
                # One rounding of the risk either way.
                if near and float(risk(point, teacher)) <= before + 1e-12:
                    least = float(torch.linalg.eigvalsh(matrix)[0])
                break
            point = point - torch.cholesky_solve(slope.reshape(-1, 1), factor).view_as(point)
        ends.append(point)
        leasts.append(least)
    return torch.stack(ends), torch.tensor(leasts, dtype=weights.dtype)
