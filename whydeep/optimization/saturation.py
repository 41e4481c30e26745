"""Saturated units and updates by layer in any network, read from its modules.

A unit is saturated for a sample when its activation is flat there, |s'(u)| < 1 % of the largest slope that s has
anywhere: the chain rule then passes on less than a hundredth of what it could. What the lecture calls vanishing
gradients shows as layers that move less and less towards the input.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs

from .gradient_flow import weight_layers

FLAT = 0.01
"""An activation counts as saturated where its slope is below this fraction of its largest."""

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)
"""Activations that act on each entry by itself, so that a slope a unit is defined; subclasses count."""


@dataclass(frozen=True)
class Saturation:
    """Of the activation module `name`: share of its values (units, positions and samples together) that are flat."""

    name: str
    kind: str
    share: float


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """Return the elementwise activation modules by name; what a network applies as a function is not among them."""
    return {name or type(m).__name__: m for name, m in model.named_modules() if isinstance(m, ELEMENTWISE)}


def saturation(model: nn.Module, data: Data, *, batch_size: int = 2048) -> tuple[Saturation, ...]:
    """Return the share of saturated values of every activation module, in the order in which they run.

    share = 1/(n m) #{ (i, j) : |s'(u_ij)| < 0.01 sup |s'| } over samples i and the m values j of a sample; for ReLU the
    share of values that are off. In evaluation mode, on a private copy; a module that runs several times counts all its
    runs. Networks whose activations are all functions and no modules give an empty tuple.
    Cost: one forward pass, and the slopes of every activation.

    >>> x = torch.tensor([[0.0], [10.0]])  # s'(10) = 4.5e-5 of a largest slope of 1/4
    >>> saturation(nn.Sequential(nn.Sigmoid()), Data(x, x))
    (Saturation(name='0', kind='Sigmoid', share=0.5),)
    """
    model = copy.deepcopy(model)
    found = activations(model)
    names = {id(module): name for name, module in found.items()}
    limits = {name: FLAT * _steepest(module) for name, module in found.items()}
    flat: dict[str, int] = {}
    total: dict[str, int] = {}

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        name, slopes = names[id(module)], _slopes(module, inputs[0])
        flat[name] = flat.get(name, 0) + int((slopes.abs() < limits[name]).sum())
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


def _steepest(module: nn.Module) -> float:
    """Return sup |s'| over a grid from -12 to 12, step 0.001: to a relative error below 1e-5.

    All of these have their largest slope inside, or tend to it: softplus as 1 - e^-u.
    """
    return float(_slopes(module, torch.linspace(-12, 12, 24001, dtype=torch.float64)).abs().max())


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
