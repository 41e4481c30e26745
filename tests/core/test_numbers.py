import math

import pytest

from whydeep.core.numbers import duration, interval, number, plain, quantity


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "confidence", "expected"),
    [
        # Width 2.98 points: two digits of it are tenths.
        (0.0167, 0.0061, 0.0359, "fraction", 0.95, "1.7 % (0.6 % to 3.6 %)"),
        # Width 0.199 points: hundredths.
        (0.01667, 0.01571, 0.0177, "fraction", 0.95, "1.67 % (1.57 % to 1.77 %)"),
        # Width 30 points: whole ones.
        (0.5, 0.35, 0.65, "fraction", 0.95, "50 % (35 % to 65 %)"),
        # An exact zero is 0; its upper end keeps the digits: width 1.02.
        (0.0, 0.0, 0.01019, "fraction", 0.95, "0 % (0 % to 1.0 %)"),
        # Another confidence is named.
        (0.0167, 0.0061, 0.0359, "fraction", 0.99, "1.7 % (0.6 % to 3.6 % at 99 %)"),
        # Width 2.8: tenths. The unit follows the value once.
        (41.27, 39.8, 42.6, "", 0.95, "41.3 (39.8 to 42.6)"),
        (12.345, 11.0, 14.1, "seconds", 0.95, "12.3 s (11.0 to 14.1)"),
        # Width 0.04: thousandths.
        (2.3026, 2.28, 2.32, "nats", 0.95, "2.303 nats (2.280 to 2.320)"),
        # Width 2,980: hundreds.
        (12345.0, 11020.0, 14000.0, "", 0.95, "12,300 (11,000 to 14,000)"),
        (-0.25, -0.31, -0.19, "", 0.95, "−0.25 (−0.31 to −0.19)"),
        # The rounded value -0.004 is zero without a sign: width 0.3, hundredths.
        (-0.004, -0.154, 0.146, "", 0.95, "0.00 (−0.15 to 0.15)"),
        # Ends on one side of zero stay there, with one digit where the width's two would round them to zero.
        (0.009, 0.000004, 0.018, "fraction difference", 0.95, "0.9 points (0.0004 to 1.8)"),
        (-12.0, -30.0, -0.013, "", 0.95, "−12 (−30 to −0.01)"),
        (-0.009, -0.018, 0.000004, "fraction difference", 0.95, "−0.9 points (−1.8 to 0.0)"),
        # A common power of ten: 2.31e-5 in a width of 6e-6, two digits of which are 1e-7.
        (2.31e-5, 1.9e-5, 2.5e-5, "", 0.95, "2.31 × 10⁻⁵ (1.90 to 2.50 × 10⁻⁵)"),
        (4.2e8, 3.1e8, 6.1e8, "", 0.95, "4.2 × 10⁸ (3.1 to 6.1 × 10⁸)"),
        # The value would vanish beside the width of 3,000: two digits each.
        (0.5, 0.001, 3000.0, "", 0.95, "0.50 (0.0010 to 3,000)"),
        # Exact numbers: as they are, four digits.
        (17610, 17610, 17610, "parameters", 1.0, "17,610 parameters"),
        (0.123456, 0.123456, 0.123456, "", 1.0, "0.1235"),
        (0.0333333, 0.0333333, 0.0333333, "fraction", 1.0, "3.333 %"),
        # Ends at infinity.
        (2.5, -math.inf, math.inf, "", 0.95, "2.5 (spread unknown)"),
        (12.0, 8.0, math.inf, "nats", 0.95, "12.0 nats (at least 8.0)"),
        (0.12, -math.inf, 0.2, "fraction", 0.95, "12.0 % (at most 20.0 %)"),
        (math.inf, math.inf, math.inf, "", 1.0, "infinite"),
        (math.inf, 3.0, math.inf, "", 0.95, "infinite (at least 3)"),
        # The value is a bound: two digits of the width from 0, four digits where there is no width.
        (0.0397, 0.0, 0.0397, "fraction", 0.95, "at most 4.0 %"),
        (0.0531, 0.0, 0.0531, "fraction", 0.95, "at most 5.4 %"),  # a bound is rounded outward
        (5.3999, 5.3999, math.inf, "", 0.95, "at least 5.399"),
        (0.0397, 0.0, 0.0397, "fraction", 0.99, "at most 4.0 % at 99 %"),
        (1.23456, 1.23456, math.inf, "", 0.95, "at least 1.234"),
        (1.23456, -math.inf, 1.23456, "nats", 0.95, "at most 1.235 nats"),
        # All of 360: the upper end is 1, but the value is no bound. Width 1.02 points.
        (1.0, 0.9898, 1.0, "fraction", 0.95, "100.0 % (99.0 % to 100.0 %)"),
    ],
)
def test_the_digits_are_those_of_the_interval(value, low, high, unit, confidence, expected):
    assert interval(value, low, high, unit, confidence) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-3.0, "−3"),
        (0.1 + 0.2, "0.3"),
        (9.9996, "10"),
        (999999.5, "1,000,000"),
        (1234.5678, "1,235"),
        (0.00012346, "0.0001235"),
        (6.02214e23, "6.022 × 10²³"),
        (-math.inf, "−infinite"),
    ],
)
def test_an_exact_number_has_four_digits(value, expected):
    assert plain(value) == expected


def test_units_follow_exact_numbers():
    assert quantity(1.0, "fraction") == "100 %"
    assert quantity(3, "seeds") == "3 seeds"
    assert quantity(2.5) == "2.5"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0.00 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (119.7, "2 min 0 s"), (3599.6, "1 h 0 min")],
)
def test_durations_carry_over_at_the_full_minute_and_hour(seconds, expected):
    assert duration(seconds) == expected


def test_numbers_of_a_record_are_decoded():
    assert number("inf") == math.inf
    assert number("-inf") == -math.inf
    assert math.isnan(number(None))
    assert number(3) == 3.0
    with pytest.raises(ValueError, match="no number of a record"):
        number("many")
