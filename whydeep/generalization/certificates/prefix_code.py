"""A prefix code for integers: what it takes to write a network down, in bits that can be read back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

RICE_BITS = 4
"""Bits that say the parameter of the Rice code, 0 to 15."""


def encode(integers: Sequence[int]) -> str:
    """Return the shortest Rice code of `integers`, as a text of 0 and 1; the reader must know how many there are.

    The parameter r in four bits; then for each integer z its zigzag u = 2 z or -2 z - 1 as u >> r ones, a zero, and
    the r lowest bits of u. Such texts are never the beginning of one another, so sum 2^-length <= 1 over all sequences
    of one length (Kraft 1949): 2^-length is a prior. Source: Rice 1979; Golomb 1966.

    >>> encode([0, -1, 1, 2])  # r = 0: 0, 10, 110, 11110
    '000001011011110'
    """
    folded = [2 * z if z >= 0 else -2 * z - 1 for z in integers]
    lengths = [sum((u >> r) + 1 + r for u in folded) for r in range(2**RICE_BITS)]
    best = min(range(len(lengths)), key=lambda r: lengths[r])
    words = [f"{best:0{RICE_BITS}b}"]
    for u in folded:
        low = f"{u & ((1 << best) - 1):0{best}b}" if best else ""
        words.append("1" * (u >> best) + "0" + low)
    return "".join(words)


def decode(bits: Iterator[str], count: int) -> list[int]:
    """Return the `count` integers that `encode` wrote, reading no bit beyond them.

    Raises `ValueError` when the text ends too early.

    >>> decode(iter(encode([3, 0, -7])), 3)
    [3, 0, -7]
    """
    r = number(bits, RICE_BITS)
    found = []
    for _ in range(count):
        ones = 0
        while _next(bits) == "1":
            ones += 1
        u = (ones << r) + number(bits, r)
        found.append(u // 2 if u % 2 == 0 else -(u + 1) // 2)
    return found


def number(bits: Iterator[str], width: int) -> int:
    """Return the number that the next `width` bits are, the highest first."""
    value = 0
    for _ in range(width):
        value = 2 * value + (_next(bits) == "1")
    return value


def _next(bits: Iterator[str]) -> str:
    bit = next(bits, None)
    if bit is None:
        raise ValueError("the code ends too early; give the text that encode returned, whole")
    return bit
