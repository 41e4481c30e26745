"""The activations that an alternating method can split off: values and slopes, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """An elementwise activation s.

    value_and_slope: u -> (s(u), s'(u)), both shaped like u; at a kink the slope of the left side, as PyTorch takes it.
    left: the slope left of a kink at 0 (its right one is 1), or None where s is smooth.
    linear: s is the identity; then steps that elsewhere rest on a quadratic above the misfit are exact.

    >>> value, slope = activation_of(nn.LeakyReLU(0.1)).value_and_slope(torch.tensor([-2.0, 3.0]))
    >>> value.tolist(), slope.tolist()
    ([-0.20000000298023224, 3.0], [0.10000000149011612, 1.0])
    """

    name: str
    value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    left: float | None = None
    linear: bool = False

    def value(self, u: Tensor) -> Tensor:
        """Return s(u) without the slope."""
        return self.value_and_slope(u)[0] if self.left is None else F.leaky_relu(u, self.left)


def _identity(u: Tensor) -> tuple[Tensor, Tensor]:
    return u, torch.ones_like(u)


def _sigmoid(u: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(u)
    return s, s * (1 - s)


def _silu(u: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.sigmoid(u)
    return u * p, p + u * p * (1 - p)


def _softplus(u: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(u), torch.sigmoid(u)


def _tanh(u: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.tanh(u)
    return s, 1 - s * s


IDENTITY = Activation("identity", _identity, linear=True)
SIGMOID = Activation("sigmoid", _sigmoid)
SILU = Activation("silu", _silu)
SOFTPLUS = Activation("softplus", _softplus)
TANH = Activation("tanh", _tanh)


def rectifier(left: float = 0.0) -> Activation:
    """Return ReLU (left = 0) or leaky ReLU: s(u) = u for u > 0, left u otherwise; 0 <= left < 1."""

    def value_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
        # 0 or 1, raised to the slope on the left: four times as fast as filling by a mask.
        return F.leaky_relu(u, left), (u > 0).to(u.dtype).clamp_(min=left)

    return Activation("leaky relu" if left else "relu", value_and_slope, left=left)


_OF: dict[type[nn.Module], Callable[[nn.Module], Activation | None]] = {
    nn.Identity: lambda module: IDENTITY,
    nn.LeakyReLU: lambda module: _leaky(module),
    nn.ReLU: lambda module: rectifier(),
    nn.SiLU: lambda module: SILU,
    nn.Sigmoid: lambda module: SIGMOID,
    nn.Softplus: lambda module: _plain_softplus(module),
    nn.Tanh: lambda module: TANH,
}
KINDS = tuple(_OF)
"""The modules that `activation_of` knows."""


def activation_of(module: nn.Module) -> Activation | None:
    """Return the activation that `module` computes, or None: a subclass may compute anything and is not known."""
    make = _OF.get(type(module))
    return None if make is None else make(module)


def _leaky(module: nn.Module) -> Activation | None:
    assert isinstance(module, nn.LeakyReLU)
    return rectifier(module.negative_slope) if 0 <= module.negative_slope < 1 else None


def _plain_softplus(module: nn.Module) -> Activation | None:
    # Above its threshold PyTorch's softplus is the identity: at 20 and more the two differ by less than 3e-9.
    assert isinstance(module, nn.Softplus)
    return SOFTPLUS if module.beta == 1 and module.threshold >= 20 else None
