"""The closing step: the output layer fitted to what the layers below it really send."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whydeep.optimization.alternating.gram import steady_factor
from whydeep.optimization.alternating.quadratic_blocks import gram, inputs_product
from whydeep.optimization.lagrangian.kkt import Lagrangian

from .parts import Options, Part


def refitted(
    lagrangian: Lagrangian, parts: Sequence[Part], weights: Sequence[Tensor], options: Options
) -> tuple[Tensor, ...]:
    """Return the weights with the W_N that is best for the squared loss of the network itself.

    During a run W_N fits V_{N-1}, which the layers below reach only once the constraints hold. With V_{N-1} the forward
    pass instead and A = [V_{N-1}, 1] it is the minimiser of

        ridge_N/2 ||W||^2 + 1/2 ||A W' - Y||^2,

    the W_N-step of a feasible point. States and multipliers are not read. Raises `ArithmeticError` where it breaks
    down. Cost: a forward pass, the Gram matrix A'A and one solve.
    """
    last, final = lagrangian.chain.layers[-1], weights[-1]
    product = torch.zeros_like(final, dtype=torch.float64)
    matrix = torch.zeros(final.shape[1], final.shape[1], dtype=torch.float64, device=final.device)
    for part in parts:
        states = part.states[0]
        for layer, weight in zip(lagrangian.chain.layers[:-1], weights[:-1], strict=True):
            states = layer.activation.value(layer.preactivation(weight, states))
        wide = states.double()
        gap = last.preactivation(final.double(), wide) - part.targets
        product += inputs_product(gap, wide, bias=last.bias)
        matrix += gram(states, bias=last.bias)
    options.group.add([product], symmetric=[matrix])
    # An increment, as in the sweep: where the matrix is singular to rounding, a larger shift only shortens it.
    ridge = lagrangian.ridges[-1]
    gradient = product + ridge * final.double()
    step = torch.cholesky_solve(gradient.T, steady_factor(matrix, ridge)).T
    found = [(final.double() - step).to(final.dtype)]
    options.group.hand_out(found, [0])  # the same on all machines to the last digit
    return (*weights[:-1], *found)
