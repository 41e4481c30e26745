"""Networks by name, for the command line: "mlp:100,100?activation=sigmoid&init=xavier&gain=4"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from whydeep.core.errors import InputError

from .cnn import cnn
from .linear import linear
from .mlp import ACTIVATIONS, INITS, mlp
from .source import Source

Parser = Callable[[str], Any]

NETWORKS = ("cnn", "linear", "mlp")
WIDTHS = {"cnn": (16, 32), "mlp": (100, 100)}
"""The widths when none are named: channels of the blocks, and hidden widths."""


def by_name(spec: str, *, input_shape: tuple[int, ...], outputs: int) -> Source:
    """Return a source whose factory makes the network "NAME[:WIDTHS][?OPTION=VALUE&...]" for samples of a shape.

    mlp:100,100  hidden widths; options activation, init (default, he, orthogonal, xavier) and gain, as in `mlp`.
    cnn:16,32    channels of the blocks; option batch_norm (yes, no).
    linear       one layer, no options.

    Raises `InputError` on an unknown name, option or value (the valid ones are listed), or when the samples do not
    fit the network.

    >>> source = by_name("mlp:20?activation=tanh", input_shape=(1, 8, 8), outputs=10)
    >>> source.factory()
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=64, out_features=20, bias=True)
      (2): Tanh()
      (3): Linear(in_features=20, out_features=10, bias=True)
    )
    """
    head, _, tail = spec.partition("?")
    name, colon, numbers = head.partition(":")
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}", f"give {', '.join(NETWORKS)}, or FILE.py:OBJECT")
    if colon and name not in WIDTHS:
        raise InputError(f"{spec!r} gives widths to {name}", f"write {name} alone")
    widths = _widths(spec, numbers) if colon else WIDTHS.get(name, ())
    options = _options(name, tail)
    factory = _factory(name, widths, options, input_shape=tuple(input_shape), outputs=outputs)
    try:
        # Built once without memory, so that a mistake is seen now; what is drawn on this device is not random.
        with torch.device("meta"):
            _factory(name, widths, options | _plain(options), input_shape=tuple(input_shape), outputs=outputs)()
    except ValueError as fault:
        raise InputError(f"{name} cannot be built: {fault}", "choose another --model or other data") from fault
    return Source(factory=factory)


def _factory(
    name: str, widths: Sequence[int], options: Mapping[str, Any], *, input_shape: tuple[int, ...], outputs: int
) -> Callable[[], nn.Module]:
    inputs = math.prod(input_shape)
    if name == "mlp":
        return lambda: mlp((inputs, *widths, outputs), **options)
    if name == "cnn":
        # The cnn itself refuses samples that are no images.
        return lambda: cnn(input_shape, outputs, channels=widths, **options)  # type: ignore[arg-type]
    return lambda: linear(inputs, outputs)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    # Orthogonal matrices need numbers to be made of, which the device without memory has not.
    return {"init": "default"} if "init" in options else {}


def _options(name: str, text: str) -> dict[str, Any]:
    known: dict[str, dict[str, Parser]] = {
        "cnn": {"batch_norm": _choice({"yes": True, "no": False})},
        "linear": {},
        "mlp": {
            "activation": _choice({key: key for key in ACTIVATIONS}),
            "init": _choice({key: key for key in INITS}),
            "gain": _positive,
        },
    }
    valid = known[name]
    options: dict[str, Any] = {}
    for part in text.split("&") if text else []:
        key, equals, value = part.partition("=")
        if not equals or key not in valid or key in options:
            fault = "twice" if key in options else "which it has not" if equals else "without a value"
            raise InputError(
                f"{name} is given the option {part!r} {fault}", f"it has {', '.join(valid) or 'no options'}"
            )
        try:
            options[key] = valid[key](value)
        except ValueError as fault:
            raise InputError(f"{key}={value} for {name}", str(fault)) from fault
    return options


def _widths(spec: str, text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise InputError(f"the widths in {spec!r} are {text!r}", "give whole numbers from 1, as in mlp:100,100")
    return widths


def _choice(values: Mapping[str, Any]) -> Parser:
    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError(f"give {', '.join(values)}")
        return values[text]

    return parse


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError("give a number > 0")
    return number
