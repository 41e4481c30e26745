"""The step of a pre-activation between what its layer computes and what the state above it wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .activation import Activation
from .kinks import rectifier_proximal
from .majoriser import exact_constant

ITERATIONS = 24


def _silu_second(u: Tensor, s: Tensor, slope: Tensor) -> Tensor:
    p = torch.sigmoid(u)
    return p * (1 - p) * (2 + u * (1 - 2 * p))


# s'' of (u, s, s').
_SECOND: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda u, s, slope: slope * (1 - 2 * s),
    "silu": _silu_second,
    "softplus": lambda u, s, slope: slope * (1 - slope),
    "tanh": lambda u, s, slope: -2 * s * slope,
}


def activation_proximal(
    activation: Activation, wanted: Tensor, *, centre: Tensor, weight: float, start: Tensor
) -> Tensor:
    """Return u that lowers f(u) = 1/2 (s(u) - a)^2 + g/2 (u - b)^2, entry by entry; f(u) <= f(start) to rounding.

    wanted: a. centre: b. weight: g > 0. start: any u, all of the same shape; centre is overwritten.

    Exact for the identity and the rectifiers (`kinks`). A smooth activation starts from the better of `start` and b
    and takes Newton steps f'/f'', f'' = s'^2 + (s - a) s'' + g, or Gauss-Newton's f'/(s'^2 + g) where f'' is small or
    negative; where such a step would raise f the next one is shorter, down to f'/(h + g) with the curvature h of
    `majoriser`, which cannot. It ends where |f'| is below the rounding of its terms for every entry, or after 24 steps.
    Where f is convex (g >= -(s - a) s'' throughout: for the sigmoid and |a| <= 1 every g >= 0.2) that is the minimiser;
    else a stationary point.

    Raises `ArithmeticError` when a is not finite.
    Cost: six passes over the entries for a rectifier; otherwise some twenty a step, over those that have not arrived.

    >>> from whydeep.optimization.alternating.activation import IDENTITY
    >>> a, b = torch.tensor([1.0]), torch.tensor([4.0])
    >>> activation_proximal(IDENTITY, a, centre=b, weight=2.0, start=b)  # (a + g b)/(1 + g)
    tensor([3.])
    """
    if activation.linear:
        return torch.lerp(centre, wanted, 1 / (1 + weight), out=centre)
    if activation.left is not None:
        return rectifier_proximal(wanted, centre, weight, left=activation.left)
    low, high = (float(end) for end in torch.aminmax(wanted))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ArithmeticError("a hidden state is not finite")
    bound = exact_constant(activation, low, high) + weight
    # Terms of f' are some s, a and g (u - b); a hundred roundings of the larger ones is as small as it gets.
    limit = 100 * torch.finfo(wanted.dtype).eps * (1 + max(abs(low), abs(high))) * (1 + weight)
    a, b = wanted.reshape(-1), centre.reshape(-1)
    at_start, at_centre = (_Point.at(activation, u.reshape(-1), a, b, weight) for u in (start, centre))
    best = at_start.where(at_centre.f < at_start.f, at_centre)
    result, shorter = best.u.clone(), torch.ones_like(best.u)
    entries: Tensor | None = None  # None: all; later those that have not arrived
    for _ in range(ITERATIONS):
        gradient = (best.s - a).mul_(best.slope).add_(best.u - b, alpha=weight)
        active = gradient.abs() > limit
        arrived = int(active.numel() - active.sum())
        if arrived == active.numel():
            break
        if arrived > active.numel() // 4:
            chosen = active.nonzero()[:, 0]
            entries = chosen if entries is None else entries[chosen]
            a, b, gradient, shorter, best = a[chosen], b[chosen], gradient[chosen], shorter[chosen], best.take(chosen)
        gauss = best.slope.square().add_(weight)
        newton = (best.s - a).mul_(_SECOND[activation.name](best.u, best.s, best.slope)).add_(gauss)
        # Where f'' is small or negative Newton's step means little; that of Gauss and Newton still goes downhill.
        curvature = torch.where(newton > weight / 4, newton, gauss).mul_(shorter).clamp_(max=bound)
        trial = _Point.at(activation, best.u - gradient / curvature, a, b, weight)
        # Near the minimum f is flat to rounding long before u is exact: an equal value counts as lower.
        lower = trial.f <= best.f * (1 + 8 * torch.finfo(a.dtype).eps)
        best = best.where(lower, trial)
        shorter = torch.where(lower, torch.ones_like(shorter), 8 * shorter)
        if entries is None:
            result.copy_(best.u)
        else:
            result[entries] = best.u
    return result.reshape(wanted.shape)


class _Point(NamedTuple):
    """u with s(u), s'(u) and 2 f(u), all of one shape."""

    u: Tensor
    s: Tensor
    slope: Tensor
    f: Tensor

    @classmethod
    def at(cls, activation: Activation, u: Tensor, a: Tensor, b: Tensor, weight: float) -> _Point:
        s, slope = activation.value_and_slope(u)
        return cls(u, s, slope, (s - a).square_().add_((u - b).square_(), alpha=weight))

    def where(self, other_is_better: Tensor, other: _Point) -> _Point:
        return _Point(*(torch.where(other_is_better, new, old) for new, old in zip(other, self, strict=True)))

    def take(self, entries: Tensor) -> _Point:
        return _Point(*(part[entries] for part in self))
