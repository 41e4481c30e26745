"""The step of a pre-activation between what its layer computes and what the state above it wants."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .activation import Activation
from .kinks import rectifier_proximal
from .majoriser import exact_constant

ITERATIONS = 12


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

    wanted: a. centre: b. weight: g > 0. start: any u, all of the same shape; centre and start are overwritten.

    Exact for the identity and the rectifiers (`kinks`). A smooth activation starts from the better of `start` and b
    and takes Newton steps f'/f'', f'' = s'^2 + (s - a) s'' + g, or Gauss-Newton's f'/(s'^2 + g) where f'' is small or
    negative; where such a step would raise f it is shortened, down to f'/(h + g) with the curvature h of `majoriser`,
    which cannot. It ends where |f'| is below the rounding of its terms for every entry, or after 12 steps. Where f is
    convex (g >= -(s - a) s'' throughout: for the sigmoid and |a| <= 1 every g >= 0.2) that is the minimiser; else a
    stationary point.

    Raises `ArithmeticError` when a is not finite.
    Cost: six passes over the entries for a rectifier, some fifteen a step otherwise.

    >>> from whydeep.optimization.activation import IDENTITY
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

    def value(u: Tensor, s: Tensor) -> Tensor:
        return (s - wanted).square_().add_((u - centre).square_(), alpha=weight)  # 2 f

    def slope_of(u: Tensor, s: Tensor, slope: Tensor) -> Tensor:
        return (s - wanted).mul_(slope).add_(u - centre, alpha=weight)

    u = start
    s, slope = activation.value_and_slope(u)
    f = value(u, s)
    s_centre, slope_centre = activation.value_and_slope(centre)
    better = value(centre, s_centre) < f
    u = torch.where(better, centre, u)
    s, slope = torch.where(better, s_centre, s), torch.where(better, slope_centre, slope)
    f = value(u, s)
    # Terms of f' are some s, a and g (u - b); a hundred roundings of the larger ones is as small as it gets.
    limit = 100 * torch.finfo(u.dtype).eps * (1 + max(abs(low), abs(high))) * (1 + weight)
    # Near the minimum f is flat to rounding long before u is exact: an equal value counts as lower.
    same = 1 + 8 * torch.finfo(u.dtype).eps
    for _ in range(ITERATIONS):
        gradient = slope_of(u, s, slope)
        if float(gradient.abs().max()) <= limit:
            break
        gauss = slope.square().add_(weight)
        newton = gauss + (s - wanted).mul_(_SECOND[activation.name](u, s, slope))
        # Where f'' is small or negative Newton's step means little; that of Gauss and Newton still goes downhill.
        curvature = torch.where(newton > weight / 4, newton, gauss)
        for shorter in (1.0, 4.0, 16.0, float("inf")):
            step = (curvature * shorter).clamp_(max=bound)
            trial = u - gradient / step
            new_s, new_slope = activation.value_and_slope(trial)
            new_f = value(trial, new_s)
            lower = new_f <= f * same
            u, f = torch.where(lower, trial, u), torch.where(lower, new_f, f)
            s, slope = torch.where(lower, new_s, s), torch.where(lower, new_slope, slope)
            if bool(lower.all()):
                break
            gradient = torch.where(lower, 0.0, gradient)
    return u
