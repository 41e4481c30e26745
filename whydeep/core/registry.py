"""Finds theorems and instruments: by walking the packages, and by entry points of other installed packages.

Adding one is adding one file; nothing is edited. A package of somebody else's offers its own by the entry-point
groups "whydeep.theorems" (objects of type `Claim`) and "whydeep.instruments" (of type `Instrument`).
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TypeVar

from .claim import QUESTIONS, Claim
from .errors import InputError
from .instrument import Instrument

Found = TypeVar("Found", Claim, Instrument)


def claims() -> dict[str, Claim]:
    """Return every claim by id, question after question, in the order of their ids."""
    found = _walk("theorems", "claim", Claim) + _plugged("whydeep.theorems", Claim)
    _check_names([claim.id for claim in found])
    return {claim.id: claim for claim in sorted(found, key=lambda c: (QUESTIONS.index(c.question), c.id))}


def instruments() -> dict[str, Instrument]:
    """Return every instrument by name, question after question, in the order of their ranks."""
    found = _walk("instruments", "instrument", Instrument) + _plugged("whydeep.instruments", Instrument)
    _check_names([instrument.name for instrument in found])
    order = sorted(found, key=lambda i: (QUESTIONS.index(i.question), i.rank, i.name))
    return {instrument.name: instrument for instrument in order}


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"two claims or instruments are called {', '.join(twice)}", "rename or uninstall the plug-in's"
        )


def _walk(folder: str, attribute: str, kind: type[Found]) -> list[Found]:
    found = []
    for question in QUESTIONS:
        package = importlib.import_module(f"whydeep.{question}.{folder}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            value = getattr(importlib.import_module(module.name), attribute, None)
            if not isinstance(value, kind):
                raise TypeError(f"{module.name} has no {attribute} of type {kind.__name__}; add one at module level")
            found.append(value)
    return found


def _plugged(group: str, kind: type[Found]) -> list[Found]:
    found = []
    for point in entry_points(group=group):
        try:
            value = point.load()
        except Exception as fault:
            raise InputError(
                f"the plug-in {point.value} cannot be loaded: {fault}", "repair or uninstall it"
            ) from fault
        if not isinstance(value, kind):
            raise InputError(
                f"the plug-in {point.value} is a {type(value).__name__}",
                f"let {group} name a {kind.__name__}",
            )
        found.append(value)
    return found
