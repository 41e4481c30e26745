"""How numbers are written: with the digits that their interval supports."""

from __future__ import annotations

import math

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
INFINITIES = {"inf": math.inf, "-inf": -math.inf}

HUNDREDTHS = ("fraction", "fraction difference")
"""Units whose numbers are shown times 100."""


def interval(value: float, low: float, high: float, unit: str = "", confidence: float = 0.95) -> str:
    """Return the value with its interval, rounded to two significant digits of the interval's width.

    unit: "fraction" is written in percent, "fraction difference" in points (hundredths), "seconds" as s; any other
    follows the number as it is.
    A confidence of 0.95 goes without saying; any other is named. An interval without width is an exact number.
    An end at infinity is written as what it leaves known: "at least" or "at most"; so is a value that is itself the
    end of an interval from 0 or from or to infinity, which is a bound.

    >>> interval(0.0167, 0.0061, 0.0359, "fraction")
    '1.7 % (0.6 % to 3.6 %)'
    >>> interval(41.27, 39.8, 42.6)
    '41.3 (39.8 to 42.6)'
    >>> interval(0.04, 0.0, 0.04, "fraction")
    'at most 4.0 %'
    >>> interval(-0.009, -0.018, 0.0, "fraction difference")
    '−0.9 points (−1.8 to 0)'
    >>> interval(-0.009, -0.018, -0.000004, "fraction difference")  # it does not reach zero
    '−0.9 points (−1.8 to −0.0004)'
    >>> interval(17610, 17610, 17610, "parameters", 1.0)
    '17,610 parameters'
    """
    if low == high:
        return quantity(value, unit)
    if unit in HUNDREDTHS:
        value, low, high = 100 * value, 100 * low, 100 * high
    mark = _suffix(unit)
    sure = "" if confidence == 0.95 else f" at {100 * confidence:.12g} %"
    ends = [number for number in (low, high) if math.isfinite(number)]
    if not ends:
        return f"{plain(value)}{mark} (spread unknown)"
    if math.isinf(value):
        return f"{plain(value)}{mark} ({_one_sided(low, high, plain(ends[0]), unit)}{sure})"
    shown, tail = _together([value, *ends])
    every = mark if unit == "fraction" else ""
    if value == high and low in (0, -math.inf):
        return f"at most {_outward(value, ends, up=True)}{mark}{sure}"
    if value == low and high == math.inf:
        return f"at least {_outward(value, ends, up=False)}{mark}{sure}"
    if len(ends) == 1:
        return f"{shown[0]}{tail}{mark} ({_one_sided(low, high, shown[1] + tail, unit)}{sure})"
    return f"{shown[0]}{tail}{mark} ({shown[1]}{every} to {shown[2]}{tail}{every}{sure})"


def quantity(value: float, unit: str = "") -> str:
    """Return an exact number with its unit: integers whole, others to four significant digits.

    >>> quantity(0.03333333, "fraction"), quantity(2.5, "seconds"), quantity(float("inf"), "nats")
    ('3.333 %', '2.5 s', 'infinite nats')
    """
    return plain(100 * value if unit in HUNDREDTHS else value) + _suffix(unit)


def percent(fraction: float, *, up: bool = False) -> str:
    """Return a fraction in percent with two significant digits, one decimal at most; `up` rounds upwards.

    >>> percent(0.0318), percent(0.0318, up=True), percent(0.0321, up=True), percent(0.95), percent(0.00012)
    ('3.2 %', '3.2 %', '3.3 %', '95 %', '0.012 %')
    """
    if fraction == 0:
        return "0 %"
    value = 100 * fraction
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    # 1e-9: a bound that is a round number up to rounding error must not jump to the next digit.
    rounded = math.ceil(value * 10**digits - 1e-9) / 10**digits if up else round(value, digits)
    return f"{min(rounded, 100.0) if up else rounded:.{digits}f} %"


def plain(value: float, digits: int = 4) -> str:
    """Return a number as a person writes it: integers whole, others to so many significant digits.

    >>> plain(1234567), plain(0.00001234), plain(-2.50), plain(3.14159, 3)
    ('1,234,567', '1.234 × 10⁻⁵', '−2.5', '3.14')
    """
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    if value == int(value) and abs(value) < 1e9:
        return _sign(f"{int(value):,}")
    shown, tail = _scaled([value], [digits - 1 - _exponent(value)])
    return _sign(_without_zeros(shown[0])) + tail


def duration(seconds: float) -> str:
    """Return a time in the units in which one speaks of it.

    >>> duration(0.0213), duration(7.24), duration(102.4), duration(7380)
    ('0.02 s', '7.2 s', '1 min 42 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number(encoded: float | str | None) -> float:
    """Return what a number of a record stands for: "inf" and "-inf" are infinities, None is NaN.

    Raises `ValueError` on any other text.
    """
    if encoded is None:
        return math.nan
    if isinstance(encoded, str):
        if encoded not in INFINITIES:
            raise ValueError(f"{encoded!r} is no number of a record")
        return INFINITIES[encoded]
    return float(encoded)


def _one_sided(low: float, high: float, end: str, unit: str) -> str:
    end += _suffix(unit) if unit == "fraction" else ""
    return f"at most {end}" if math.isinf(low) and low < 0 else f"at least {end}"


def _outward(bound: float, ends: list[float], *, up: bool) -> str:
    """Write a bound rounded so that it still is one."""
    scaled = bound * 10.0 ** (decimals := _decimals([bound, *ends]))
    # 0.04 * 100 is 4.000000000000001 in doubles, which is 4.
    whole = round(scaled) if math.isclose(scaled, round(scaled), rel_tol=1e-12) else math.ceil(scaled) - (not up)
    shown, tail = _scaled([whole / 10.0**decimals], [decimals])
    return _sign(shown[0]) + tail


def _decimals(numbers: list[float]) -> int:
    """Return the decimal place of the second significant digit of the width, the fourth of a number without width."""
    width = max(numbers) - min(numbers)
    return 1 - _exponent(width) if width > 0 else 3 - _exponent(numbers[0])


def _together(numbers: list[float]) -> tuple[list[str], str]:
    """Write a value and its ends with the same decimals: two significant digits of the width."""
    decimals = _decimals(numbers)
    each = [decimals] * len(numbers)
    if min(numbers) > 0 or max(numbers) < 0:
        lost = [abs(number) < 0.5 * 10.0**-decimals for number in numbers]
        if lost[0]:
            # The interval spans orders of magnitude: common decimals would round the value to zero.
            each = [1 - _exponent(number) for number in numbers]
        else:
            # An end that rounds to zero keeps a digit: whether the interval holds zero is what it is read for.
            each = [-_exponent(number) if gone else decimals for number, gone in zip(numbers, lost, strict=True)]
    shown, tail = _scaled(numbers, each)
    return [_sign(text) for text in shown], tail


def _scaled(numbers: list[float], decimals: list[int]) -> tuple[list[str], str]:
    """Write numbers with their decimals (negative: rounded to tens, hundreds, ...), a power of ten set apart."""
    largest = _exponent(max(numbers, key=abs))
    power = largest if largest >= 6 or largest < -4 else 0
    shown = []
    for number, places in zip(numbers, decimals, strict=True):
        scaled, places = number / 10.0**power, places + power
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        shown.append("0" if number == 0 else f"{round(scaled, places) + 0.0:,.{max(0, places)}f}")
    return shown, f" × 10{str(power).translate(SUPERSCRIPTS)}" if power else ""


def _exponent(value: float) -> int:
    """Return the power of ten of the first significant digit, after rounding to twelve: 0.1 + 0.2 is 0.3."""
    return 0 if value == 0 else int(f"{value:.11e}".partition("e")[2])


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sign(text: str) -> str:
    return text.replace("-", "−")


def _suffix(unit: str) -> str:
    return {"": "", "fraction": " %", "fraction difference": " points", "seconds": " s"}.get(unit, f" {unit}")
