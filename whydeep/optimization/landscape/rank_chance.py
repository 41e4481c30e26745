"""How often unrelated ranks agree as well as those that were seen: the exact chance behind Kendall's correlation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def chance_of_order(values: Sequence[float]) -> float:
    """Return the share of all orders of `values` that have no more pairs out of order than this one.

    A pair i < j is out of order where values[i] > values[j]; equal values are never. With n values, d pairs out of
    order and t pairs of equal values, Kendall's correlation against 1..n grows as d falls, so that this is its exact
    one-sided chance, ties included, where the usual normal approximation is a few parts in ten off for few points.
    The orders of a multiset with n_1, n_2, ... equal values are counted by their d in the coefficients of the
    q-multinomial prod_{i<=n} (1 - q^i) / prod_k prod_{i<=n_k} (1 - q^i) (MacMahon 1916; recalled, not checked against
    the book, and tested against all orders one by one). 1 for no values. Cost: n^2 pairs and n d additions of whole
    numbers.

    >>> chance_of_order([1, 2, 3, 4, 5]) == 1 / 120, chance_of_order([2, 1]), round(chance_of_order([0, 0, 1, 1]), 6)
    (True, 1.0, 0.166667)
    """
    out = sum(first > second for place, first in enumerate(values) for second in values[place + 1 :])
    counts = [1] + [0] * out  # coefficients of q^0 ... q^out; those beyond are not asked for
    for power in range(1, len(values) + 1):
        for place in range(out, power - 1, -1):
            counts[place] -= counts[place - power]
    orders, left = 1, len(values)
    for equal in Counter(values).values():
        orders, left = orders * comb(left, equal), left - equal
        for power in range(1, equal + 1):
            for place in range(power, out + 1):
                counts[place] += counts[place - power]
    return sum(counts) / orders
