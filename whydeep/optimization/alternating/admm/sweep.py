"""One sweep of the lecture's Algorithm 1: backward estimation, forward correction, multipliers.

The exact minimisers over W_i and V_i that the slides write have no closed form behind a curved activation. The
published method (Zeng, Lin, Yao and Zhou, JMLR 2021, and the authors' own code; recalled, not checked against the
paper) puts the quadratic of `majoriser` in place of the layer's misfit. With B = V_i - Lambda_i / beta_i the augmented
Lagrangian depends on layer i through beta_i/2 ||s(U_i) - B||^2, and G = (s(U_i) - B) * s'(U_i) is that misfit's
gradient by U_i. A linear layer is its own quadratic: the steps for W_N, V_{N-1} and V_N are the exact minimisers.
Behind a kink no quadratic lies above the misfit. There the quadratic has curvature 1, and a step is shortened until the
true misfit, with the ridge or the distance, does not rise: every unit by itself for W_i, every sample for V_j.

Steps are written as increments, W - (gradient)(Hessian)^-1: equal to the published formulas, one product cheaper, and
without their cancellation of large terms near a solution. Repeated to the end they are the exact minimisation.

The seam for more data than one machine holds. The samples come in parts, each with its own states and multipliers. A
sweep reads every part once for sums (G'A, A'A, bounds of B), solves for all W_i, and then updates every part by itself,
in place. Only the sums see all samples: `Options.group` adds them up over processes, which deal the solves out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whydeep.optimization.distributed.group import Group, dealt
from whydeep.optimization.lagrangian.kkt import Lagrangian, State

from .parts import Constant, Options, Part, parts_of
from .states import response, update_part
from .weights import weight_steps


def sweep_parts(
    lagrangian: Lagrangian,
    parts: Sequence[Part],
    weights: Sequence[Tensor],
    options: Options,
    *,
    grams: dict[int, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Update the states and multipliers of all parts in place and return the new weights.

    1. Every W_i, from the old states and multipliers only, so their order does not matter.
    2. V_1, ..., V_N, each from the new weights and the new states below it, and the old states above it.
    3. Lambda_i + beta_i (s(W_i V_{i-1}) - V_i) at the new weights and states.

    grams: kept from sweep to sweep, the Gram matrix of the samples. `lagrangian.targets` are not read.
    Raises `ArithmeticError` where a step breaks down.
    """
    new, curvatures = weight_steps(lagrangian, parts, weights, options, grams=grams)
    # One response a layer for all parts; the curvature is that of the layer above, from the same B as its W-step.
    responses = _responses(lagrangian, new, curvatures, options.group)
    for part in parts:
        update_part(lagrangian, part, new, responses, options)
    return new


def _responses(
    lagrangian: Lagrangian, weights: Sequence[Tensor], curvatures: Sequence[float], group: Group
) -> list[tuple[Tensor, float]]:
    """Return what `response` does for layers 2..N, each computed by one process and handed to the others."""
    layers = lagrangian.chain.layers[1:]
    owners = dealt(
        [float(layer.linear.weight.numel()) * min(layer.linear.weight.shape) for layer in layers], group.size
    )
    found = []
    for index, (layer, owner) in enumerate(zip(layers, owners, strict=True)):
        above = weights[index + 1]
        if owner == group.rank:
            found.append(response(lagrangian, index, above, curvatures[index + 1])[0])
        else:
            found.append(torch.empty_like(layer.without_bias(above)))
    group.hand_out(found, owners)
    return list(zip(found, curvatures[1:], strict=True))


def sweep(lagrangian: Lagrangian, state: State, options: Options | Constant) -> State:
    """Return the next iterate, in one part and in new memory; a constant alone stands for options with it."""
    whole = Part(
        (state.states[0], *(v.clone() for v in state.states[1:])),
        tuple(multiplier.clone() for multiplier in state.multipliers),
        lagrangian.targets,
    )
    chosen = options if isinstance(options, Options) else Options(constant=options)
    weights = sweep_parts(lagrangian, [whole], state.weights, chosen)
    return State(weights, whole.states, whole.multipliers)


def weight_step(lagrangian: Lagrangian, state: State, index: int, constant: Constant) -> Tensor:
    """Return the new W_{index+1} alone."""
    return weight_steps(
        lagrangian, parts_of(state, lagrangian.targets, len(state.states[0])), state.weights, Options(constant)
    )[0][index]
