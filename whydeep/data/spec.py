"""Data SPECs: the one line by which a user names data, taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from whydeep.core.errors import InputError


@dataclass(frozen=True)
class Spec:
    """A data SPEC `kind[:location][?key=value&key=value]`.

    Options begin after the last `?`; `%26` in a value stands for `&`, as in web addresses, and the location is taken
    as it stands, spaces included. A location that has a `?` of its own and no options is closed by another `?`.
    Each reading method raises `InputError` when the value is not of the wanted kind.

    >>> spec = parse("csv:my data/wine.csv?target=quality&test_fraction=0.3")
    >>> spec.kind, spec.location, spec.number("test_fraction", 0.2)
    ('csv', 'my data/wine.csv', 0.3)
    """

    kind: str
    location: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str, default: str) -> str:
        """Return an option as it stands."""
        return self.options.get(name, default)

    def integer(self, name: str, default: int, *, least: int = 1) -> int:
        """Return an option as a whole number that is at least `least`."""
        try:
            value = int(self.options.get(name, default))
        except ValueError:
            value = least - 1
        if value < least:
            raise self._refusal(name, f"a whole number of at least {least}")
        return value

    def number(self, name: str, default: float) -> float:
        """Return an option as a finite number."""
        try:
            value = float(self.options.get(name, default))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._refusal(name, "a finite number")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return an option that is yes or no."""
        return self.choice(name, ("yes", "no"), "yes" if default else "no") == "yes"

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Return an option that is one of `choices`."""
        value = self.options.get(name, default)
        if value not in choices:
            raise self._refusal(name, " or ".join(choices))
        return value

    def known(self, names: Sequence[str], what: str) -> None:
        """Raise `InputError` when an option is none of `names`; `what` is what has the options."""
        unknown = [name for name in self.options if name not in names]
        if unknown:
            valid = f"use {', '.join(names)}" if names else "give none"
            raise InputError(f"{what} has no option {', '.join(unknown)}", valid)

    def _refusal(self, name: str, wanted: str) -> InputError:
        return InputError(f"the option {name}={self.options.get(name)} cannot be used", f"give {wanted}")


def parse(text: str) -> Spec:
    """Take a SPEC apart; raises `InputError` on an option without a value, or given twice."""
    body, mark, tail = text.rpartition("?")
    if not mark:
        body, tail = text, ""
    kind, _, location = body.partition(":")
    options: dict[str, str] = {}
    for piece in filter(None, tail.split("&")):
        name, equals, value = piece.partition("=")
        if not equals or not value:
            raise InputError(
                f"the option {piece!r} in {text!r} has no value",
                "write key=value after the ?, or close a path that has a ? of its own by another ?",
            )
        if name in options:
            raise InputError(f"the option {name} stands twice in {text!r}", "give it once")
        options[name] = unquote(value)
    return Spec(kind, location, options)
