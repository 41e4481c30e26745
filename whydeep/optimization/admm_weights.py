"""The W-steps of ADMM: sums over all samples, then one solve a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .admm_parts import INNER_CHANGE, INNER_STEPS, Options, Part, alone, curvature, misfit_gradient
from .gram import steady_factor
from .guard import shares
from .lagrangian import Lagrangian
from .quadratic_blocks import gram, inputs_product


def weight_steps(
    lagrangian: Lagrangian,
    parts: Sequence[Part],
    weights: Sequence[Tensor],
    options: Options,
    *,
    grams: dict[int, Tensor] | None = None,
) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
    """Return every new W_i and the curvature h of its layer, both from the old states and multipliers only.

    With A = [V_{i-1}, 1], W_i is the minimiser of

        ridge_i/2 ||W||^2 + beta_i (<G' A, W - W_old> + h/2 ||(W - W_old) A'||^2).

    grams: the A'A that do not change, by index; those of the samples are kept there.
    Cost for a layer of a inputs and b outputs: n a (4 b + a) operations, the n a^2 of them in float64 for A'A, and one
    factorisation; behind a kink 4 n a b more.
    """
    indices = range(len(weights))
    grams = {} if grams is None else grams
    products = [_product(lagrangian, parts, weights[index], index) for index in indices]
    own = {index: _gram(lagrangian, parts, index) for index in indices if index not in grams}
    bounds = torch.stack([_bounds(lagrangian, parts, index) for index in indices])
    _reduce(options, [*products, *own.values()], bounds)
    grams.update({0: own[0]} if 0 in own else {})
    found, curvatures = [], []
    for index, layer in enumerate(lagrangian.chain.layers):
        h = curvature(layer, -float(bounds[index, 0]), float(bounds[index, 1]), options.constant)
        beta, ridge = lagrangian.betas[index], lagrangian.ridges[index]
        weight, product = weights[index], products[index]
        hessian = beta * h * (own[index] if index in own else grams[index])
        lower = steady_factor(hessian, ridge)
        for again in range(INNER_STEPS if options.exact else 1):
            if again:
                product = _product(lagrangian, parts, weight, index)
                _reduce(options, [product], bounds)
            gradient = beta * product + ridge * weight.double()
            step = torch.cholesky_solve(gradient.T, lower).T.to(weight.dtype)
            if layer.activation.left is not None:
                step = step * _unit_shares(lagrangian, parts, weight, step, index, options)[:, None]
            weight = weight - step
            if float(step.norm()) <= INNER_CHANGE * float(weight.norm()):
                break
        found.append(weight)
        curvatures.append(h)
    return tuple(found), tuple(curvatures)


def _product(lagrangian: Lagrangian, parts: Sequence[Part], weight: Tensor, index: int) -> Tensor:
    """Return G'A, (outputs, inputs + 1), float64."""
    layer, total = lagrangian.chain.layers[index], torch.zeros_like(weight, dtype=torch.float64)
    for part in parts:
        u = layer.preactivation(weight, part.states[index])
        gap = misfit_gradient(layer, u, part.wanted(index, lagrangian.betas[index]))
        total += inputs_product(gap, part.states[index], bias=layer.bias)
    return total


def _gram(lagrangian: Lagrangian, parts: Sequence[Part], index: int) -> Tensor:
    """Return A'A, float64."""
    bias = lagrangian.chain.layers[index].bias
    total = gram(parts[0].states[index], bias=bias)
    for part in parts[1:]:
        total += gram(part.states[index], bias=bias)
    return total


def _bounds(lagrangian: Lagrangian, parts: Sequence[Part], index: int) -> Tensor:
    """Return (-min B, max B), float64."""
    ends = [torch.stack(torch.aminmax(part.wanted(index, lagrangian.betas[index]))) for part in parts]
    low, high = torch.stack(ends).double().unbind(1)
    return torch.stack([-low.amin(), high.amax()])


def _reduce(options: Options, tensors: Sequence[Tensor], bounds: Tensor) -> None:
    if options.reduce is alone:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    options.reduce(flat, bounds.view(-1))
    first = 0
    for tensor in tensors:
        tensor.copy_(flat[first : first + tensor.numel()].view_as(tensor))
        first += tensor.numel()


def _unit_shares(
    lagrangian: Lagrangian, parts: Sequence[Part], weight: Tensor, step: Tensor, index: int, options: Options
) -> Tensor:
    """Return how much of its step every unit takes, (outputs,)."""
    layer, beta, ridge = lagrangian.chain.layers[index], lagrangian.betas[index], lagrangian.ridges[index]
    # U and its change are linear in the weights: two products, however many shares are tried.
    through = [
        (layer.preactivation(weight, v), layer.preactivation(step, v), part.wanted(index, beta))
        for part, v in ((part, part.states[index]) for part in parts)
    ]

    def value_at(share: Tensor) -> Tensor:
        t = share.to(weight.dtype)
        misfit = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        for u, change, wanted in through:
            value, _ = layer.activation.value_and_slope(torch.addcmul(u, change, t, value=-1))
            misfit += value.sub_(wanted).square_().sum(0, dtype=torch.float64)
        _reduce(options, [misfit], misfit.new_zeros(1))
        row = weight - t[:, None] * step
        return ridge / 2 * row.square().sum(1, dtype=torch.float64) + beta / 2 * misfit

    zero = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    return shares(value_at, value_at(zero)).to(weight.dtype)
