"""Saturated units and updates by layer in any network, read from its modules.

A unit is saturated for a sample when its activation is flat there, |s'(u)| < 1 % of the largest slope that s has
anywhere: the chain rule then passes on less than a hundredth of what it could. What the lecture calls vanishing
gradients shows as layers that move less and less towards the input.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs

from .gradient_flow import weight_layers

FLAT = 0.01
"""An activation counts as saturated where its slope is below this fraction of its largest."""

Steepest = Callable[[Any], float | Tensor]

LARGEST: Mapping[type[nn.Module], Steepest | None] = {
    nn.CELU: lambda s: 1.0,  # e^(u/alpha) below 0
    nn.ELU: lambda s: max(1.0, abs(s.alpha)),  # alpha e^u below 0
    nn.GELU: None,
    nn.Hardshrink: lambda s: 1.0,
    nn.Hardsigmoid: lambda s: 1 / 6,
    nn.Hardswish: lambda s: 1.5,  # (2u + 3)/6 up to u = 3
    nn.Hardtanh: lambda s: 1.0,  # between its ends, wherever they are
    nn.LeakyReLU: lambda s: max(1.0, abs(s.negative_slope)),
    nn.LogSigmoid: lambda s: 1.0,  # towards -infinity
    nn.Mish: None,
    nn.PReLU: lambda s: s.weight.detach().abs().clamp_min(1.0),  # one of every channel, or one
    nn.ReLU: lambda s: 1.0,
    nn.ReLU6: lambda s: 1.0,
    nn.RReLU: lambda s: max(1.0, abs(s.lower + s.upper) / 2),  # in evaluation mode
    nn.SELU: lambda s: 1.0507009873554805 * 1.6732632423543772,  # scale times alpha, below 0
    nn.SiLU: None,
    nn.Sigmoid: lambda s: 0.25,
    nn.Softplus: lambda s: 1.0,  # towards infinity, whatever its beta
    nn.Softshrink: lambda s: 1.0,
    nn.Softsign: lambda s: 1.0,
    nn.Tanh: lambda s: 1.0,
    nn.Tanhshrink: lambda s: 1.0,  # tanh^2, far out
    nn.Threshold: lambda s: 1.0,
}
"""sup |s'| by the activation's own constants, or None where it is to be searched.

The keys are the activations that act on each entry by itself, so that a slope a unit is defined; subclasses count.
"""

ELEMENTWISE = tuple(LARGEST)

JOINT = (nn.GLU, nn.LogSoftmax, nn.Softmax, nn.Softmax2d, nn.Softmin)
"""Activations whose outputs depend on several inputs each: a unit has no slope of its own."""


@dataclass(frozen=True)
class Saturation:
    """Of the activation module `name`: share of its values (units, positions and samples together) that are flat."""

    name: str
    kind: str
    share: float


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """Return the elementwise activation modules by name; what a network applies as a function is not among them."""
    return {name or type(m).__name__: m for name, m in model.named_modules() if isinstance(m, ELEMENTWISE)}


def unjudged(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the activation modules for which a saturated unit is not defined; see `JOINT`."""
    return {name or type(m).__name__: m for name, m in model.named_modules() if isinstance(m, JOINT)}


def saturation(model: nn.Module, data: Data, *, batch_size: int = 2048) -> tuple[Saturation, ...]:
    """Return the share of saturated values of every activation module, in the order in which they run.

    share = 1/(n m) #{ (i, j) : |s'(u_ij)| < 0.01 sup |s'| } over samples i and the m values j of a sample; for ReLU the
    share of values that are off. In evaluation mode, on a private copy; a module that runs several times counts all its
    runs. What it cannot judge is left out: activations that are functions, modules of the user's own that derive from
    none of `ELEMENTWISE`, and those that `unjudged` names. A network that has no others gives an empty tuple.
    Cost: one forward pass, and the slopes of every activation.

    >>> x = torch.tensor([[0.0], [10.0]])  # s'(10) = 4.5e-5 of a largest slope of 1/4
    >>> saturation(nn.Sequential(nn.Sigmoid()), Data(x, x))
    (Saturation(name='0', kind='Sigmoid', share=0.5),)
    """
    model = copy.deepcopy(model)
    found = activations(model)
    names = {id(module): name for name, module in found.items()}
    limits = {name: _steepest(module) for name, module in found.items()}
    flat: dict[str, int] = {}
    total: dict[str, int] = {}

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name, slopes = names[id(module)], _slopes(module, inputs[0])
        largest = limits[name]
        if isinstance(largest, Tensor) and largest.numel() > 1:  # channels are the second dimension
            largest = largest.view(-1, *[1] * (slopes.ndim - 2))
        flat[name] = flat.get(name, 0) + int((slopes.abs() < FLAT * largest).sum())
        total[name] = total.get(name, 0) + slopes.numel()

    handles = [module.register_forward_pre_hook(count) for module in found.values()]
    outputs(model, data, batch_size=batch_size)
    for handle in handles:
        handle.remove()
    return tuple(Saturation(name, type(found[name]).__name__, flat[name] / total[name]) for name in flat)


def _slopes(module: nn.Module, u: Tensor) -> Tensor:
    # A copy, because some activations work in place; `forward`, because a call would run the hooks again.
    leaf = u.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(module.forward(leaf.clone()).sum(), leaf)
    return slopes


def _steepest(module: nn.Module) -> float | Tensor:
    """Return sup |s'|: by `LARGEST`, else over a grid from -12 to 12, step 0.001, and from there to 1e6 by 0.1 %.

    GELU, SiLU and Mish have their largest slope within 3 of nought, where the grid finds it to a relative error below
    1e-6; a subclass with a `forward` of its own may have it anywhere.
    """
    # The nearest kind that it derives from: ReLU6 is a Hardtanh, too.
    kind = max((kind for kind in LARGEST if isinstance(module, kind)), key=lambda kind: len(kind.__mro__))
    known = LARGEST[kind]
    # The weights of PReLU, one a channel, fit no grid.
    if known is not None and (type(module).forward is kind.forward or kind is nn.PReLU):
        return known(module)
    far = torch.logspace(math.log10(12), 6, 11_400, dtype=torch.float64)
    grid = torch.cat([torch.linspace(-12, 12, 24_001, dtype=torch.float64), far, -far])
    like = next(module.parameters(), grid)
    # Where an exponential overflows far out there is no slope.
    return float(_slopes(module, grid.to(like)).abs().nan_to_num(0.0, 0.0, 0.0).max())


def update_sizes(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """Return ||W_after - W_before||_F / ||W_before||_F of every layer with weights, by name, from first to last.

    W are all parameters of two dimensions and more of the layer; its biases do not count. A layer that was zero and is
    no longer has infinity, one that has not moved 0. `before` and `after` are two states of one network.
    Raises `ValueError` when their layers differ.
    """
    old, new = weight_layers(before), weight_layers(after)
    shapes = [{name: [w.shape for w in _matrices(layer)] for name, layer in both.items()} for both in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError("before and after are two different networks; give two states of one")
    found = {}
    for name, layer in old.items():
        pairs = [(w.double(), v.double()) for w, v in zip(_matrices(layer), _matrices(new[name]), strict=True)]
        if not pairs:  # the weight is computed from other parameters that are no part of the layer
            continue
        moved = math.sqrt(sum(float((v - w).square().sum()) for w, v in pairs))
        length = math.sqrt(sum(float(w.square().sum()) for w, _ in pairs))
        found[name] = moved / length if length > 0 else math.inf if moved > 0 else 0.0
    return found


def _matrices(layer: nn.Module) -> list[Tensor]:
    return [value.detach() for value in layer.parameters() if value.ndim >= 2]
