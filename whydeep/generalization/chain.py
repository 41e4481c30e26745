"""A network as a chain: affine layers with fixed Lipschitz maps between them, each with its norms.

This is all that the norm-based capacity bounds know of a network.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import outputs

from .operator_norm import layer_norm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AFFINE = (nn.Linear, *CONVOLUTIONS)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SILENT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)

# Largest slope where it is the same for all instances. SiLU's is 1.0998, GELU's 1.1290: rounded up.
SLOPES: dict[type[nn.Module], float] = {
    nn.GELU: 1.13,
    nn.Hardtanh: 1.0,
    nn.ReLU: 1.0,
    nn.ReLU6: 1.0,
    nn.SiLU: 1.1,
    nn.Sigmoid: 0.25,
    nn.Softplus: 1.0,
    nn.Tanh: 1.0,
}


@dataclass(frozen=True)
class Link:
    """One affine layer W x + b and the fixed maps that follow it, up to the next affine layer.

    spectral: upper bound on the operator norm of W on the real input shape.
    distance: ||W - W0||_{2,1}, the sum over outputs (and taps of the kernel) of the Euclidean norm over inputs.
    bias: ||b||_2 over all output positions. bias_distance: ||b - b0||_1 sqrt(positions).
    parameters: how many. lipschitz, offset: the maps that follow stretch differences by at most `lipschitz`, and send
    zero to a vector of norm at most `offset`.
    """

    name: str
    spectral: float
    distance: float
    bias: float
    bias_distance: float
    parameters: int
    lipschitz: float
    offset: float


@dataclass(frozen=True)
class Chain:
    """A network's links. root_mean_square: sqrt(1/n sum_i ||x_i||^2) of what enters the first affine layer."""

    links: tuple[Link, ...]
    root_mean_square: float

    @property
    def sizes(self) -> tuple[float, ...]:
        """Bounds r_l on the root mean square norm entering each link: r_{l+1} = lipschitz (s r_l + bias) + offset."""
        sizes = [self.root_mean_square]
        for link in self.links:
            sizes.append(link.lipschitz * (link.spectral * sizes[-1] + link.bias) + link.offset)
        return tuple(sizes[:-1])

    @property
    def rests(self) -> tuple[float, ...]:
        """By how much the rest of the network can stretch what a link's affine layer puts out, link by link."""
        rests, rest = [], 1.0
        for link in reversed(self.links):
            rest *= link.lipschitz
            rests.append(rest)
            rest *= link.spectral
        return tuple(reversed(rests))

    @property
    def product(self) -> float:
        """Product of the spectral norms and Lipschitz constants: the network's Lipschitz constant is at most this."""
        return self.links[0].spectral * self.rests[0]


def why_no_chain(model: nn.Module) -> str | None:
    """Return why `model` is no chain of affine layers and known Lipschitz maps, naming the module, or None."""
    for part in (model, *model.modules()):
        if isinstance(part, nn.Sequential) and type(part).forward is not nn.Sequential.forward:
            return f"{type(part).__name__} has a forward of its own, so the order of its layers is not known"
        if part._forward_hooks or part._forward_pre_hooks:
            return f"a {type(part).__name__} has forward hooks, which may change what it computes"
    if not isinstance(model, nn.Sequential):
        return f"{type(model).__name__} is no nn.Sequential, so the order of its layers is not known"
    parts = _flat(model)
    seen_affine = False
    for (_, before), (name, module) in pairwise([("", nn.Identity()), *parts]):
        if isinstance(module, BATCH_NORMS):
            if type(before) not in AFFINE or module.running_mean is None:
                return f"{name} is a batch normalisation that cannot be folded into a layer before it"
        elif type(module) in AFFINE:
            seen_affine = True
            if isinstance(module, CONVOLUTIONS) and module.padding_mode != "zeros":
                return f"{name} pads by {module.padding_mode!r}, for which no norm is known here"
        elif not _known(module) and (seen_affine or any(True for _ in module.parameters())):
            return f"{name} is a {type(module).__name__}, for which no Lipschitz constant is known here"
    return None if seen_affine else "there is no Linear or convolution in it"


def read_chain(model: nn.Module, data: Data, *, start: nn.Module | None = None) -> Chain:
    """Return `model` in evaluation mode as a chain on the samples of `data`, in float64.

    What comes before the first affine layer must be free of parameters (a fixed transform of the data): it is applied
    to the samples. A batch normalisation right after an affine layer is folded into it (the same function), dropout is
    off. start: a network of the same form, chosen without the data, whose weights are W0, b0; zero where None.

    Raises `InputError` when the network is no such chain, naming the module.
    """
    reason = why_no_chain(model) or (None if start is None else why_no_chain(start))
    if reason is not None:
        raise InputError(f"the network is no chain: {reason}", "give an nn.Sequential of Linear, Conv and activations")
    parts = _folded(model)
    origin = None if start is None else [module for _, module in _folded(start) if type(module) in AFFINE]
    first = next(index for index, (_, module) in enumerate(parts) if type(module) in AFFINE)
    prefix, rest = (nn.Sequential(*(module for _, module in some)) for some in (parts[:first], parts[first:]))
    total, device = 0.0, next(rest.parameters()).device
    with torch.no_grad():
        for chosen in torch.split(torch.arange(len(data)), 2048):
            total += float(prefix(data.x[chosen].to(device, torch.float64)).square().sum())
        few = data.take(torch.arange(min(8, len(data))))
        signal = prefix(few.x[torch.arange(len(few))].to(device, torch.float64))
    # Folding is an identity, unless a layer is fed in a shape for which it is not.
    if not torch.allclose(rest(signal), outputs(model, few).double(), rtol=1e-3, atol=1e-3):
        raise InputError("the network's layers in order do not give its outputs", "give a plain chain")
    signal = signal[:1]
    links: list[Link] = []
    with torch.no_grad():
        for name, module in parts[first:]:
            before, signal = signal, module(signal)
            if type(module) in AFFINE:
                links.append(_link(name, module, None if origin is None else origin[len(links)], signal))
            else:
                slope, offset = _map(module, before, signal)
                last = links[-1]
                slopes, offsets = last.lipschitz * slope, last.offset * slope + offset
                links[-1] = replace(last, lipschitz=slopes, offset=offsets)
    return Chain(tuple(links), math.sqrt(total / len(data)))


def _flat(model: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, module in model._modules.items():  # named_children would leave repeated modules out
        assert module is not None
        if isinstance(module, nn.Sequential):
            parts += _flat(module, f"{prefix}{name}.")
        else:
            parts.append((f"{prefix}{name}", module))
    return parts


def _folded(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """A float64 copy in evaluation mode, as a list, batch normalisations folded."""
    twin = copy.deepcopy(model).double().eval()
    assert isinstance(twin, nn.Sequential)
    parts: list[tuple[str, nn.Module]] = []
    for name, module in _flat(twin):
        if isinstance(module, BATCH_NORMS):
            earlier, layer = parts[-1]
            fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
            parts[-1] = (earlier, fuse(layer, module))  # type: ignore[type-var]  # pairs checked before
        else:
            parts.append((name, module))
    return parts


def _link(name: str, module: nn.Module, origin: nn.Module | None, signal: Tensor) -> Link:
    assert isinstance(module, AFFINE)
    weight, bias = module.weight, module.bias
    assert origin is None or isinstance(origin, AFFINE)
    moved = weight if origin is None else weight - origin.weight
    positions = signal[0].numel() // weight.shape[0]
    shift = 0.0
    if bias is not None:
        moved_bias = bias if origin is None or origin.bias is None else bias - origin.bias
        shift = float(moved_bias.abs().sum()) * math.sqrt(positions)
    return Link(
        name=name,
        spectral=layer_norm(module),
        distance=float(torch.linalg.vector_norm(moved, dim=1).sum()),
        bias=0.0 if bias is None else float(bias.norm()) * math.sqrt(positions),
        bias_distance=shift,
        parameters=sum(value.numel() for value in module.parameters()),
        lipschitz=1.0,
        offset=0.0,
    )


def _known(module: nn.Module) -> bool:
    if isinstance(module, ADAPTIVE):
        return bool(torch.as_tensor(module.output_size).eq(1).all())
    if isinstance(module, MAX_POOLS) and module.return_indices:
        return False
    kinds = (*SILENT, *MAX_POOLS, *AVERAGE_POOLS, nn.LeakyReLU, nn.ELU)
    return type(module) in SLOPES or isinstance(module, kinds)


def _map(module: nn.Module, before: Tensor, after: Tensor) -> tuple[float, float]:
    """Lipschitz constant and the norm of the image of zero."""
    slope = 1.0
    if type(module) in SLOPES:
        slope = SLOPES[type(module)]
    elif isinstance(module, nn.LeakyReLU):
        slope = max(1.0, abs(module.negative_slope))
    elif isinstance(module, nn.ELU):
        slope = max(1.0, abs(module.alpha))
    elif isinstance(module, ADAPTIVE):
        slope = math.sqrt(after.numel() / before.numel())
    elif isinstance(module, MAX_POOLS):
        # Every input lies in so many windows, and a maximum moves by no more than the largest move in its window.
        slope = math.sqrt(_windows(module, before.ndim - 2))
    elif isinstance(module, AVERAGE_POOLS):
        # sqrt(largest row sum x largest column sum); windows cut at the border have larger weights than 1/k.
        covered = _windows(module, before.ndim - 2)
        whole = not module.ceil_mode and not any(_each(module.padding, before.ndim - 2))
        slope = math.sqrt(covered / (math.prod(_each(module.kernel_size, before.ndim - 2)) if whole else 1))
    return slope, float(module(torch.zeros_like(before)).norm())


def _each(value: object, dimensions: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(int(one) for one in value)  # type: ignore[attr-defined]  # a tuple of ints, by torch's own types


def _windows(pool: nn.Module, dimensions: int) -> int:
    """In how many windows of a pooling an input can lie, at most."""
    kernel = _each(pool.kernel_size, dimensions)
    stride = _each(pool.stride, dimensions)
    dilated = any(step != 1 for step in _each(getattr(pool, "dilation", 1), dimensions))
    return math.prod(k if dilated else -(-k // s) for k, s in zip(kernel, stride, strict=True))
