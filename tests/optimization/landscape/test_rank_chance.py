"""The exact chance of an order, against all orders one by one."""

from __future__ import annotations

from itertools import permutations

import pytest
from scipy import stats

from whydeep.optimization.landscape.rank_chance import chance_of_order


def out_of_order(values: tuple[int, ...]) -> int:
    return sum(values[i] > values[j] for i in range(len(values)) for j in range(i + 1, len(values)))


@pytest.mark.parametrize(
    "values", [(3, 1, 4, 2, 5), (0, 0, 1, 0, 1), (2, 2, 1, 1, 0, 0), (1, 0, 2, 0, 3, 0), (7, 7, 7), (1,), (4, 3, 2, 1)]
)
def test_it_is_the_share_of_all_orders(values: tuple[int, ...]) -> None:
    orders = [out_of_order(order) for order in permutations(values)]
    share = sum(count <= out_of_order(values) for count in orders) / len(orders)
    assert chance_of_order(values) == pytest.approx(share, rel=1e-12)


def test_without_ties_it_is_the_exact_chance_of_kendalls_correlation() -> None:
    order = [2, 1, 4, 3, 6, 5, 9, 7, 8, 12, 10, 11]
    known = stats.kendalltau(range(12), order, alternative="greater", method="exact").pvalue
    assert chance_of_order(order) == pytest.approx(float(known), rel=1e-9)


def test_no_values_are_in_order() -> None:
    assert chance_of_order([]) == 1
