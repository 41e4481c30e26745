"""Gradient descent converges on a convex function that was perturbed until it is no longer convex.

Statement: F(theta) = sum theta_i^2 + a sin^2 theta_i is not convex for a > 1. For a < a* = 4.603 it has no critical
point but zero and mu = min F'^2/(2 F) > 0, and steps of 1/L, L = 2 + 2 a, give F_k <= (1 - mu/L)^k F_0 from any start.
Source: Polyak (1963); Karimi, Nutini and Schmidt (2016); lecture, "Non-convex" ("we can perturb any convex function in
such a way it is no longer convex, but such that gradient descent still converges").
Assumptions: 0 <= a < a*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable import perturbed_convex


@dataclass(frozen=True)
class Case:
    """`starts` uniform in [-10, 10]^d, `steps` of size factor/L."""

    amplitude: float = 3.0
    dimensions: int = 3
    starts: int = 300
    steps: int = 150
    factor: float = 1.0


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    # Beyond a* there is no rate, and it is convergence itself that fails: the rate at 0.8 a* stands for it.
    critical = perturbed_convex.critical_amplitude()
    amplitude = case.amplitude if case.amplitude < critical else 0.8 * critical
    rate = 1 - perturbed_convex.dominance(amplitude) / perturbed_convex.smoothness(amplitude)
    return Prediction("at most", rate**case.steps, trivial=1.0, constants={"rate": rate})


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    theta = 20 * torch.rand(case.starts, case.dimensions, generator=generator, dtype=torch.float64) - 10

    def value(at: torch.Tensor) -> torch.Tensor:
        return (at.square() + case.amplitude * at.sin().square()).sum(1)

    first = value(theta)
    bent = bool((1 + case.amplitude * (2 * theta).cos() < 0).any())
    for _ in range(case.steps):
        slope = torch.func.grad(lambda at: value(at).sum())(theta)
        theta = theta - case.factor / (2 + 2 * case.amplitude) * slope
    worst = float((value(theta) / first).max())
    return exact(
        "largest F_k/F_0",
        worst,
        method=f"{case.starts} descents of {case.steps} steps, {'some' if bent else 'none'} from where F bends down",
        evaluations=case.starts * case.steps,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="Gradient descent converges on a convex function perturbed until it is not convex.",
    source="Polyak (1963); Karimi, Nutini and Schmidt (2016); lecture, Non-convex",
    assumptions={"amplitude below 4.603": lambda case: 0 <= case.amplitude < perturbed_convex.critical_amplitude()},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    # Beyond a* there are minima of higher value, in which many of the starts end.
    fails_on=lambda: Case(amplitude=7.0),
    # Steps beyond 2/L bounce away from the sharp minimum.
    corrupted=lambda: Case(factor=2.5),
    convincing=lambda: Case(amplitude=4.5, dimensions=10, starts=3000, steps=1000),
)
