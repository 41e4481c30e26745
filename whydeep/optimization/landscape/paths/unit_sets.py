"""Sets of units along the axes of tensors, and what it means that two axes number the same units."""

from __future__ import annotations

from collections.abc import Sequence


class Units:
    """A set of `size` units along (part of) an axis. fixed: whether their order has to stay.

    Units that turn out to be others, or products of others (heads times units of a head), point to them.
    """

    def __init__(self, size: int, *, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed
        self.parts: list[Units] | None = None

    def become(self, parts: list[Units]) -> None:
        """Let these units be the product of `parts`, outermost first; what is fixed stays so."""
        if self.fixed:
            for part in parts:
                part.fixed = True
        self.parts = parts


Axis = list[Units]
"""The units along an axis as a product, outermost first; an axis of length 1 is empty."""


def resolved(axis: Sequence[Units]) -> Axis:
    """Return the axis in terms of units that point to no others."""
    found: Axis = []
    for units in axis:
        found += [units] if units.parts is None else resolved(units.parts)
    return found


def freeze(axis: Sequence[Units]) -> None:
    """Let the units along the axis keep their order."""
    for units in resolved(axis):
        units.fixed = True


def split(units: Units, outer: int) -> tuple[Units, Units] | None:
    """Let the units be `outer` groups of equally many; None when that does not come out even."""
    if units.size % outer:
        return None
    parts = Units(outer), Units(units.size // outer)
    units.become(list(parts))
    return parts


def join(first: Sequence[Units], second: Sequence[Units]) -> None:
    """Let two axes of equal length number the same units.

    Where one of them is cut more finely, the other is cut as well: a coarser set of orders, all of them still valid.
    Where the cuts do not fit, both keep their order.
    """
    one, other = resolved(first), resolved(second)
    while one and other:
        a, b = one.pop(0), other.pop(0)
        if a is b:
            continue
        if a.size > b.size:
            a, b, one, other = b, a, other, one
        if a.size == b.size:
            b.become([a])
        elif (parts := split(b, a.size)) is not None:
            a_like, rest = parts
            a_like.become([a])
            other.insert(0, rest)
        else:
            freeze([a, b, *one, *other])
            return
        # The same units may stand on both sides once more, further on.
        one, other = resolved(one), resolved(other)


def cut(axis: Sequence[Units], sizes: Sequence[int]) -> list[Axis]:
    """Return axes of the given lengths whose product is the axis, as a reshape makes them.

    Units across a border are cut where that comes out even, else everything keeps its order.
    """
    rest = [units for units in resolved(axis) if units.size > 1]
    found: list[Axis] = []
    for size in sizes:
        part: Axis = []
        left = size
        while left > 1:
            units = rest.pop(0)
            if units.size > left:
                parts = split(units, left)
                if parts is None:
                    freeze([*axis, units])
                    return [[Units(each, fixed=True)] for each in sizes]
                units = parts[0]
                rest.insert(0, parts[1])
            if left % units.size:
                freeze([*axis, units])
                return [[Units(each, fixed=True)] for each in sizes]
            part.append(units)
            left //= units.size
        found.append(part)
    return found
