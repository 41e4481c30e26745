"""The representation in each layer: what the samples have become after it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.evaluation import evaluating
from whydeep.core.randomness import global_seed, or_default, spawn

INPUT, OUTPUT = "(input)", "(output)"
"""Names of the first layer, the samples themselves, and of the last where it is not a module of its own."""


@dataclass(frozen=True)
class Layer:
    """A place in a network where the representation is read: the output of the module `name`.

    kind: class of the module. shape: of one sample's output. dimension: which one counts the samples.
    width: number of features after the reduction, `reduction` says in words what was done to get there.
    pool: side of the grid that feature maps are averaged to. bucket, sign: (d,) each, of the random signed sums.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dimension: int
    width: int
    reduction: str = "all"
    pool: int | None = None
    bucket: Tensor | None = None
    sign: Tensor | None = None

    def read(self, output: Tensor, samples: int) -> Tensor:
        """Return the features (samples, width) in the module's `output`, a copy that later layers cannot change."""
        flat = by_sample(output, samples, self.dimension)
        if self.pool is not None:
            flat = F.adaptive_avg_pool2d(flat.reshape(samples, *self.shape), self.pool)
        flat = flat.reshape(samples, -1)
        if self.bucket is not None and self.sign is not None:
            bucket, sign = self.bucket.to(flat.device), self.sign.to(flat)
            return flat.new_zeros(samples, self.width).index_add_(1, bucket, flat * sign)
        return flat.detach().clone()


def by_sample(output: Tensor, samples: int, dimension: int) -> Tensor:
    """Return `output` with its samples first: `dimension` holds them, or blocks of equal length, one a sample."""
    moved = output.detach().movedim(dimension, 0)
    return moved if len(moved) == samples else moved.reshape(samples, len(moved) // samples, *moved.shape[1:])


def layers(
    model: nn.Module, data: Data, *, most: int = 30, limit: int = 800, generator: torch.Generator | None = None
) -> tuple[Layer, ...]:
    """Return the layers of `model` in the order in which they run: the samples themselves first, the output last.

    Which: of an `nn.Sequential` its children (those of a Sequential inside it one by one); of any other network the
    modules without children, and attention as one. A module that runs several times counts where it runs first.
    Left out is what returns its input unchanged (Flatten, dropout in evaluation mode), and what mixes samples.
    most: if there are more, so many are taken at equal distances, the first and the last among them.
    limit: more features than that are reduced: feature maps (c, h, w) are averaged over a grid of s by s regions,
    s the largest with c s^2 <= limit; anything else, or c > limit, becomes `limit` random signed sums

        z_k = sum over the i with bucket(i) = k of sign(i) x_i,

    bucket and sign uniform: inner products are kept in expectation (Charikar, Chen and Farach-Colton 2002, the count
    sketch; recalled, not checked against the paper).

    Reads three samples; the model is copied, so its mode, hooks and weights are left alone.
    Raises `ValueError` for most < 2 or limit < 1.
    """
    if most < 2 or limit < 1:
        raise ValueError(f"most={most}, limit={limit}; give at least 2 layers and 1 feature")
    generator = or_default(generator)
    few = data.x[torch.arange(3) % len(data)]
    with private(model, generator) as copied, torch.no_grad():
        two, three = _run(copied, few[:2]), _run(copied, few)
    found: list[Layer] = []
    for name, (kind, given, output) in three.items():
        dimension = _sample_dimension(two[name][2], output) if name in two else None
        if dimension is None or _same(given, output):
            continue
        if name == OUTPUT and found and _same(three[found[-1].name][2], output):
            continue
        found.append(_layer(name, kind, output, dimension, limit, generator))
    if len(found) <= most:
        return tuple(found)
    return tuple(found[round(k * (len(found) - 1) / (most - 1))] for k in range(most))


def features(model: nn.Module, data: Data, places: Sequence[Layer], *, batch_size: int = 512) -> dict[str, Tensor]:
    """Return for each layer the features (n, width) of all samples of `data`, in evaluation mode.

    Cost: one forward pass over the data, and n * (sum of widths) numbers.
    """
    parts: dict[str, list[Tensor]] = {place.name: [] for place in places}
    with private(model, or_default(None)) as copied, torch.no_grad():
        for chosen in torch.split(torch.arange(len(data)), batch_size):
            seen = _run(copied, data.x[chosen], {place.name: place for place in places})
            for name, pieces in parts.items():
                pieces.append(seen[name][2])
    return {name: torch.cat(pieces) for name, pieces in parts.items()}


@contextmanager
def private(model: nn.Module, generator: torch.Generator) -> Iterator[nn.Module]:
    """Lend a copy of `model` in evaluation mode, its weights frozen, PyTorch's global generator put back after it.

    The copy works out of place, so that a layer cannot overwrite what the layer before it returned.
    """
    copied = copy.deepcopy(model).requires_grad_(False)
    for module in copied.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # a plain bool, not a submodule
    with evaluating(copied), global_seed(spawn(generator)):
        yield copied


Seen = tuple[str, Tensor | None, Tensor]
"""Kind of a module, its first input, and its output."""


def _run(model: nn.Module, x: Tensor, places: dict[str, Layer] | None = None) -> dict[str, Seen]:
    """Run `model` on `x`; return what its layers saw in order of running, as features once `places` are known."""
    seen: dict[str, Seen] = {}

    def note(name: str, kind: str, given: Tensor | None, output: object) -> None:
        first = _first_tensor(output)
        if name in seen or first is None or (places is not None and name not in places):
            return
        if places is not None:
            seen[name] = (kind, None, places[name].read(first, len(x)))
        else:
            seen[name] = (kind, None if given is None else given.clone(), first.detach().clone())

    note(INPUT, "samples", None, x)
    handles = []
    for name, module in _candidates(model):
        handles.append(
            module.register_forward_hook(
                lambda module, given, output, name=name: note(name, type(module).__name__, _first_tensor(given), output)
            )
        )
    try:
        result = model(x)
    finally:
        for handle in handles:
            handle.remove()
    note(OUTPUT, type(model).__name__, None, result)
    return seen


def _candidates(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that may count as layers, by name; `prefix` is empty or ends with a dot."""
    if isinstance(model, nn.Sequential):
        children = list(model.named_children())
        weighted = [child for _, child in children if next(child.parameters(), None) is not None]
        for name, child in children:
            # A Sequential that only wraps one network (a normalisation before it) is looked into, too.
            if isinstance(child, nn.Sequential) or [child] == weighted:
                yield from _candidates(child, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", child
        return
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside = (*inside, f"{name}.")  # its projection is never called as a module
        elif next(module.children(), None) is not None:
            continue
        if path := f"{prefix}{name}".rstrip("."):
            yield path, module


def _first_tensor(value: object) -> Tensor | None:
    """Return the tensor itself, or the first of a tuple or list (attention returns outputs and weights)."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.numel() == other.numel() and torch.equal(one.reshape(-1), other.reshape(-1))


def _sample_dimension(two: Tensor, three: Tensor) -> int | None:
    """Return the dimension that grows with the samples, from the outputs for the first two and for all three.

    None when no single one does, or when the first two samples come out differently beside a third one.
    """
    if two.ndim != three.ndim:
        return None
    grown = [k for k, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    if len(grown) != 1 or 3 * two.shape[grown[0]] != 2 * three.shape[grown[0]]:
        return None
    alone, beside = by_sample(two, 2, grown[0]), by_sample(three, 3, grown[0])[:2]
    # Kernels add in another order for another batch: single precision keeps about six digits of the largest number.
    scale = max(1e-30, float(alone.abs().max()) if alone.numel() else 0.0)
    return grown[0] if alone.numel() and float((alone - beside).abs().max()) <= 1e-4 * scale else None


def _layer(name: str, kind: str, output: Tensor, dimension: int, limit: int, generator: torch.Generator) -> Layer:
    shape = tuple(by_sample(output, 3, dimension).shape[1:])
    size = math.prod(shape)
    if size <= limit:
        return Layer(name, kind, shape, dimension, size)
    if len(shape) == 3 and shape[0] <= limit:
        side = min(math.isqrt(limit // shape[0]), *shape[1:])
        words = f"averaged over {side} x {side} regions"
        return Layer(name, kind, shape, dimension, shape[0] * side * side, words, pool=side)
    bucket = torch.randint(limit, (size,), generator=generator)
    sign = 2.0 * torch.randint(2, (size,), generator=generator) - 1.0
    return Layer(name, kind, shape, dimension, limit, f"{limit} random signed sums", bucket=bucket, sign=sign)
