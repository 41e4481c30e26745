"""A certificate: with probability 1 - delta over the held-out data, the risk is at most this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal
from itertools import pairwise
from typing import Any

import torch

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.numbers import percent


@dataclass(frozen=True)
class Certificate:
    """P(risk > bound) <= delta, the probability being over the samples that were counted (and over the draws made).

    bound: fraction in [0, 1], rounded up. method: how it was found, by its name in `certify`.
    n: how many samples it rests on; errors: the mistakes counted on them, None where a randomised classifier has no
    whole number of them; error: the error measured, as a fraction.
    terms: name -> how much of the bound it makes up, in the order in which they were added; their sum is the bound.
    trivial: the error of always guessing the commonest class of those samples.
    candidates: how many classifiers were compared on the same samples; each is paid delta / candidates.
    subject: whose error it is, where that is another one than the classifier given (""). classifier: that one: what to
    use so that the promise applies.
    condition: what must be true besides the assumptions and cannot be guaranteed ("the chains have mixed"); it opens
    the sentence.
    union: the union bounds that were paid, in words. details: named numbers for the reader (nats, draws, bits).
    notes: what a reader must know besides (a posterior that collapsed, what is conditional).
    baseline: the plain certificate from held-out mistakes, beside which every other one is printed; None for itself.
    """

    bound: float
    method: str
    n: int
    delta: float
    error: float
    terms: Mapping[str, float]
    assumptions: tuple[str, ...]
    errors: int | None = None
    trivial: float = 1.0
    candidates: int = 1
    subject: str = ""
    classifier: Any = field(default=None, repr=False, compare=False)
    condition: str = ""
    union: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    baseline: Certificate | None = None

    @property
    def slack(self) -> float:
        """How much the bound exceeds the measured error: the price of finitely many samples."""
        return self.bound - self.error

    @property
    def vacuous(self) -> bool:
        """Whether guessing would keep the same promise."""
        return self.bound >= self.trivial

    @property
    def dominant(self) -> str:
        """The name of the largest term: what to work on first for a smaller bound."""
        return max(self.terms, key=lambda name: self.terms[name])

    @property
    def sentence(self) -> str:
        """The certificate in words, the bound rounded up."""
        counted = f"{self.errors} of {self.n}" if self.errors is not None else f"on {self.n} samples"
        chosen = "" if self.candidates == 1 else f", chosen among {self.candidates}"
        guess = "; guessing does as well" if self.vacuous else ""
        whose = f"the error of {self.subject}" if self.subject else "its error"
        opening = f"If {self.condition}, {whose}" if self.condition else f"{whose[0].upper()}{whose[1:]}"
        return (
            f"{opening} on new samples is at most {percent(self.bound, up=True)} "
            f"({sureness(self.delta)} sure); it measures {percent(self.error)} ({counted}{chosen}){guess}."
        )


def sureness(delta: float) -> str:
    """Return 1 - delta in percent, rounded down where delta has more than two digits; never 100 %.

    >>> sureness(0.05), sureness(1e-6), sureness(0.01234)
    ('95 %', '99.9999 %', '98.7 %')
    """
    # In decimal numbers: the smallest number, 5e-324, has its digit 326 places after the point, where floats end.
    exact = Context(prec=400)
    doubt = exact.multiply(Decimal(repr(float(delta))), Decimal(100))
    doubt = doubt.quantize(Decimal(1).scaleb(min(0, doubt.adjusted() - 1)), ROUND_CEILING, exact)
    return f"{exact.subtract(Decimal(100), doubt).normalize(exact):f} %"


def shares(stages: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return what each stage adds to the bound, given the bound after it: the terms of a certificate.

    A bound in which everything stands under one inversion has no natural summands; what a term costs is then how much
    the bound grows when it is added to those before it.

    >>> shares([("error measured", 0.25), ("confidence", 0.375)])
    {'error measured': 0.25, 'confidence': 0.125}
    """
    values = [0.0, *[value for _, value in stages]]
    return {name: after - before for (name, _), (before, after) in zip(stages, pairwise(values), strict=True)}


def guessing(data: Data) -> float:
    """Return the error of always guessing the commonest class, as a fraction; raises `InputError` without classes."""
    if data.classes is None:
        raise InputError(f"{data.name} has no classes, so there are no mistakes to count", "give data with classes")
    return 1 - int(torch.bincount(data.targets.cpu()).max()) / len(data)
