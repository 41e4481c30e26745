"""How each operation of a network treats the units along the axes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from whydeep.core.errors import InputError

from .unit_sets import Axis, Units, cut, freeze, join, resolved

Axes = list[Axis]
Rule = Callable[["Tracer", tuple[Any, ...], Tensor], Axes]
RULES: dict[str, Rule] = {}


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its base
    """Watches the operations of a run and notes the units along the axes of every tensor."""

    def __init__(self, keep: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._axes: dict[int, Axes] = {}
        self._alive: list[Tensor] = []  # a tensor's id is its own only while it lives
        self._keep = keep
        self._data: set[int] = set()
        self.summed: list[Axis] = []  # axes that a product or convolution sums over
        self.kept: list[tuple[Tensor, Axes]] = []

    def known(self, value: Tensor) -> bool:
        """Whether the tensor's axes were noted."""
        return id(value) in self._axes

    def of_data(self, value: Tensor) -> bool:
        """Whether the tensor was computed from the samples."""
        return id(value) in self._data

    def note(self, value: Tensor, axes: Axes) -> None:
        """Note the axes of a tensor."""
        self._axes[id(value)] = axes
        self._alive.append(value)

    def enter(self, value: Tensor, *, fixed: bool) -> Axes:
        """Note a tensor from outside, every axis with units of its own; the samples are fixed."""
        axes = [[Units(size, fixed=fixed)] if size > 1 else [] for size in value.shape]
        self.note(value, axes)
        if fixed:
            self._data.add(id(value))
        return axes

    def axes(self, value: Tensor) -> Axes:
        """Return the axes of a tensor; one that is neither a weight nor computed from one keeps its order."""
        if id(value) not in self._axes:
            self.note(value, [[Units(size, fixed=True)] if size > 1 else [] for size in value.shape])
        return self._axes[id(value)]

    def freeze(self, axes: Iterable[Sequence[Units]]) -> None:
        """Let the units along all these axes keep their order."""
        for axis in axes:
            freeze(axis)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and apply its rule."""
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) else result
        if not isinstance(first, Tensor):
            return result
        # In-place operations end in an underscore, internal ones begin with it: both act on units as their plain form.
        name = str(func.overloadpacket).removeprefix("aten.").strip("_")
        inputs = list(_tensors(args)) + list(_tensors((kwargs or {}).values()))
        movable = any(not units.fixed for value in inputs for axis in self.axes(value) for units in resolved(axis))
        if name in RULES:
            for each in result if name in ("split", "split_with_sizes", "unbind", "chunk") else [first]:
                try:
                    self.note(each, RULES[name](self, args, each))
                except (IndexError, TypeError, ValueError) as fault:
                    raise _unknown(f"{name} in a form", fault) from fault
        elif movable:
            raise _unknown(name)
        if any(id(value) in self._data for value in inputs):
            self._data.add(id(first))
            if self._keep and first.is_floating_point():
                self.kept.append((first, self.axes(first)))
        return result


def _unknown(name: str, fault: Exception | None = None) -> InputError:
    why = "" if fault is None else f" ({type(fault).__name__}: {fault})"
    return InputError(
        f"the network uses the operation {name}, of which it is not known how it treats the order of units{why}",
        'give a network of products, convolutions, norms, pools and entrywise functions, or method="line"',
    )


def _tensors(args: Iterable[Any]) -> Iterable[Tensor]:
    for each in args:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from _tensors(each)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def keep(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return keep


@_rule(
    "abs", "add", "alias", "celu", "clamp", "clamp_max", "clamp_min", "clone", "contiguous", "copy", "cos",
    "detach", "div", "dropout", "elu", "erf", "exp", "expm1", "gelu", "hardsigmoid", "hardswish", "hardtanh",
    "leaky_relu", "lerp", "lift_fresh", "log", "log1p", "masked_fill", "maximum", "minimum", "mish", "mul",
    "native_dropout", "neg", "ones_like", "pow", "prelu", "prelu_kernel", "reciprocal", "relu", "relu6", "rsqrt",
    "rsub", "selu", "sigmoid", "silu", "sin", "softplus", "softsign", "sqrt", "square", "sub", "tanh",
    "threshold", "to_copy", "where", "zeros_like",
)  # fmt: skip
def _entrywise(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """Entries at the same place meet: axes of the same length, counted from the last, number the same units."""
    found: list[Axis | None] = [None] * out.ndim
    for value in _tensors(args):
        for back, axis in enumerate(reversed(tracer.axes(value)), start=1):
            if value.shape[-back] == 1:
                continue
            known = found[-back]
            if known is None:
                found[-back] = axis
            else:
                join(known, axis)
    return [axis if axis is not None else _free(size) for axis, size in zip(found, out.shape, strict=True)]


def _free(size: int) -> Axis:
    return [Units(size)] if size > 1 else []


def _fixed(size: int) -> Axis:
    return [Units(size, fixed=True)] if size > 1 else []


@_rule("t", "transpose", "permute", "numpy_T")
def _moved(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    axes = tracer.axes(args[0])
    if len(args) == 1:
        return axes[::-1]
    if len(args) == 3:
        order = list(range(len(axes)))
        order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
        return [axes[k] for k in order]
    return [axes[k] for k in args[1]]


@_rule("view", "unsafe_view", "reshape", "reshape_alias", "flatten", "unsqueeze", "squeeze")
def _reshaped(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    return cut([units for axis in tracer.axes(args[0]) for units in axis], list(out.shape))


@_rule("expand")
def _expanded(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    value, axes = args[0], tracer.axes(args[0])
    added = out.ndim - value.ndim
    # Along an axis that repeats one value any order is right.
    old = [
        axis if value.shape[k] == out.shape[k + added] else _free(out.shape[k + added]) for k, axis in enumerate(axes)
    ]
    return [_free(size) for size in out.shape[:added]] + old


@_rule("repeat")
def _repeated(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    axes, times = tracer.axes(args[0]), args[1]
    old: Axes = [[] for _ in range(len(times) - len(axes))] + axes
    return [_fixed(count) + axis for count, axis in zip(times, old, strict=True)]


@_rule("mm", "bmm", "mv", "dot")
def _product(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """Both factors sum over the same units."""
    first, second = tracer.axes(args[0]), tracer.axes(args[1])
    over = second[-2 if len(second) > 1 else -1]
    # Activations share the axes of the weights that made them: only a weight's own axis counts as summed over.
    tracer.summed += [axis for axis, value in ((first[-1], args[0]), (over, args[1])) if not tracer.of_data(value)]
    join(first[-1], over)
    for one, other in zip(first[:-2], second[:-2], strict=True):
        join(one, other)
    return first[:-1] + second[-1:] if len(second) > 1 else first[:-1]


@_rule("addmm", "baddbmm", "addmv")
def _product_plus(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    product = _product(tracer, args[1:], out)
    for back, axis in enumerate(reversed(tracer.axes(args[0])), start=1):
        if args[0].shape[-back] != 1:
            join(product[-back], axis)
    return product


@_rule("convolution")
def _convolution(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """Places keep their order; in a grouped convolution whole groups may change places, and channels within all."""
    x, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    (samples, channels, *places), (outer, inner, *kernel) = tracer.axes(x), tracer.axes(weight)
    tracer.freeze([*places, *kernel])
    if transposed:
        if groups > 1:
            tracer.freeze([outer, inner, channels])
            leaving = _fixed(out.shape[1])
        else:
            tracer.summed.append(outer)
            join(channels, outer)
            leaving = inner
    else:
        leaving = outer
        tracer.summed.append(inner)
        if groups == 1:
            join(channels, inner)
        else:
            grouped = cut(outer, [groups, weight.shape[0] // groups])[0]
            join(channels, [*grouped, *inner])
    if bias is not None:
        join(leaving, tracer.axes(bias)[0])
    return [samples, leaving, *(_fixed(size) for size in out.shape[2:])]


@_rule("native_batch_norm", "cudnn_batch_norm", "native_batch_norm_legit_no_training", "native_batch_norm_legit",
       "miopen_batch_norm")  # fmt: skip
def _batch_norm(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    axes = tracer.axes(args[0])
    for value in args[1:5]:
        if isinstance(value, Tensor):
            join(axes[1], tracer.axes(value)[0])
    return axes


@_rule("native_layer_norm", "fused_rms_norm", "rms_norm")
def _layer_norm(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    axes = tracer.axes(args[0])
    for value in args[2:4]:
        if isinstance(value, Tensor):
            for one, other in zip(axes[-value.ndim :], tracer.axes(value), strict=True):
                join(one, other)
    return axes


@_rule("native_group_norm")
def _group_norm(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    axes, groups = tracer.axes(args[0]), args[6]
    cut(axes[1], [groups, args[0].shape[1] // groups])
    for value in args[1:3]:
        if isinstance(value, Tensor):
            join(axes[1], tracer.axes(value)[0])
    return axes


@_rule("max_pool2d_with_indices", "max_pool1d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d",
       "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
       "upsample_bilinear2d", "max_pool2d", "max_pool1d", "constant_pad_nd", "im2col")  # fmt: skip
def _pool(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """Axes whose length changes, and all places behind the channels, keep their order."""
    value, axes = args[0], tracer.axes(args[0])
    if out.ndim != value.ndim:
        tracer.freeze(axes)
        return [_fixed(size) for size in out.shape]
    kept = [k < 2 and value.shape[k] == out.shape[k] for k in range(out.ndim)]
    tracer.freeze(axis for axis, same in zip(axes, kept, strict=True) if not same)
    return [axis if same else _fixed(size) for axis, same, size in zip(axes, kept, out.shape, strict=True)]


@_rule("mean", "sum", "amax", "amin", "max", "min", "var", "std", "linalg_vector_norm")
def _reduced(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """A sum, mean or maximum over units does not depend on their order."""
    value, axes = args[0], tracer.axes(args[0])
    place = 2 if len(args) > 2 and isinstance(args[2], list | tuple) else 1
    over = args[place] if len(args) > place and args[place] is not None else list(range(value.ndim))
    over = {k % value.ndim for k in ([over] if isinstance(over, int) else over)} or set(range(value.ndim))
    if out.ndim == value.ndim:
        return [[] if k in over else axis for k, axis in enumerate(axes)]
    return [axis for k, axis in enumerate(axes) if k not in over]


@_rule("softmax", "log_softmax", "safe_softmax")
def _softmax(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    return tracer.axes(args[0])


@_rule("cat", "stack")
def _joined(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """What is laid side by side keeps its order."""
    values = list(args[0])
    along = args[1] % out.ndim if len(args) > 1 else 0
    stacked = values[0].ndim < out.ndim
    sides = [tracer.axes(value) for value in values if value.numel()]
    if not stacked:
        tracer.freeze(axes[along] for axes in sides)
    found: Axes = []
    for k in range(out.ndim):
        if k == along:
            found.append(_fixed(out.shape[k]))
            continue
        at = k - (stacked and k > along)
        for axes in sides[1:]:
            join(sides[0][at], axes[at])
        found.append(sides[0][at])
    return found


@_rule("select", "slice", "split", "unbind", "chunk", "split_with_sizes", "narrow")
def _picked(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """What is picked by its number keeps its order."""
    value, axes = args[0], list(tracer.axes(args[0]))
    numbers = [each for each in args[1:] if isinstance(each, int)]
    along = (args[1] if out.ndim != value.ndim or len(numbers) > 2 else args[-1]) if len(args) > 1 else 0
    changed = [k for k in range(value.ndim) if out.ndim == value.ndim and out.shape[k] != value.shape[k]]
    along = changed[0] if changed else (along % value.ndim if isinstance(along, int) else 0)
    if out.ndim == value.ndim and not changed:
        return axes
    freeze(axes[along])
    if out.ndim < value.ndim:
        return axes[:along] + axes[along + 1 :]
    return [*axes[:along], _fixed(out.shape[along]), *axes[along + 1 :]]


@_rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")
def _made(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    """What is made by its shape alone keeps its order."""
    return [_fixed(size) for size in out.shape]


@_rule("embedding")
def _embedding(tracer: Tracer, args: tuple[Any, ...], out: Tensor) -> Axes:
    rows, width = tracer.axes(args[0])
    freeze(rows)
    return [*tracer.axes(args[1]), width]
