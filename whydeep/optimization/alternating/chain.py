"""Chains of linear layers and activations: the networks that alternating methods train, and their weight matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError

from .activation import IDENTITY, KINDS, Activation, activation_of

_NAMES = ", ".join(sorted(kind.__name__ for kind in KINDS))
_REMEDY = f"give an nn.Sequential of Flatten, Linear and {_NAMES} that ends in Linear"


@dataclass(frozen=True)
class Layer:
    """V_out = s([V_in, 1] W'), W (outputs, inputs + 1); without a bias the column of ones is missing."""

    linear: nn.Linear
    activation: Activation

    @property
    def bias(self) -> bool:
        """Whether the last column of W is a bias; it is penalised like the rest, as in the authors' code."""
        return self.linear.bias is not None

    def inputs(self, states: Tensor) -> Tensor:
        """Return what W multiplies, (n, inputs + 1): `states` (n, inputs) with a column of ones for a bias."""
        return torch.cat([states, torch.ones_like(states[:, :1])], 1) if self.bias else states

    def preactivation(self, weight: Tensor, states: Tensor) -> Tensor:
        """Return U = [V, 1] W', (n, outputs)."""
        if self.bias:
            return torch.addmm(weight[:, -1], states, weight[:, :-1].T)
        return states @ weight.T

    def without_bias(self, weight: Tensor) -> Tensor:
        """Return the part of W that multiplies the states, (outputs, inputs)."""
        return weight[:, :-1] if self.bias else weight


@dataclass(frozen=True)
class Chain:
    """The layers of a network f(x) = W_N s(W_{N-1} ... s(W_1 x)); the last has no activation."""

    layers: tuple[Layer, ...]
    flatten: bool

    @classmethod
    def of(cls, model: nn.Module, *, solver: str = "ADMM") -> Chain:
        """Return the chain that `model` is; `solver` is who asks, for messages.

        Raises `InputError` naming the module that does not fit: the kinds are compared exactly, as a subclass may
        compute anything. Nested nn.Sequential are read in order; Identity counts as no activation.
        """
        modules = _modules(model, "model", solver)
        flatten = bool(modules) and type(modules[0][1]) is nn.Flatten
        if flatten:
            first = modules.pop(0)[1]
            assert isinstance(first, nn.Flatten)
            if (first.start_dim, first.end_dim) != (1, -1):
                raise InputError(
                    f"{solver} cannot train through {first}", "let Flatten keep the samples only: nn.Flatten()"
                )
        pairs: list[tuple[nn.Linear, Activation | None]] = []
        for name, module in modules:
            activation = activation_of(module)
            if type(module) is nn.Linear:
                pairs.append((module, None))
            elif type(module) is nn.Identity:
                continue
            elif activation is None and type(module) in KINDS:
                raise InputError(
                    f"{solver} cannot train through {name}, {module}",
                    "give Softplus its default beta and threshold, and LeakyReLU a slope in [0, 1)",
                )
            elif activation is not None and pairs and pairs[-1][1] is None:
                pairs[-1] = (pairs[-1][0], activation)
            else:
                raise InputError(f"{solver} cannot train through {name}, {_why(module)}", _REMEDY)
        if not pairs or pairs[-1][1] is not None:
            raise InputError(f"{solver} needs a linear output layer, and the model has none", _REMEDY)
        _check_parameters([linear for linear, _ in pairs], solver)
        return cls(tuple(Layer(linear, activation or IDENTITY) for linear, activation in pairs), flatten)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's own numbers."""
        return self.layers[0].linear.weight.dtype

    def rows(self, data: Data, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the samples as rows (n, inputs); raises `InputError` when the network expects no rows."""
        x = data.in_memory().x
        assert isinstance(x, Tensor)
        return self.flat(x, dtype)

    def flat(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return some samples (m, ...) as rows (m, inputs); raises `InputError` when the network expects no rows."""
        if not self.flatten and x.ndim != 2:
            raise InputError(
                f"the samples have shape {tuple(x.shape[1:])} and the model takes rows",
                "let the model begin with nn.Flatten()",
            )
        return x.flatten(1).to(dtype)

    def weights(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Return copies of the weight matrices W_i (outputs, inputs + 1), the bias as the last column."""
        found = []
        for layer in self.layers:
            weight, bias = layer.linear.weight.detach(), layer.linear.bias
            whole = torch.cat([weight, bias.detach()[:, None]], 1) if layer.bias else weight.clone()
            found.append(whole.to(dtype))
        return tuple(found)

    def load(self, weights: Sequence[Tensor]) -> None:
        """Copy weight matrices into the network that the chain was made of, in its own type of number."""
        with torch.no_grad():
            for layer, weight in zip(self.layers, weights, strict=True):
                layer.linear.weight.copy_(layer.without_bias(weight))
                if layer.bias:
                    layer.linear.bias.copy_(weight[:, -1])

    def states(self, weights: Sequence[Tensor], x: Tensor) -> tuple[Tensor, ...]:
        """Return V_0 = x, V_1, ..., V_N of the forward pass, each (n, width)."""
        found = [x]
        for layer, weight in zip(self.layers, weights, strict=True):
            found.append(layer.activation.value(layer.preactivation(weight, found[-1])))
        return tuple(found)

    def outputs(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return f(x), (n, outputs), without keeping the states."""
        for layer, weight in zip(self.layers, weights, strict=True):
            x = layer.activation.value(layer.preactivation(weight, x))
        return x


def _modules(model: nn.Module, name: str, solver: str) -> list[tuple[str, nn.Module]]:
    if type(model) is not nn.Sequential:
        if name == "model":
            raise InputError(f"{solver} cannot train a {type(model).__name__}", _REMEDY)
        return [(name, model)]
    parts = [_modules(child, f"{name}[{index}]", solver) for index, child in enumerate(model)]
    return [pair for part in parts for pair in part]


def _why(module: nn.Module) -> str:
    if type(module) in KINDS:
        return f"{module}: an activation has to follow a linear layer, one each"
    return f"a {type(module).__name__}"


def _check_parameters(linears: Sequence[nn.Linear], solver: str) -> None:
    parameters = [parameter for linear in linears for parameter in linear.parameters()]
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise InputError(
            "two layers of the model share their weights", f"give each layer its own to train it by {solver}"
        )
    if not all(parameter.requires_grad for parameter in parameters):
        raise InputError("some weights of the model are frozen", f"set requires_grad=True to train it by {solver}")
