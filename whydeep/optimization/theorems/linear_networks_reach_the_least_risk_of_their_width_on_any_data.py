"""Descent in a linear network ends at the least risk of its width, whatever the data.

Statement: every local minimum of a linear network, of any depth and for any data (dependent inputs, equal eigenvalues,
fewer samples than inputs), is global: its risk is 1/2 (tr Syy - sum of the p largest eigenvalues of Syx Sxx^+ Sxy), p
the narrowest width. So descent from random starts never ends higher.
Source: Lu and Kawaguchi (2017), theorem; lecture, "Linear Networks". Recalled, not checked against the paper.
Assumptions: linear units; the squared loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.optimization.landscape.solvable.linear_networks import least_risk


@dataclass(frozen=True)
class Case:
    """Data without any of Kawaguchi's assumptions: fewer samples than inputs, one input twice, two outputs alike.

    widths: of the network. starts: random ones. units: "linear" or "relu". frozen: the first layer is not trained.
    """

    widths: tuple[int, ...] = (8, 4, 2, 4)
    samples: int = 6
    starts: int = 4
    units: str = "linear"
    frozen: bool = False
    steps: int = 60
    seed: int = 0

    def data(self) -> tuple[Tensor, Tensor]:
        """Return x (n, dx) and y (n, dy)."""
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.samples, self.widths[0] - 1, generator=generator, dtype=torch.float64)
        y = torch.randn(self.samples, self.widths[-1] - 1, generator=generator, dtype=torch.float64)
        return torch.cat([x, x[:, :1]], 1), torch.cat([y, y[:, :1]], 1)


def _predict(case: Case, _generator: torch.Generator) -> Prediction:
    x, y = case.data()
    value = least_risk(x, y, min(case.widths))
    # A thousandth of the value: quasi-Newton descent of so many steps ends within 1e-6 of it; the next critical value
    # lies several per cent higher. Where everything is fitted descent leaves about 1e-11.
    return Prediction("equals", value, tolerance=1e-3 * value + 1e-8)


def _measure(case: Case, generator: torch.Generator) -> Measurement:
    x, y = case.data()
    ends = []
    for _ in range(case.starts):
        layers = [
            (torch.randn(b, a, generator=generator, dtype=torch.float64) / a**0.5).requires_grad_()
            for a, b in pairwise(case.widths)
        ]
        free = layers[1:] if case.frozen else layers
        optimizer = torch.optim.LBFGS(free, max_iter=case.steps * 10, line_search_fn="strong_wolfe", history_size=50)

        def closure(layers: list[Tensor] = layers, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            state = x
            for number, weight in enumerate(layers):
                state = state @ weight.T
                if case.units == "relu" and number < len(layers) - 1:
                    state = state.relu()
            risk = 0.5 * (state - y).square().sum() / len(x)
            risk.backward()  # type: ignore[no-untyped-call]
            return risk

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            ends.append(float(closure().detach()))
    return exact(
        "highest risk at the end of descent",
        max(ends),
        method=f"L-BFGS from {case.starts} random starts, ends from {min(ends):.6g} to {max(ends):.6g}",
        evaluations=case.starts,
    )


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="A linear network has no poor local minima, whatever its depth and the data.",
    source="Lu and Kawaguchi (2017); lecture, Linear Networks",
    assumptions={"linear units": lambda case: case.units == "linear"},
    predict=_predict,
    measure=_measure,
    holds_on=Case,
    fails_on=lambda: Case(units="relu"),
    # Random first features of width 4 for 6 samples cannot reach what trained ones do.
    corrupted=lambda: Case(frozen=True),
    convincing=lambda: Case(widths=(12, 8, 6, 3, 6, 8), samples=20, starts=20, steps=300),
)
