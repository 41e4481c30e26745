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

from .fixed_map import FixedMap, fixed_map, is_known
from .operator_norm import layer_norm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AFFINE = (nn.Linear, *CONVOLUTIONS)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Link:
    """One affine layer W x + b and the fixed maps that follow it, up to the next affine layer.

    spectral: upper bound on the operator norm of W on the real input shape.
    distance: ||W - W0||_{2,1}, the sum over outputs (and taps of the kernel) of the Euclidean norm over inputs.
    bias: ||b||_2 over all output positions. bias_distance: ||b - b0||_1 sqrt(positions).
    parameters: how many. lipschitz, offset: the maps that follow stretch differences by at most `lipschitz`, and send
    zero to a vector of norm at most `offset`.

    The rest is of the matrix with an entry for every pair of input and output unit, `inputs` by `units`, in which a
    convolution repeats its kernel (at most so many times: borders are not subtracted). frobenius: ||W||_F.
    row_norms: sum of the Euclidean norms of its rows. row_sum: largest sum of |entries| of a row. bias_sum: sum of |b|
    over the units; bias_largest: their largest. maps: those that follow; zero: largest |entry| of their image of 0.
    """

    name: str
    spectral: float
    distance: float
    bias: float
    bias_distance: float
    parameters: int
    lipschitz: float
    offset: float
    frobenius: float = 0.0
    row_norms: float = 0.0
    row_sum: float = 0.0
    bias_sum: float = 0.0
    bias_largest: float = 0.0
    inputs: int = 1
    units: int = 1
    zero: float = 0.0
    maps: tuple[FixedMap, ...] = ()


@dataclass(frozen=True)
class Chain:
    """A network's links, and the size of what enters the first affine layer.

    root_mean_square: sqrt(1/n sum_i ||x_i||^2). largest_norm: max_i ||x_i||. largest_feature: the largest root mean
    square of one feature, max_j sqrt(1/n sum_i x_ij^2).
    """

    links: tuple[Link, ...]
    root_mean_square: float
    largest_norm: float = 0.0
    largest_feature: float = 0.0

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
        elif not is_known(module) and (seen_affine or any(True for _ in module.parameters())):
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
    device = next(rest.parameters()).device
    squares, largest = torch.zeros((), dtype=torch.float64, device=device), 0.0
    with torch.no_grad():
        for chosen in torch.split(torch.arange(len(data)), 2048):
            entering = prefix(data.x[chosen].to(device, torch.float64)).flatten(1).square()
            squares = squares + entering.sum(0)
            largest = max(largest, math.sqrt(float(entering.sum(1).max())))
        few = data.take(torch.arange(min(8, len(data))))
        signal = prefix(few.x[torch.arange(len(few))].to(device, torch.float64))
    # Folding is an identity, unless a layer is fed in a shape for which it is not.
    if not torch.allclose(rest(signal), outputs(model, few).double(), rtol=1e-3, atol=1e-3):
        raise InputError("the network's layers in order do not give its outputs", "give a plain chain")
    signal = signal[:1]
    links: list[Link] = []
    zero = torch.zeros_like(signal)
    with torch.no_grad():
        for name, module in parts[first:]:
            before, signal = signal, module(signal)
            if type(module) in AFFINE:
                links.append(_link(name, module, None if origin is None else origin[len(links)], before, signal))
                zero = torch.zeros_like(signal)
            else:
                known, zero = fixed_map(module, before, signal), module(zero)
                last = links[-1]
                links[-1] = replace(
                    last,
                    lipschitz=last.lipschitz * known.slope,
                    offset=last.offset * known.slope + known.offset,
                    zero=float(zero.abs().max()),
                    maps=(*last.maps, known),
                )
    return Chain(
        tuple(links),
        math.sqrt(float(squares.sum()) / len(data)),
        largest_norm=largest,
        largest_feature=math.sqrt(float(squares.max()) / len(data)),
    )


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


def _link(name: str, module: nn.Module, origin: nn.Module | None, before: Tensor, signal: Tensor) -> Link:
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
        frobenius=float(weight.norm()) * math.sqrt(positions),
        row_norms=float(torch.linalg.vector_norm(weight.flatten(1), dim=1).sum()) * positions,
        row_sum=float(weight.abs().flatten(1).sum(1).max()),
        bias_sum=0.0 if bias is None else float(bias.abs().sum()) * positions,
        bias_largest=0.0 if bias is None else float(bias.abs().max()),
        inputs=before[0].numel(),
        units=signal[0].numel(),
    )
