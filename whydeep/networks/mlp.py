"""Multilayer perceptrons as plain `nn.Sequential`, with named initialisations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
INITS = ("default", "he", "orthogonal", "xavier")


def mlp(
    widths: Sequence[int],
    *,
    activation: str = "relu",
    init: str = "default",
    gain: float = 1.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return Flatten, Linear, activation, ..., Linear with `widths` (inputs, hidden ..., outputs).

    init: "default" (PyTorch's: uniform +- 1/sqrt(fan_in), biases too), or with zero biases
    "xavier" (normal, std gain sqrt(2 / (fan_in + fan_out)): Glorot and Bengio 2010),
    "he" (normal, std gain sqrt(2 / fan_in): He et al. 2015), "orthogonal" (gain times an orthogonal matrix: Saxe 2014).
    gain: of the layers that an activation follows; the output layer has gain 1. A sigmoid has slope 1/4 at zero, so
    gain 4 keeps the size of signals and gradients.
    generator: for every init but "default"; None draws from PyTorch's global generator, as its own layers do, so that
    each call gives another network (`Subject.fresh` seeds it).

    Raises `ValueError` on an unknown name, a width below 1 or fewer than two widths.

    >>> [tuple(p.shape) for p in mlp((64, 100, 10), activation="sigmoid").parameters()]
    [(100, 64), (100,), (10, 100), (10,)]
    """
    if len(widths) < 2 or any(width < 1 for width in widths):
        raise ValueError(f"widths are {tuple(widths)}; give inputs, hidden widths and outputs, each at least 1")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; give one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = [nn.Flatten()]
    last = len(widths) - 2
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = nn.Linear(inputs, outputs) if init == "default" else _blank(inputs, outputs)
        initialise(linear, init, 1.0 if index == last else gain, generator)
        layers += [linear] if index == last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def _blank(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer that nothing is drawn for: what is initialised later must not shift the global generator."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call, no-any-return]


def initialise(layer: nn.Linear | nn.Conv2d, init: str, gain: float, generator: torch.Generator | None) -> None:
    """Initialise one layer in place, as `mlp` describes; "default" leaves what PyTorch drew."""
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; give one of {', '.join(INITS)}")
    if init == "default":
        return
    if init == "xavier":
        nn.init.xavier_normal_(layer.weight, gain=gain, generator=generator)
    elif init == "he":
        # kaiming_normal_ with nonlinearity "relu" is sqrt(2 / fan_in); the gain multiplies it.
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        with torch.no_grad():
            layer.weight.mul_(gain)
    else:
        nn.init.orthogonal_(layer.weight, gain=gain, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
