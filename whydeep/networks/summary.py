"""What a network is made of, as it runs: its layers in order of execution, its depth, its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whydeep.core.data import Data
from whydeep.core.exhibit import Table

# Layers that are taken whole, though they may have modules inside: attention multiplies by its projections without
# calling them, and weight normalisation puts a module into the layer whose weight it makes.
WHOLE = (
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.EmbeddingBag,
)
# Their weights are factors of single entries, whatever their shape.
ENTRYWISE = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.PReLU)

ACTIVATIONS: dict[Callable[..., Any], str] = {
    F.elu: "ELU",
    F.gelu: "GELU",
    F.hardswish: "hard swish",
    F.leaky_relu: "leaky ReLU",
    F.mish: "mish",
    F.prelu: "PReLU",
    F.relu: "ReLU",
    F.relu6: "ReLU6",
    F.selu: "SELU",
    F.sigmoid: "sigmoid",
    F.silu: "SiLU",
    F.softplus: "softplus",
    F.tanh: "tanh",
    Tensor.relu: "ReLU",
    Tensor.relu_: "ReLU",
    Tensor.sigmoid: "sigmoid",
    Tensor.sigmoid_: "sigmoid",
    Tensor.tanh: "tanh",
    Tensor.tanh_: "tanh",
    torch.relu: "ReLU",
    torch.relu_: "ReLU",
    torch.sigmoid: "sigmoid",
    torch.tanh: "tanh",
}


@dataclass(frozen=True)
class Layer:
    """One execution of a module.

    name: inside the network. kind: name of its class. output_shape: of one sample.
    parameters: those that no earlier layer counted. matrices: layers with a weight matrix in it, 0 for an activation.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    matrices: int


@dataclass(frozen=True)
class Summary:
    """A network as it ran on a sample.

    depth: executed layers with a weight matrix (linear, convolution, embedding, recurrent, attention, or a module of
    one's own with a matrix of weights); an attention layer counts as one, stacked recurrent layers each, a layer that
    runs twice counts twice. parameters: all of the network, trainable or not, tied ones once.
    layers: in order of execution. activations: the kinds that ran.
    """

    depth: int
    parameters: int
    layers: tuple[Layer, ...]
    activations: tuple[str, ...]

    @property
    def words(self) -> str:
        """The network in words: "3-layer ReLU network, 17,610 parameters"."""
        kind = f"{self.activations[0]} network" if len(self.activations) == 1 else "network"
        return f"{self.depth}-layer {kind}, {self.parameters:,} parameters"

    def table(self) -> Table:
        """Return the layers as a table."""
        rows = tuple(
            (layer.name, layer.kind, " x ".join(map(str, layer.output_shape)), layer.parameters)
            for layer in self.layers
        )
        rest = self.parameters - sum(layer.parameters for layer in self.layers)
        note = f"{self.words}." + (
            f" {rest:,} parameters lie outside of these layers, or did not take part." if rest else ""
        )
        return Table("Layers in order of execution", ("layer", "kind", "output", "parameters"), rows, note)


def summary(model: nn.Module, data: Data) -> Summary:
    """Run a copy of `model` in evaluation mode on at most two samples of `data` and return what ran.

    The model, its mode and the random generators stay as they are. Cost: one copy of the weights, one forward pass.

    >>> from whydeep.networks import mlp
    >>> summary(mlp((64, 100, 100, 10)), Data(torch.zeros(5, 1, 8, 8), torch.zeros(5).long(), classes=10)).words
    '3-layer ReLU network, 17,610 parameters'
    """
    private = copy.deepcopy(model).eval()
    layers: list[Layer] = []
    counted: set[int] = set()
    for name, module in _units(private):
        module.register_forward_hook(_watch(name, layers, counted))
    x = data.x[torch.arange(min(2, len(data)))]
    activations = _Activations()
    # PyTorch's fused path of an encoder layer skips its submodules; it is not taken while calls are watched.
    with torch.no_grad(), torch.random.fork_rng(devices=[]), activations:
        private(x)
    recurrent = [layer.kind for layer in layers if layer.kind in ("RNN", "GRU", "LSTM")]
    return Summary(
        depth=sum(layer.matrices for layer in layers),
        parameters=sum(value.numel() for value in private.parameters()),
        layers=tuple(layers),
        activations=tuple(dict.fromkeys(activations.seen + recurrent)),
    )


def _units(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules without modules inside, and those taken whole, by name."""
    units: list[tuple[str, nn.Module]] = []
    inside: set[int] = set()
    for name, module in model.named_modules():  # parents come before their children
        if id(module) in inside:
            continue
        whole = isinstance(module, WHOLE)
        if whole or not any(True for _ in module.children()):
            units.append((name or type(module).__name__, module))
        if whole:
            inside |= {id(part) for part in module.modules()}
    return units


def _watch(name: str, layers: list[Layer], counted: set[int]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, _: Any, output: Any) -> None:
        own = [value for value in module.parameters() if id(value) not in counted]
        counted.update(id(value) for value in own)
        shape = _shape(output)
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__.removeprefix("Parametrized"),
                output_shape=shape,
                parameters=sum(value.numel() for value in own),
                matrices=_matrices(module),
            )
        )

    return hook


def _matrices(module: nn.Module) -> int:
    if isinstance(module, nn.RNNBase):
        return module.num_layers
    if isinstance(module, WHOLE):
        return 1
    if isinstance(module, ENTRYWISE):
        return 0
    return int(any(value.ndim >= 2 for value in module.parameters()))


def _shape(output: Any) -> tuple[int, ...]:
    """Return the shape of one sample of the first tensor in `output`."""
    if isinstance(output, Tensor):
        return tuple(output.shape[1:])
    parts: Iterable[Any] = output.values() if isinstance(output, Mapping) else output
    return next((_shape(part) for part in parts if isinstance(part, Tensor)), ()) if isinstance(parts, Iterable) else ()


class _Activations(TorchFunctionMode):
    """Notes which activation functions are called, by modules or directly."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        if function in ACTIVATIONS:
            self.seen.append(ACTIVATIONS[function])
        return function(*arguments, **(options or {}))
