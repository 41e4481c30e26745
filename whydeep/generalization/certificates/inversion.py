"""Tail inversions: the largest risk under which what was seen is still not too improbable. All are rounded up."""

from __future__ import annotations

import math
from numbers import Real

from scipy import stats


def binomial_tail_inverse(k: int, n: int, delta: float) -> float:
    """Return the largest risk p under which so few mistakes still have probability delta.

    max {p : P(Binomial(n, p) <= k) >= delta} = quantile 1 - delta of Beta(k + 1, n - k); 1 - delta^(1/n) without a
    mistake, 1 when all are. k: mistakes; n: samples.
    Rounded outwards: at the p returned the probability, computed again, is below delta.
    Raises `ValueError` unless 0 <= k <= n, n >= 1 and 0 < delta < 1.
    Source: Langford 2005, "Tutorial on practical prediction theory for classification", Theorem 3.3 (number recalled,
    not checked against the paper); Clopper and Pearson 1934.

    >>> round(binomial_tail_inverse(0, 20, 0.05), 6)  # 1 - 0.05^(1/20)
    0.139108
    """
    check_counts(k, n, delta)
    if k == n:
        return 1.0
    bound = float(stats.beta.ppf(1 - delta, k + 1, n - k))
    # 1 - delta is 1 for the smallest deltas, and then so is the quantile; its complement keeps its digits.
    if bound == 1.0 or delta < 1e-3:
        bound = float(stats.beta.isf(delta, k + 1, n - k))
    # The tail is computed to about 1e-13 of itself, so asking for 1e-11 less than delta makes the inequality certain.
    step = 2.0**-52
    while bound < 1 and not stats.binom.cdf(k, n, bound) < delta * (1 - 1e-11):
        bound = min(1.0, math.nextafter(bound * (1 + step), 1.0))
        step *= 2
    return bound


def binary_kl(q: float, p: float) -> float:
    """Return kl(q || p) = q ln(q/p) + (1-q) ln((1-q)/(1-p)) in nats, with 0 ln 0 = 0.

    Exact to some 1e-15 of itself also where p is next to q and the two logarithms nearly cancel. Raises `ValueError`
    outside [0, 1].

    >>> binary_kl(0.5, 0.5), round(binary_kl(0.0, 0.5), 6)
    (0.0, 0.693147)
    """
    if not (0 <= q <= 1 and 0 <= p <= 1):
        raise ValueError(f"q={q}, p={p}; give two probabilities in [0, 1]")
    return _kl_beyond(q, p - q, 1 - p)


def _kl_beyond(q: float, step: float, rest: float) -> float:
    """kl(q || q + step), rest being 1 - q - step.

    With e the step, ln(q/p) = -ln(1 + e/q) and ln((1-q)/(1-p)) = -ln(1 - e/(1-q)). The parts linear in e are -e and
    +e and cancel exactly, so they are left out of both: kl = q h(e/q) + (1-q) h(-e/(1-q)) with h(x) = x - ln(1 + x).
    """
    if (q > 0 and q + step <= 0) or (q < 1 and rest <= 0):
        return math.inf
    # Without one of its two parts the other one's linear part has nothing to cancel with.
    # (Below 1e-300 that part itself is less than 1e-297.)
    if q < 1e-300:
        return -math.log1p(-step)
    if q == 1:
        return -math.log1p(step)
    return q * _log_excess(step / q) + (1 - q) * _log_excess(-step / (1 - q))


def _log_excess(x: float) -> float:
    """Return x - ln(1 + x) >= 0, by its series x^2/2 - x^3/3 + ... for small x; infinite at -1."""
    if x <= -1:
        return math.inf
    if abs(x) > 0.1:
        return x - math.log1p(x)
    # 0.1^16 / 18 is below 1e-17 of the first term.
    total = 0.0
    for power in range(18, 1, -1):
        total = 1 / power - x * total
    return x * x * total


def kl_inverse(q: float, c: float) -> float:
    """Return max {p in [q, 1] : kl(q || p) <= c}, rounded up; about 60 evaluations of kl.

    q at c = 0, 1 at c = infinity, 1 - exp(-c) at q = 0. Bisection keeps an upper end at which kl exceeds c, and that
    end is returned: kl(q || p) >= c there, so that the risk is never understated.
    Raises `ValueError` unless q is a probability and c >= 0.

    >>> round(kl_inverse(0.0, 0.1), 6), kl_inverse(0.25, 0.0)  # 1 - exp(-0.1)
    (0.095163, 0.25)
    """
    if not (0 <= q <= 1 and c >= 0):
        raise ValueError(f"q={q}, c={c}; give a probability and a number >= 0")
    if c == 0 or q == 1:
        return q
    low, high = 0.0, 1 - q
    # Rounding disturbs kl by some 1e-15 of itself; 1e-12 more than c stays clear of it.
    enough = c * (1 + 1e-12)
    while low < (middle := (low + high) / 2) < high and high - low > 1e-15 * high:
        if _kl_beyond(q, middle, 1 - q - middle) > enough:
            high = middle
        else:
            low = middle
    return min(1.0, math.nextafter(q + high, 2.0))


def check_counts(k: int, n: int, delta: float) -> None:
    """Raise `ValueError` unless k and n are whole, 0 <= k <= n, n >= 1 and 0 < delta < 1."""
    if k != int(k) or n != int(n):
        raise ValueError(f"{k} errors of {n} samples; give whole numbers")
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} errors of {n} samples; give 0 <= errors <= samples, samples >= 1")
    check_delta(delta)


def check_delta(delta: float) -> None:
    """Raise `ValueError` unless delta is a probability strictly between 0 and 1, `TypeError` unless it is a number."""
    if not isinstance(delta, Real):
        raise TypeError(f"delta is {type(delta).__name__}; give a probability in (0, 1)")
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}; give a probability in (0, 1)")
