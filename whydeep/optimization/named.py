"""Solvers by name, as the command line gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from whydeep.core.errors import InputError
from whydeep.core.training import Solver

from .admm import ADMM
from .backprop import Backprop
from .sgld import SGLD

FAMILY: dict[str, Callable[[int], Solver]] = {
    "adam": lambda epochs: Backprop(torch.optim.Adam, lr=1e-3, epochs=epochs, schedule="cosine"),
    "admm": lambda epochs: ADMM(),
    "sgd": lambda epochs: Backprop(
        torch.optim.SGD, lr=0.05, epochs=epochs, schedule="cosine", options={"momentum": 0.9}
    ),
    # Temperature 1e-4 per mean loss: the noise of a step of 0.05 is then sd 0.003 an entry.
    "sgld": lambda epochs: Backprop(SGLD, lr=0.05, epochs=epochs, options={"beta": 1e4}),
}


def by_name(spec: str, *, samples: int) -> Solver:
    """Return the solver of "NAME?key=value&...": adam, sgd, sgld or admm with any of its hyper-parameters.

    samples: size of the training data; unless `epochs` or `steps` is given, back-propagation takes about 3,000 steps,
    and between 5 and 60 passes.

    Raises `InputError` on an unknown name (the valid ones are listed), an unknown key or a value that does not fit.

    >>> by_name("adam?lr=0.01&epochs=3", samples=1000).epochs
    3
    """
    name, _, text = spec.partition("?")
    if name not in FAMILY:
        raise InputError(f"unknown solver {name!r}", f"give one of {', '.join(FAMILY)}")
    solver: Any = FAMILY[name](min(60, max(5, round(3000 / math.ceil(samples / 64)))))
    for pair in filter(None, text.split("&")):
        key, _, value = pair.partition("=")
        solver = _with(solver, name, key, value)
    return solver  # type: ignore[no-any-return]


def _with(solver: Any, name: str, key: str, text: str) -> Any:
    value = _value(text)
    fields = [field for field in solver.__dataclass_fields__ if field not in ("optimizer", "options")]
    extra = isinstance(solver, Backprop) and key in _options(solver)
    if key not in fields and not extra:
        known = fields + (_options(solver) if isinstance(solver, Backprop) else [])
        raise InputError(f"solver {name} has no {key!r}", f"give one of {', '.join(known)}")
    try:
        if extra:
            return replace(solver, options={**solver.options, key: value})
        if key == "steps":
            return replace(solver, steps=value, epochs=None)
        return replace(solver, **{key: value})
    except (TypeError, ValueError) as fault:
        raise InputError(f"solver {name}: {fault}", f"change {key}={text}") from fault


def _options(solver: Backprop) -> list[str]:
    names = list(inspect.signature(solver.optimizer).parameters)
    return [name for name in names if name not in ("self", "params", "lr", "generator")]


def _value(text: str) -> Any:
    if text.lower() in ("yes", "true", "no", "false", "none"):
        return {"yes": True, "true": True, "no": False, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
