"""The rows of the capacity table: which bounds there are, for which networks, and the terms of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from .chain import Chain
from .covering import counting_rademacher, on_grid, spectral_rademacher
from .growth_function import log_growth, why_not_counted
from .peeling import (
    frobenius_product,
    golowich_rademacher,
    l1_rademacher,
    neyshabur_rademacher,
    why_not_peeled,
    why_scores_are_mapped,
)
from .spectral_pac_bayes import spectral_pac_bayes, why_no_spectral_pac_bayes
from .union_grid import rounded_up

Terms = Callable[[float, int, float], tuple[float, float]]
"""(margin, samples, nats) -> (complexity, confidence term); nats: -ln of the delta that is left."""


@dataclass(frozen=True)
class Prepared:
    """A bound with the norms of one network put in. price: of their grids, in nats. factors: what is multiplied."""

    terms: Terms
    price: float
    factors: Mapping[str, float] = field(default_factory=dict)
    needs_margin: bool = True


@dataclass(frozen=True)
class Bound:
    """One bound. refuses: why it is not for a chain, or None."""

    name: str
    source: str
    refuses: Callable[[Chain], str | None]
    prepare: Callable[[Chain], Prepared]


def rademacher_terms(average: Callable[[float, int], float]) -> Terms:
    """Return the terms 2 average(margin, samples) and 3 sqrt((nats + ln 2) / (2 n)) (Bartlett and Mendelson 2002)."""

    def terms(margin: float, samples: int, nats: float) -> tuple[float, float]:
        return 2 * average(margin, samples), 3 * math.sqrt((nats + math.log(2)) / (2 * samples))

    return terms


def _vc(chain: Chain) -> Prepared:
    def terms(margin: float, samples: int, nats: float) -> tuple[float, float]:
        return math.sqrt(2 * log_growth(chain, samples) / samples), math.sqrt(nats / (2 * samples))

    parameters = sum(link.parameters for link in chain.links)
    return Prepared(terms, 0.0, {"parameters": float(parameters), "layers": len(chain.links)}, needs_margin=False)


def _covering(average: Callable[[Chain, float, int], float]) -> Callable[[Chain], Prepared]:
    def prepare(chain: Chain) -> Prepared:
        rounded, price = on_grid(chain)
        named = {"Lipschitz bound": rounded.product, "size of the inputs": rounded.root_mean_square}
        return Prepared(rademacher_terms(lambda margin, n: average(rounded, margin, n)), price, named)

    return prepare


def _peeled(average: Callable[..., float]) -> Callable[[Chain], Prepared]:
    def prepare(chain: Chain) -> Prepared:
        depth, classes = len(chain.links), chain.links[-1].units
        biased = any(link.bias for link in chain.links)
        # The constant that enters beside x: of the size of x, since then neither rules the norm of (x, c_0).
        start, price = rounded_up(chain.root_mean_square or 1.0, 2.0) if biased else (1.0, 0.0)
        product, cost = rounded_up(frobenius_product(chain, start), 2.0)
        size = math.hypot(chain.root_mean_square, start if biased else 0.0)

        def scaled(margin: float, samples: int) -> float:
            return 2 / margin * average(product, size, depth=depth, classes=classes, samples=samples)

        growth = average(1.0, 1.0, depth=depth, classes=classes, samples=1)
        named = {"product of Frobenius norms": product, "size of the inputs": size, "depth and classes": growth}
        return Prepared(rademacher_terms(scaled), price + cost, named)

    return prepare


def _l1(chain: Chain) -> Prepared:
    ratio, price = 1 + 1 / len(chain.links), 0.0
    links = []
    for link in chain.links:
        row_sum, cost = rounded_up(link.row_sum, ratio)
        bias, more = rounded_up(link.bias_largest, ratio)
        price += cost + more
        links.append(replace(link, row_sum=row_sum, bias_largest=bias))
    rounded = replace(chain, links=tuple(links))
    value = l1_rademacher(rounded, 1)
    classes = float(chain.links[-1].units)
    named = {"recursion of l1 norms": value / classes, "classes": classes}
    return Prepared(rademacher_terms(lambda margin, n: 2 / margin * value / math.sqrt(n)), price, named)


def _pac_bayes(chain: Chain) -> Prepared:
    terms, price, named = spectral_pac_bayes(chain)
    return Prepared(terms, price, named)


def _any(chain: Chain) -> str | None:
    return None


RECALLED = "recalled, not checked against the paper"

BOUNDS: tuple[Bound, ...] = (
    Bound(
        "VC, growth function",
        "Bartlett, Harvey, Liaw and Mehrabian 2019, proof of Theorem 7, derived here from Warren's theorem, whose "
        f"constant is {RECALLED}",
        why_not_counted,
        _vc,
    ),
    Bound(
        "covering, counting parameters",
        "volume argument, derived here",
        _any,
        _covering(counting_rademacher),
    ),
    Bound(
        "covering, spectral norms",
        "Bartlett, Foster and Telgarsky 2017, constants derived here",
        _any,
        _covering(spectral_rademacher),
    ),
    Bound(
        "Rademacher, Frobenius norms, 2^L",
        f"Neyshabur, Tomioka and Srebro 2015, factor 2^(L-1/2) {RECALLED}; a smaller one is derived here",
        why_not_peeled,
        _peeled(neyshabur_rademacher),
    ),
    Bound(
        "Rademacher, Frobenius norms, sqrt L",
        "Golowich, Rakhlin and Shamir 2018, constants derived here for K scores",
        why_not_peeled,
        _peeled(golowich_rademacher),
    ),
    Bound(
        "Rademacher, l1 norms",
        "Bartlett and Mendelson 2002, constants derived here",
        why_scores_are_mapped,
        _l1,
    ),
    Bound(
        "PAC-Bayes, spectral norms",
        "Neyshabur, Bhojanapalli and Srebro 2018, constants derived here",
        why_no_spectral_pac_bayes,
        _pac_bayes,
    ),
)
