"""A network of quadratic units has no poor local minima with twice as many units as inputs, half of either sign.

Statement: for f(x) = sum_j v_j (w_j . x)^2 with at least d of the v_j positive and d negative, every local minimum of
the squared risk over the w_j is global, for any data: descent ends at the least risk over all quadratic forms.
Source: Soltanolkotabi, Javanmard and Lee (2017), theorem on quadratic activations (recalled, not checked against the
paper); lecture, "A Dream".
Assumptions: the counts of signs; the v_j stay fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.quadratic_networks import descend, risk


@dataclass(frozen=True)
class Case:
    """Data in `inputs` dimensions with noise targets, `positive` and `negative` units, `starts` random starts.

    trained: only so many units move, the others keep their random weights; None for all.
    """

    inputs: int = 4
    positive: int = 4
    negative: int = 4
    samples: int = 40
    starts: int = 6
    trained: int | None = None
    seed: int = 0

    def data(self) -> tuple[Tensor, Tensor]:
        """Return x (n, d) and y (n,): noise, so that nothing can be fitted exactly."""
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.samples, self.inputs, generator=generator, dtype=torch.float64)
        return x, torch.randn(self.samples, generator=generator, dtype=torch.float64)


def _enough(case: Case) -> bool:
    return case.positive >= case.inputs and case.negative >= case.inputs


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    # The convex problem: least squares over the products x_a x_b, by the normal equations.
    x, y = case.data()
    products = torch.stack([x[:, a] * x[:, b] for a in range(case.inputs) for b in range(a, case.inputs)], 1)
    form = torch.linalg.solve(products.T @ products, products.T @ y)
    value = 0.5 * float((products @ form - y).square().mean())
    # Quasi-Newton descent leaves about 1e-10; the risk is about 0.4.
    return Prediction("equals", value, tolerance=1e-6)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data()
    signs = torch.cat([torch.ones(case.positive), -torch.ones(case.negative)]).double()
    ends = []
    for _ in range(case.starts):
        start = torch.randn(len(signs), case.inputs, generator=generator, dtype=torch.float64)
        moving, rest = start[: case.trained], start[len(start[: case.trained]) :]
        free, fixed = signs[: case.trained], signs[len(start[: case.trained]) :]
        remaining = y - (x @ rest.T).square() @ fixed
        ends.append(float(risk(descend(moving, free, x, remaining), free, x, remaining)))
    return exact(
        "highest risk at the end of descent",
        max(ends),
        method=f"L-BFGS from {case.starts} random starts, ends from {min(ends):.8g} to {max(ends):.8g}",
        evaluations=case.starts,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A network of quadratic units has no poor local minima with d units of either sign for d inputs.",
    source="Soltanolkotabi, Javanmard and Lee (2017); lecture, A Dream",
    assumptions={"at least d positive and d negative units": _enough},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(positive=1, negative=0),
    corrupted=lambda: Case(trained=1),
    convincing=lambda: Case(inputs=8, positive=8, negative=8, samples=120, starts=40),
)
