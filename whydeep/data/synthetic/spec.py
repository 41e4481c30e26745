"""Synthetic sets by name, with the options of their functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.data.spec import Spec

from .compositional import compositional
from .gaussian_mixture import gaussian_mixture
from .ridge_sum import ridge_sum
from .spirals import spirals
from .teacher_student import teacher_student

SETS: dict[str, Callable[..., Data]] = {
    "compositional": compositional,
    "gaussian_mixture": gaussian_mixture,
    "ridge_sum": ridge_sum,
    "spirals": spirals,
    "teacher_student": teacher_student,
}


def synthetic(spec: Spec, generator: torch.Generator) -> tuple[Data, None]:
    """Return the synthetic set of that name; its options are the arguments of its function, n the samples of both
    parts together.

    Raises `InputError` on an unknown name or option, or on a value that the function refuses.
    """
    if spec.location not in SETS:
        raise InputError(f"there is no synthetic set {spec.location!r}", f"give one of {', '.join(SETS)}")
    make = SETS[spec.location]
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(make).parameters.items() if name != "generator"
    }
    spec.known((*defaults, "test_fraction"), f"synthetic:{spec.location}")
    given = {name: _value(spec, name, defaults[name]) for name in spec.options if name in defaults}
    try:
        return make(**given, generator=generator), None
    except ValueError as fault:
        raise InputError(f"synthetic:{spec.location} cannot be drawn", str(fault)) from fault


def _value(spec: Spec, name: str, default: object) -> object:
    """Return the option as the type of the argument's default."""
    if isinstance(default, bool):  # before int, of which bool is one
        return spec.flag(name, default)
    if isinstance(default, int):
        return spec.integer(name, default, least=0)
    if isinstance(default, float):
        return spec.number(name, default)
    return spec.text(name, "")
