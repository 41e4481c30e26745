from __future__ import annotations

import math

import pytest

from whydeep.generalization.capacity.union_grid import rounded_up, step_price


def test_prices_of_the_grid_are_those_of_a_probability() -> None:
    # sum over |j| <= J is 1 - (4/3) / (J + 2): the tail of 2/3 / ((j+1)(j+2)) telescopes.
    total = sum(math.exp(-step_price(j)) for j in range(-1000, 1001))
    assert total == pytest.approx(1 - 4 / 3 / 1002, rel=1e-9)


@pytest.mark.parametrize("ratio", [2.0, 1 + 1 / 3])
@pytest.mark.parametrize("value", [1e-9, 0.3, 1.0, 7.0, 1e12])
def test_a_number_is_rounded_up_by_less_than_the_ratio(value: float, ratio: float) -> None:
    rounded, price = rounded_up(value, ratio)
    assert value <= rounded < value * ratio * (1 + 1e-9)  # the power is rounded to 16 digits
    assert price == pytest.approx(step_price(round(math.log(rounded) / math.log(ratio))))


def test_zero_needs_no_grid() -> None:
    assert rounded_up(0.0, 2.0) == (0.0, 0.0)
