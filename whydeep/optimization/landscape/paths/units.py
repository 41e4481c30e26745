"""Which axes of which weights number the same units: found by running the network once and watching its operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from whydeep.core.evaluation import evaluating

from .unit_rules import Tracer
from .unit_sets import Units, resolved


@dataclass(frozen=True)
class Wiring:
    """The axes of a network's weights, and the sets of units that may be permuted without changing its function.

    layout: name of a parameter or buffer -> for each of its axes the units along it, outermost first. An axis of
    length C H W behind a flattening reads (C units, H W places), one of an attention layer (heads, units of a head).
    summed: name -> for each of its axes whether a product or a convolution sums over it.
    free: the sets of units of which any order computes the same function, if it is changed on all their axes at once.
    outputs: the units along the last axis of the output; their order stays.
    seen: tensors that the run produced, with the units along their axes; empty unless they were asked for.
    """

    layout: dict[str, tuple[tuple[Units, ...], ...]]
    free: tuple[Units, ...]
    summed: dict[str, tuple[bool, ...]]
    outputs: tuple[Units, ...]
    seen: tuple[tuple[Tensor, tuple[tuple[Units, ...], ...]], ...] = field(default=(), repr=False)

    def axes(self, name: str) -> list[Units]:
        """Return the units along all axes of a weight, in the order of its entries."""
        return [units for axis in self.layout[name] for units in axis]

    def owners(self, units: Units) -> list[str]:
        """Return the names of the weights that have these units along an axis."""
        return [name for name in self.layout if any(one is units for one in self.axes(name))]


def wiring(model: nn.Module, x: Tensor, *, keep: bool = False) -> Wiring:
    """Return how the units of `model` are wired, from one run on the samples x (n, ...) in evaluation mode.

    Every axis of every weight starts as units of its own. Each operation of the run then says which of them are the
    same: a matrix product joins the two axes that it sums over, a sum of two tensors joins all axes (so a residual
    stream has one order throughout), batch norm joins its weights to the channels, a flattening makes an axis of
    channels times places. The axes of samples, inputs, outputs and places in an image keep their order. Units that are
    cut, selected or concatenated keep their order, too. No specification by hand is needed.

    keep: hold the tensors of the run, with their axes, in `seen`.
    Raises `InputError` that names the operation when it is not known how it treats units.
    Cost: one forward pass, all of whose tensors are held until it is done; the model is left as it was.
    """
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    tracer = Tracer(keep)
    axes = {}
    for name, value in named.items():
        if tracer.known(value):  # a weight that two layers share has one set of axes
            axes[name] = tracer.axes(value)
        else:
            axes[name] = tracer.enter(value, fixed=False)
    tracer.enter(x, fixed=True)
    with evaluating(model), torch.no_grad(), _plain_attention(), tracer:
        output = model(x)
    tracer.freeze(tracer.axes(output))
    ends = tuple(resolved(tracer.axes(output)[-1])) if output.ndim > 1 else ()
    over = {id(axis) for axis in tracer.summed}
    summed = {name: tuple(id(axis) in over for axis in each) for name, each in axes.items()}
    layout = {name: tuple(tuple(resolved(axis)) for axis in each) for name, each in axes.items()}
    free: list[Units] = []
    for each in layout.values():
        for units in (one for axis in each for one in axis):
            if not units.fixed and units.size > 1 and not any(units is one for one in free):
                free.append(units)
    seen = tuple((value, tuple(tuple(resolved(axis)) for axis in each)) for value, each in tracer.kept)
    return Wiring(layout, tuple(free), summed, ends, seen)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Let attention run as the matrix products that it consists of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def reordered(value: Tensor, axes: Sequence[Units], orders: dict[int, Tensor], *, but: int | None = None) -> Tensor:
    """Return `value` with its units in another order: entry k along them is the old entry order[k].

    axes: the units along all axes, as `Wiring.axes` gives them; orders: id of the units -> order (size,) int64.
    but: the number of an axis that stays as it is.
    """
    if not any(id(units) in orders for units in axes):
        return value
    wide = value.reshape([units.size for units in axes])
    for axis, units in enumerate(axes):
        if id(units) in orders and axis != but:
            wide = wide.index_select(axis, orders[id(units)].to(value.device))
    return wide.reshape(value.shape)


def unfolded(value: Tensor, axes: Sequence[Units], axis: int) -> Tensor:
    """Return `value` as a matrix with the units of axis number `axis` as rows."""
    wide = value.reshape([units.size for units in axes]).movedim(axis, 0)
    return wide.reshape(len(wide), -1)
