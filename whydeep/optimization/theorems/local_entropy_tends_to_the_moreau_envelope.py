"""Local entropy tends to the Moreau envelope as the temperature goes to zero, at the rate 1/beta.

Statement: F_beta(x) = -1/beta log (beta gamma / 2 pi)^(1/2) Int exp(-beta [f(y) + gamma/2 (x - y)^2]) dy tends to
f_gamma(x) = min_y f(y) + gamma/2 (x - y)^2 as beta -> infinity, and the difference falls like 1/beta: by Laplace's
method it is log(1 + f''(y*) / gamma) / (2 beta) + O(beta^-2), y* the only minimiser.
Source: Chaudhari et al. (2018), Deep Relaxation (the viscous Hamilton-Jacobi equation and its limit without
viscosity); lecture, Moreau envelope and local entropy. The rate by Laplace's method.
Assumption: f is twice differentiable at y*, with a positive curvature f'' + gamma; at a kink the difference carries
log(beta) / beta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import integrate
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.local_entropy import moreau_envelope


@dataclass(frozen=True)
class Case:
    """f(y) = (y^2 - 1)^2 + y / 2, a double well, plus kink |y - 1/2| , at x.

    normalised: whether the integral carries (beta gamma / 2 pi)^(1/2).
    """

    x: float = 0.6
    gamma: float = 5.0
    kink: float = 0.0
    normalised: bool = True
    betas: tuple[float, ...] = (50.0, 100.0, 200.0, 400.0, 800.0)

    def f(self, y: Tensor) -> Tensor:
        """Return f at points (..., 1)."""
        return ((y.square() - 1).square() + y / 2 + self.kink * (y - 0.5).abs()).sum(-1)


def smooth(case: Case) -> bool:
    """Whether f has no kink."""
    return case.kink == 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return the exponent -1; the next term, of relative size 1/beta, bends the fit by less than 0.03."""
    return Prediction("grows like", -1.0, tolerance=0.05)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Integrate for every beta, minimise once, and fit the exponent of the difference in beta."""
    point = torch.tensor([case.x], dtype=torch.float64)
    gamma = case.gamma

    def exponent(y: float) -> float:
        at = torch.tensor([y], dtype=torch.float64)
        return float(case.f(at)) + gamma / 2 * (case.x - y) ** 2

    if case.kink:
        lowest = 0.5  # within the kink's range of slopes the minimum is at the kink itself
        envelope = exponent(lowest)
    else:
        found = moreau_envelope(case.f, point, gamma=gamma)
        lowest, envelope = float(found.proximal), found.value
    differences = []
    for beta in case.betas:
        reach = 12 / math.sqrt(beta)  # beyond it the integrand is below e^-100 of its largest value

        def integrand(y: float, beta: float = beta) -> float:
            return math.exp(-beta * (exponent(y) - envelope))

        halves = [(lowest - reach, lowest), (lowest, lowest + reach)]
        mass = sum(integrate.quad(integrand, *half, epsabs=0, epsrel=1e-9, limit=100)[0] for half in halves)
        constant = math.sqrt(beta * gamma / (2 * math.pi)) if case.normalised else 1.0
        differences.append(abs(math.log(constant * mass)) / beta)
    slope = float(np.polyfit(np.log(case.betas), np.log(differences), 1)[0])
    return exact(
        "exponent of the difference in beta", slope, method=f"quadrature at {len(case.betas)} temperatures, log-log fit"
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Local entropy at inverse temperature beta tends to the Moreau envelope, with a difference that falls "
    "like 1/beta.",
    source="Chaudhari et al. (2018), Deep Relaxation; lecture, Moreau envelope and local entropy; Laplace's method",
    assumptions={"f is smooth at the proximal point": smooth},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(kink=8.0),
    # Without the Gaussian's constant, as the entropy is often printed: log(beta) / (2 beta) is left over.
    corrupted=lambda: Case(normalised=False),
    convincing=lambda: Case(betas=tuple(50.0 * 2**k for k in range(8))),
)
