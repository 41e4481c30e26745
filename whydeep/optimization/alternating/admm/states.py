"""The V-steps of ADMM and its multipliers, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whydeep.optimization.alternating.chain import Layer
from whydeep.optimization.alternating.guard import shares
from whydeep.optimization.alternating.quadratic_blocks import state_response
from whydeep.optimization.lagrangian.kkt import Lagrangian

from .parts import INNER_CHANGE, INNER_STEPS, Options, Part, misfit_gradient


def update_part(
    lagrangian: Lagrangian,
    part: Part,
    weights: Sequence[Tensor],
    responses: Sequence[tuple[Tensor, float]],
    options: Options,
) -> None:
    """Update V_1, ..., V_N and the multipliers of a part in place, from the new weights.

    Each V_i sees the new states below it and the old ones above it; then Lambda_i grows by beta_i times what is left of
    its constraint. responses: for layers 2..N, see `response`.
    """
    layers, a = lagrangian.chain.layers, options.relaxation
    u = part.preactivation(layers[0], weights[0], 0)
    for index, layer in enumerate(layers):
        beta, old, multiplier = lagrangian.betas[index], part.states[index + 1], part.multipliers[index]
        activated, _ = layer.activation.value_and_slope(u)
        if a != 1:
            activated = torch.lerp(old, activated, a)
        if index + 1 < len(layers):
            new, u = state_step(
                lagrangian,
                part,
                index,
                centre=torch.add(activated, multiplier, alpha=1 / beta),
                weight_above=weights[index + 1],
                response=responses[index],
                exact=options.exact,
            )
        else:
            centre = activated.double() + multiplier.double() / beta
            new = lagrangian.loss.proximal(centre, part.targets, beta)
        old.copy_(new)
        multiplier.add_(activated.sub(old), alpha=beta)
    if part.kept is not None:
        part.kept.clear()


def response(lagrangian: Lagrangian, index: int, weight_above: Tensor, h: float) -> tuple[Tensor, float]:
    """Return (M, h) for `state_step`: M = W (k I + W'W)^-1 with k = beta_j/(beta_{j+1} h), (outputs, width)."""
    matrix = lagrangian.chain.layers[index + 1].without_bias(weight_above)
    pulled, _ = state_response(matrix, lagrangian.betas[index] / (lagrangian.betas[index + 1] * h))
    return pulled.to(matrix.dtype), h


def state_step(
    lagrangian: Lagrangian,
    part: Part,
    index: int,
    *,
    centre: Tensor,
    weight_above: Tensor,
    response: tuple[Tensor, float],
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the new V_j, j = index + 1 < N, and the pre-activation U_{j+1} there.

    With W the weight above without its bias, V_j is the minimiser of

        beta_j/2 ||V - C||^2 + beta_{j+1} (<G W, V - V_old> + h/2 ||(V - V_old) W'||^2).

    centre: C = s(U_j) + Lambda_j/beta_j (n, width). weight_above: the new W_{j+1}.
    response: M = W (k I + W'W)^-1 with k = beta_j/(beta_{j+1} h), and h. As V - C = R and k (k I + W'W)^-1 = I - W'M,

        V_old - V = (beta_j R + beta_{j+1} G W)(beta_j I + beta_{j+1} h W'W)^-1 = R - (R W' - G/h) M.

    Cost: four products of 2 n width outputs operations.
    """
    above, v = lagrangian.chain.layers[index + 1], part.states[index + 1]
    beta, beta_above = lagrangian.betas[index], lagrangian.betas[index + 1]
    matrix, (pulled, h) = above.without_bias(weight_above), response
    wanted = part.wanted(index + 1, beta_above)
    u = part.preactivation(above, weight_above, index + 1)
    for _ in range(INNER_STEPS if exact else 1):
        gap, rest = misfit_gradient(above, u, wanted), v - centre
        step = torch.addmm(rest, torch.sub(rest @ matrix.T, gap, alpha=1 / h), pulled, alpha=-1)
        change = step @ matrix.T
        if above.activation.left is not None:
            share = _sample_shares(above, (rest, step), (u, change, wanted), beta, beta_above)
            step, change = step * share, change * share
        below, v, u = v, v - step, u - change
        if not exact or not _moving(step, below):
            break
    return v, u


def _moving(step: Tensor, v: Tensor) -> bool:
    sizes = torch.linalg.vector_norm(step, dim=1), torch.linalg.vector_norm(v, dim=1)
    return bool((sizes[0] > INNER_CHANGE * sizes[1]).any())


def _sample_shares(
    above: Layer,
    below: tuple[Tensor, Tensor],
    through: tuple[Tensor, Tensor, Tensor],
    beta: float,
    beta_above: float,
) -> Tensor:
    """Return how much of its step every sample takes, (n, 1)."""
    (rest, step), (u, change, wanted) = below, through
    # ||R - t D||^2 - ||R||^2 = t (t ||D||^2 - 2 <R, D>): two sums, however many shares are tried.
    square, along = (
        step.square().sum(1, dtype=torch.float64),
        (rest * step).sum(1, dtype=torch.float64),
    )

    def value_at(share: Tensor) -> Tensor:
        t = share.to(u.dtype)[:, None]
        gap = above.activation.value(torch.addcmul(u, change, t, value=-1)).sub_(wanted)
        misfit = gap.square_().sum(1, dtype=torch.float64)
        return beta / 2 * share * (share * square - 2 * along) + beta_above / 2 * misfit

    zero = torch.zeros(len(u), dtype=torch.float64, device=u.device)
    return shares(value_at, value_at(zero)).to(u.dtype)[:, None]
