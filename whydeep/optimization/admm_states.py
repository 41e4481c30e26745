"""The V-steps of ADMM and its multipliers, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .admm_parts import INNER_CHANGE, INNER_STEPS, Options, Part, misfit_gradient
from .chain import Layer
from .guard import shares
from .lagrangian import Lagrangian
from .quadratic_blocks import state_response


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
    u = layers[0].preactivation(weights[0], part.states[0])
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
    u = above.preactivation(weight_above, v)
    for _ in range(INNER_STEPS if exact else 1):
        gap, rest = misfit_gradient(above, u, wanted), v - centre
        step = torch.addmm(rest, torch.sub(rest @ matrix.T, gap, alpha=1 / h), pulled, alpha=-1)
        change = step @ matrix.T
        if above.activation.left is not None:
            share = _sample_shares(above, (v, step, centre), (u, change, wanted), beta, beta_above)
            step, change = step * share, change * share
        moving = torch.linalg.vector_norm(step, dim=1, keepdim=True) > INNER_CHANGE * (
            torch.linalg.vector_norm(v, dim=1, keepdim=True)
        )
        v, u = v - step, u - change
        if not exact or not bool(moving.any()):
            break
    return v, u


def _sample_shares(
    above: Layer,
    below: tuple[Tensor, Tensor, Tensor],
    through: tuple[Tensor, Tensor, Tensor],
    beta: float,
    beta_above: float,
) -> Tensor:
    """Return how much of its step every sample takes, (n, 1)."""
    (v, step, centre), (u, change, wanted) = below, through

    def value_at(share: Tensor) -> Tensor:
        t = share.to(v.dtype)[:, None]
        value, _ = above.activation.value_and_slope(u - t * change)
        distance = (v - t * step - centre).square().sum(1, dtype=torch.float64)
        return beta / 2 * distance + beta_above / 2 * (value - wanted).square().sum(1, dtype=torch.float64)

    zero = torch.zeros(len(v), dtype=torch.float64, device=v.device)
    return shares(value_at, value_at(zero)).to(v.dtype)[:, None]
