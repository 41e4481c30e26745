"""The plain certificate: count mistakes on samples that the classifier was fixed without, and invert a tail.

The held-out mistakes of a classifier that was fixed before it saw them are independent coin flips with bias R, its
risk. So nothing about the classifier matters: not its size, not how it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from whydeep.core.data import Data
from whydeep.generalization.risk import Classifier, mistakes

from .certificate import Certificate, guessing, shares
from .inversion import binomial_tail_inverse, check_counts, check_delta, kl_inverse

ASSUMPTIONS = (
    "the held-out samples are independent draws of the distribution that the risk is about",
    "the classifier, and every candidate it was chosen among, was fixed without the held-out samples",
)


def kl_bound(k: int, n: int, delta: float) -> float:
    """Return max {p : kl(k/n || p) <= ln(1/delta) / n}: Chernoff's relative of `binomial_tail_inverse`.

    Never below it, since P(Binomial(n, p) <= k) <= exp(-n kl(k/n || p)) for k/n <= p (Chernoff 1952).
    """
    check_counts(k, n, delta)
    return kl_inverse(k / n, math.log(1 / delta) / n)


def hoeffding_bound(k: int, n: int, delta: float) -> float:
    """Return k/n + sqrt(ln(1/delta) / (2 n)), at most 1 (Hoeffding 1963), rounded up.

    >>> round(hoeffding_bound(8, 450, 0.05), 4)
    0.0755
    """
    check_counts(k, n, delta)
    value = k / n + math.sqrt(math.log(1 / delta) / (2 * n))
    return min(1.0, value * (1 + 1e-14))  # a few roundings of 1.1e-16 each


def check_candidates(candidates: int) -> None:
    """Raise `ValueError` unless a whole number of classifiers, one or more, was compared."""
    if not 1 <= candidates < math.inf or candidates != int(candidates):
        raise ValueError(f"candidates={candidates}; give the number of classifiers compared, at least 1")


BOUNDS: dict[str, Callable[[int, int, float], float]] = {
    "binomial": binomial_tail_inverse,
    "hoeffding": hoeffding_bound,
    "kl": kl_bound,
}


def heldout_certificate(
    model: Classifier, heldout: Data, *, delta: float = 0.05, method: str = "binomial", candidates: int = 1
) -> Certificate:
    """Return the certificate from counted mistakes: "binomial" (never beaten by the other two), "kl" or "hoeffding".

    Terms: the error measured; what delta costs; what the union bound over candidates adds.
    Raises `ValueError` on a delta outside (0, 1), an unknown method or candidates below 1, `InputError` when the data
    have no classes or the classifier's output does not fit. Cost: one pass over `heldout`.
    """
    if method not in BOUNDS:
        raise ValueError(f"unknown method {method!r}; give one of {', '.join(BOUNDS)}")
    check_candidates(candidates)
    check_delta(delta)
    errors, n = int(mistakes(model, heldout).sum()), len(heldout)
    alone = BOUNDS[method](errors, n, delta)
    stages = [("error measured", errors / n), ("confidence, ln(1/delta)", alone)]
    union: tuple[str, ...] = ()
    bound = alone
    if candidates > 1:
        bound = BOUNDS[method](errors, n, delta / candidates)
        stages.append(("union over candidates", bound))
        union = (f"delta / {candidates}, for {candidates} classifiers compared on the same samples",)
    return Certificate(
        bound=bound,
        method=method,
        n=n,
        delta=delta,
        error=errors / n,
        terms=shares(stages),
        assumptions=ASSUMPTIONS,
        errors=errors,
        trivial=guessing(heldout),
        candidates=candidates,
        union=union,
    )
