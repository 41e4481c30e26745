"""Local entropy prefers flat minima: a wide valley beats a deeper narrow one.

Statement: let f have two separate wells, a sharp one of curvature a and a flat one of curvature b < a, delta above it.
f is lower in the sharp well; its local entropy differs by

    F(sharp) - F(flat) = -delta + [log(1 + a / gamma) - log(1 + b / gamma)] / (2 beta)

in one dimension, which is positive once the difference of logarithms outweighs 2 beta delta: then the flat well is the
lower one.
Source: Baldassi et al. (2015); Chaudhari et al. (2017), Entropy-SGD: biasing gradient descent into wide valleys;
lecture, "Chaudhari et al." of the overview. The closed form is that of a quadratic, derived here.
Assumption: the wells are separate: seen from the bottom of one, the other has no weight in the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from scipy import integrate

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction


@dataclass(frozen=True)
class Case:
    """f(y) = min(a y^2 / 2 - delta, b (y - apart)^2 / 2), the sharp well at 0.

    smoothing: whether the window is that of the definition, or so narrow that F is f.
    """

    sharp: float = 400.0
    flat: float = 1.0
    delta: float = 0.3
    apart: float = 8.0
    gamma: float = 1.0
    beta: float = 4.0
    smoothing: bool = True


def separate(case: Case) -> bool:
    """Whether the other well's weight, exp(-beta b/(b + gamma) gamma apart^2 / 2) of its own, is below 1e-6."""
    stiff = case.flat * case.gamma / (case.flat + case.gamma)
    return math.exp(-case.beta * (stiff * case.apart**2 / 2 - case.delta)) < 1e-6


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the difference in closed form; positive: the flat well is preferred."""
    volume = math.log1p(case.sharp / case.gamma) - math.log1p(case.flat / case.gamma)
    value = volume / (2 * case.beta) - case.delta
    # 1e-4: the wells' parts beyond the point where they meet, and the quadrature.
    return Prediction("equals", value, tolerance=1e-4, constants={"f(sharp) - f(flat)": -case.delta})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Integrate around both bottoms."""
    gamma = case.gamma if case.smoothing else 1e6

    def f(y: float) -> float:
        return min(case.sharp * y * y / 2 - case.delta, case.flat * (y - case.apart) ** 2 / 2)

    def entropy(x: float) -> float:
        lowest = f(x)

        def integrand(y: float) -> float:
            return math.exp(-case.beta * (f(y) + gamma / 2 * (x - y) ** 2 - lowest))

        reach = 14 / math.sqrt(case.beta * gamma)
        near = min(reach, 14 / math.sqrt(case.beta * (case.sharp + gamma)))
        edges = sorted(
            {x - reach, x - near, x, x + near, x + reach, *((c) for c in (0.0, case.apart) if abs(c - x) < reach)}
        )
        mass = sum(
            integrate.quad(integrand, low, high, epsabs=0, epsrel=1e-8, limit=200)[0] for low, high in pairwise(edges)
        )
        return lowest - math.log(math.sqrt(case.beta * gamma / (2 * math.pi)) * mass) / case.beta

    value = entropy(0.0) - entropy(case.apart)
    return exact("local entropy at the sharp minimum minus that at the flat one", value, method="quadrature")


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A flat minimum has the lower local entropy than a sharp one that lies deeper, once the difference of "
    "log(1 + curvature / gamma) outweighs 2 beta times the depth.",
    source="Baldassi et al. (2015); Chaudhari et al. (2017), Entropy-SGD; closed form derived",
    assumptions={"the wells are separate": separate},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Wells so near that the window around one holds the other.
    fails_on=lambda: Case(apart=0.5),
    # A window that sees nothing: local entropy is f, and the deeper well wins.
    corrupted=lambda: Case(smoothing=False),
)
