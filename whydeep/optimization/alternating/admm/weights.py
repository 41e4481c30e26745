"""The W-steps of ADMM: sums over all samples, then one solve a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from whydeep.optimization.alternating.gram import steady_factor
from whydeep.optimization.alternating.guard import shares
from whydeep.optimization.alternating.quadratic_blocks import gram, inputs_product
from whydeep.optimization.distributed.group import dealt
from whydeep.optimization.lagrangian.kkt import Lagrangian

from .parts import INNER_CHANGE, INNER_STEPS, Options, Part, curvature, misfit_gradient


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
    factorisation; behind a kink 2 n a b more, and the parts keep U_i where they can (`Part.kept`). The solves are dealt
    out to the processes of the group.
    """
    indices = range(len(weights))
    grams = {} if grams is None else grams
    group = options.group
    products = [_product(lagrangian, parts, weights[index], index) for index in indices]
    own = {index: _gram(lagrangian, parts, index) for index in indices if index not in grams}
    bounds = torch.stack([_bounds(lagrangian, parts, index) for index in indices])
    group.add(products, symmetric=list(own.values()))
    group.maximum(bounds)
    grams.update({0: own[0]} if 0 in own else {})
    curvatures = tuple(
        curvature(layer, -float(low), float(high), options.constant)
        for layer, (low, high) in zip(lagrangian.chain.layers, bounds.tolist(), strict=True)
    )
    # Of a layer with a inputs and b outputs the factorisation is a^3/3 operations, and its use 2 a^2 b.
    owners = dealt([w.shape[1] ** 2 * (w.shape[1] / 3 + 2 * w.shape[0]) for w in weights], group.size)
    solvers: dict[int, Callable[[Tensor, Tensor], Tensor]] = {}
    steps = []
    for index in indices:
        steps.append(torch.empty_like(weights[index]))
        if owners[index] == group.rank:
            matrix = own[index] if index in own else grams[index]
            solve = _solver(lagrangian, index, matrix, curvatures[index], alone=group.size == 1)
            steps[-1] = solve(products[index], weights[index])
            if options.exact:
                solvers[index] = solve
    group.hand_out(steps, owners)
    found = []
    for index, layer in enumerate(lagrangian.chain.layers):
        weight, step = weights[index], steps[index]
        for again in range(INNER_STEPS if options.exact else 1):
            if again:
                product = _product(lagrangian, parts, weight, index)
                group.add([product])
                if index in solvers:
                    step = solvers[index](product, weight)
                group.hand_out([step], [owners[index]])
            if group.size > 1 and not bool(torch.isfinite(step).all()):
                raise ArithmeticError("a step of the weights is not finite")
            if layer.activation.left is not None:
                step = step * _unit_shares(lagrangian, parts, weight, step, index, options)[:, None]
            weight = weight - step
            if float(step.norm()) <= INNER_CHANGE * float(weight.norm()):
                break
        found.append(weight)
    return tuple(found), curvatures


def _solver(
    lagrangian: Lagrangian, index: int, matrix: Tensor, h: float, *, alone: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return (G'A, W) -> the step (beta_i G'A + ridge_i W)(ridge_i I + beta_i h A'A)^-1, for `matrix` A'A.

    Where it cannot be solved the step is NaN, which all processes see; a process alone raises `ArithmeticError`.
    """
    beta, ridge = lagrangian.betas[index], lagrangian.ridges[index]
    try:
        lower = steady_factor(beta * h * matrix, ridge)
    except ArithmeticError:
        if alone:
            raise
        return lambda product, weight: torch.full_like(weight, torch.nan)

    def solve(product: Tensor, weight: Tensor) -> Tensor:
        gradient = beta * product + ridge * weight.double()
        return torch.cholesky_solve(gradient.T, lower).T.to(weight.dtype)

    return solve


def _product(lagrangian: Lagrangian, parts: Sequence[Part], weight: Tensor, index: int) -> Tensor:
    """Return G'A, (outputs, inputs + 1), float64."""
    layer, total = lagrangian.chain.layers[index], torch.zeros_like(weight, dtype=torch.float64)
    for part in parts:
        u = layer.preactivation(weight, part.states[index])
        if layer.activation.left is not None:
            part.keep(index, u)
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


def _unit_shares(
    lagrangian: Lagrangian, parts: Sequence[Part], weight: Tensor, step: Tensor, index: int, options: Options
) -> Tensor:
    """Return how much of its step every unit takes, (outputs,)."""
    layer, beta, ridge = lagrangian.chain.layers[index], lagrangian.betas[index], lagrangian.ridges[index]
    # U and its change are linear in the weights: one product more, however many shares are tried; without memory to
    # keep them two for every share.
    changes = [layer.preactivation(step, part.states[index]) if part.kept is not None else None for part in parts]

    def value_at(share: Tensor) -> Tensor:
        t = share.to(weight.dtype)
        misfit = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        for part, kept in zip(parts, changes, strict=True):
            change = layer.preactivation(step, part.states[index]) if kept is None else kept
            u = torch.addcmul(part.preactivation(layer, weight, index), change, t, value=-1)
            gap = layer.activation.value(u).sub_(part.wanted(index, beta))
            misfit += gap.square_().sum(0, dtype=torch.float64)
        options.group.add([misfit])
        row = weight - t[:, None] * step
        return ridge / 2 * row.square().sum(1, dtype=torch.float64) + beta / 2 * misfit

    zero = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    found = shares(value_at, value_at(zero)).to(weight.dtype)
    for part, change in zip(parts, changes, strict=True):
        if part.kept is not None and change is not None:
            part.kept[index].addcmul_(change, found, value=-1)
    return found
