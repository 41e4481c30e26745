"""Saturation, and how far each layer moves: what the lecture means by gradients that vanish, or do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError

from .activation import Activation
from .chain import Chain

FLAT = 0.01
"""An activation counts as saturated where its slope is below this fraction of its largest."""


def saturation(model: nn.Module, data: Data) -> tuple[float, ...]:
    """Return for each hidden layer the share of pairs (unit, sample) with |s'(u)| < 0.01 max |s'|.

    max |s'| is the activation's own largest slope: 1/4 for the sigmoid, 1 for tanh. For ReLU it is the share of units
    that are off. Cost: one forward pass, in float64.

    Raises `InputError` when the model is no chain of linear layers and activations.

    >>> layer = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 1.0)
    >>> network = nn.Sequential(layer, nn.Sigmoid(), nn.Linear(2, 1))
    >>> saturation(network, Data(torch.tensor([[0.0], [9.0], [-2.0], [-7.0]]), torch.zeros(4, 1)))
    (0.5,)
    """
    chain = Chain.of(model, solver="saturation")
    weights = chain.weights()
    states, shares = chain.rows(data), []
    for layer, weight in zip(chain.layers[:-1], weights, strict=False):
        states, slope = layer.activation.value_and_slope(layer.preactivation(weight, states))
        shares.append(float((slope.abs() < FLAT * _steepest(layer.activation)).double().mean()))
    return tuple(shares)


def _steepest(activation: Activation) -> float:
    # The slope of SiLU is largest at u = 2.3994, those of sigmoid and tanh at 0, softplus's and the rectifiers' is 1.
    at = torch.tensor([0.0, 2.3993572, 50.0], dtype=torch.float64)
    return float(activation.value_and_slope(at)[1].abs().max())


def update_sizes(before: nn.Module, after: nn.Module) -> tuple[float, ...]:
    """Return ||W_after - W_before||_F / ||W_before||_F of every layer, biases included, from input to output.

    A layer that was zero and has moved gives infinity, one that has stayed zero gives 0.

    Raises `InputError` when a model is no chain, or the two have different layers.
    """
    pairs = [Chain.of(model, solver="update_sizes").weights() for model in (before, after)]
    shapes = [[tuple(weight.shape) for weight in weights] for weights in pairs]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the layers have shapes {shapes[0]} before and {shapes[1]} after", "give one network at two times"
        )
    return relative_changes(*pairs)


def relative_changes(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[float, ...]:
    """Return ||after - before||_F / ||before||_F of each pair of matrices; 0/0 is 0."""
    found = []
    for old, new in zip(before, after, strict=True):
        moved, size = float((new - old).norm()), float(old.norm())
        found.append(moved / size if size else math.inf if moved else 0.0)
    return tuple(found)
