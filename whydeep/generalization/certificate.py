"""A certificate: with probability 1 - delta over the held-out data, the risk is at most this.

The held-out mistakes of a classifier that was fixed before it saw them are independent coin flips with bias R, its
risk. So nothing about the classifier matters: not its size, not how it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats

from whydeep.core.data import Data
from whydeep.core.numbers import percent

from .risk import Classifier, mistakes

ASSUMPTIONS = (
    "the held-out samples are independent draws of the distribution that the risk is about",
    "the classifier, and every candidate it was chosen among, was fixed without the held-out samples",
)


@dataclass(frozen=True)
class Certificate:
    """P(risk > bound) <= delta, the probability being over the held-out samples.

    bound: fraction in [0, 1], rounded up. method: "binomial", "kl" or "hoeffding". errors of samples: what was counted.
    candidates: how many classifiers were compared on the same held-out samples; each is paid delta / candidates.
    trivial: the error of always guessing the commonest class of the held-out samples, at most 1 - 1/classes (1 where
    the number of classes is not known).
    """

    bound: float
    method: str
    errors: int
    samples: int
    delta: float
    candidates: int = 1
    trivial: float = 1.0
    assumptions: tuple[str, ...] = ASSUMPTIONS

    @property
    def rate(self) -> float:
        """The error measured on the held-out samples, as a fraction."""
        return self.errors / self.samples

    @property
    def slack(self) -> float:
        """How much the bound exceeds the measured error: the price of finitely many samples."""
        return self.bound - self.rate

    @property
    def vacuous(self) -> bool:
        """Whether guessing would keep the same promise."""
        return self.bound >= self.trivial

    @property
    def sentence(self) -> str:
        """The certificate in words, the bound rounded up."""
        chosen = "" if self.candidates == 1 else f", chosen among {self.candidates}"
        guess = "; guessing does as well" if self.vacuous else ""
        return (
            f"Its error on new samples is at most {percent(self.bound, up=True)} ({percent(1 - self.delta)} sure); "
            f"it measures {percent(self.rate)} ({self.errors} of {self.samples}{chosen}){guess}."
        )


def binomial_bound(errors: int, samples: int, *, delta: float) -> float:
    """Return the largest risk p under which so few mistakes still have probability delta.

    max {p : P(Binomial(samples, p) <= errors) >= delta} = quantile 1 - delta of Beta(errors + 1, samples - errors);
    1 - delta^(1/samples) without a mistake, 1 when all are. Source: Langford 2005, "Tutorial on practical prediction
    theory for classification", Theorem 3.3 (number recalled, not checked against the paper); Clopper and Pearson 1934.
    Rounded outwards: at the p returned the probability, computed again, is below delta.

    >>> round(binomial_bound(0, 20, delta=0.05), 6)  # 1 - 0.05^(1/20)
    0.139108
    """
    _check(errors, samples, delta)
    if errors == samples:
        return 1.0
    bound = float(stats.beta.ppf(1 - delta, errors + 1, samples - errors))
    # The tail is computed to about 1e-13 of itself, so asking for 1e-11 less than delta makes the inequality certain.
    step = 2.0**-52
    while bound < 1 and not stats.binom.cdf(errors, samples, bound) < delta * (1 - 1e-11):
        bound = min(1.0, math.nextafter(bound * (1 + step), 1.0))
        step *= 2
    return bound


def binary_kl(q: float, p: float) -> float:
    """Return kl(q || p) = q ln(q/p) + (1-q) ln((1-q)/(1-p)) in nats, with 0 ln 0 = 0.

    >>> binary_kl(0.5, 0.5), round(binary_kl(0.0, 0.5), 6)
    (0.0, 0.693147)
    """
    if not (0 <= q <= 1 and 0 <= p <= 1):
        raise ValueError(f"q={q}, p={p}; give two probabilities in [0, 1]")
    if (p == 0 and q > 0) or (p == 1 and q < 1):
        return math.inf
    first = 0.0 if q == 0 else q * math.log(q / p)
    return first + (0.0 if q == 1 else (1 - q) * math.log((1 - q) / (1 - p)))


def kl_inverse(q: float, c: float) -> float:
    """Return max {p in [q, 1] : kl(q || p) <= c}, rounded up; 60 evaluations of kl.

    Bisection keeps an upper end at which kl exceeds c, and that end is returned.

    >>> round(kl_inverse(0.0, 0.1), 6)  # 1 - exp(-0.1)
    0.095163
    """
    if not (0 <= q <= 1 and c >= 0):
        raise ValueError(f"q={q}, c={c}; give a probability and a number >= 0")
    low, high = q, 1.0
    # Rounding disturbs kl by a few 1e-16; 1e-13 more than c stays clear of it.
    enough = c + 1e-13 * (1 + c)
    for _ in range(60):
        middle = (low + high) / 2
        if binary_kl(q, middle) > enough:
            high = middle
        else:
            low = middle
    return high


def kl_bound(errors: int, samples: int, *, delta: float) -> float:
    """Return max {p : kl(errors/samples || p) <= ln(1/delta) / samples}: Chernoff's relative of `binomial_bound`.

    Never below it, since P(Binomial(m, p) <= k) <= exp(-m kl(k/m || p)) for k/m <= p (Chernoff 1952).
    """
    _check(errors, samples, delta)
    return kl_inverse(errors / samples, math.log(1 / delta) / samples)


def hoeffding_bound(errors: int, samples: int, *, delta: float) -> float:
    """Return errors/samples + sqrt(ln(1/delta) / (2 samples)), at most 1 (Hoeffding 1963), rounded up.

    >>> round(hoeffding_bound(8, 450, delta=0.05), 4)
    0.0755
    """
    _check(errors, samples, delta)
    value = errors / samples + math.sqrt(math.log(1 / delta) / (2 * samples))
    return min(1.0, value * (1 + 1e-14))  # a few roundings of 1.1e-16 each


METHODS: dict[str, Callable[..., float]] = {
    "binomial": binomial_bound,
    "hoeffding": hoeffding_bound,
    "kl": kl_bound,
}


def certify(
    model: Classifier, heldout: Data, *, delta: float = 0.05, method: str = "binomial", candidates: int = 1
) -> Certificate:
    """Return a certificate on the risk of `model` from data that it has not seen.

    model: a network, a fitted scikit-learn classifier, or a function of x that returns labels or scores.
    delta: the probability with which the certificate may be wrong. method: "binomial" (exact, never beaten by
    the other two), "kl" or "hoeffding".
    candidates: the number of classifiers among which this one was picked by its errors on `heldout`; the union bound
    gives each delta / candidates.

    Raises `ValueError` on a delta outside (0, 1), an unknown method or candidates below 1, `InputError` when the data
    have no classes or the classifier's output does not fit. Cost: one pass over `heldout`.

    >>> import torch
    >>> y = torch.arange(20) % 2
    >>> certify(lambda x: x[:, 0], Data(y[:, None].float(), y, classes=2)).sentence
    'Its error on new samples is at most 14 % (95 % sure); it measures 0 % (0 of 20).'
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; give one of {', '.join(METHODS)}")
    if candidates < 1:
        raise ValueError(f"candidates={candidates}; give the number of classifiers compared, at least 1")
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}; give a probability in (0, 1)")
    errors = int(mistakes(model, heldout).sum())
    bound = METHODS[method](errors, len(heldout), delta=delta / candidates)
    counts = torch.bincount(heldout.targets, minlength=1) if heldout.classes else None
    trivial = 1.0 if counts is None else 1 - int(counts.max()) / len(heldout)
    return Certificate(bound, method, errors, len(heldout), delta, candidates, trivial)


def _check(errors: int, samples: int, delta: float) -> None:
    if samples < 1 or not 0 <= errors <= samples:
        raise ValueError(f"{errors} errors of {samples} samples; give 0 <= errors <= samples, samples >= 1")
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}; give a probability in (0, 1)")
