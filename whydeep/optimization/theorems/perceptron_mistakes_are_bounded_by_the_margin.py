"""The perceptron makes at most (R / gamma)^2 mistakes, in whatever order and however often it sees the samples.

If a unit vector u separates the samples through the origin with margin gamma, y_i u.x_i >= gamma > 0 for every i, and
||x_i|| <= R, then from w = 0 the rule w <- w + y_i x_i at every mistake is applied at most (R / gamma)^2 times.

Proof: after m mistakes u.w >= m gamma, and ||w||^2 <= m R^2 because y_i w.x_i <= 0 at each; so m gamma <= sqrt(m) R.

Source: Novikoff 1962, On convergence proofs on perceptrons (recalled, not checked against the paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.randomness import spawn
from whydeep.core.training import Outcome
from whydeep.core.verdict import Prediction
from whydeep.networks.perceptron import Rule, perceptron, rosenblatt


@dataclass(frozen=True)
class Case:
    """Unit vectors x = t u + sqrt(1 - t^2) v around a planted u, with |t| >= margin and the label's sign.

    flipped: how many labels are turned to the other class.
    """

    samples: int = 100
    dimension: int = 10
    margin: float = 0.2
    flipped: int = 0
    rule: Rule = rosenblatt
    seed: int = 0

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples (n, d), labels +-1 (n,) and the planted unit vector (d,), the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        planted = torch.nn.functional.normalize(_normal(1, self.dimension, generator)).squeeze(0)
        across = _normal(self.samples, self.dimension, generator)
        across = torch.nn.functional.normalize(across - (across @ planted)[:, None] * planted)
        along = self.margin + (0.9 - self.margin) * torch.rand(self.samples, generator=generator, dtype=torch.float64)
        y = torch.where(torch.rand(self.samples, generator=generator) < 0.5, -1.0, 1.0).double()
        x = (y * along)[:, None] * planted + torch.sqrt(1 - along.square())[:, None] * across
        y[: self.flipped] *= -1
        return x, y, planted


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def separated(case: Case) -> bool:
    """Whether the planted plane has every sample on its label's side."""
    x, y, planted = case.data()
    return bool((y * (x @ planted) > 0).all())


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """Return (R / gamma)^2 with R the longest sample and gamma the distance of the planted plane from the nearest."""
    x, _, planted = case.data()
    radius = float(x.norm(dim=1).max())
    gamma = float((x @ planted).abs().min())
    return Prediction("at most", (radius / gamma) ** 2, constants={"R": radius, "gamma": gamma})


def measure(case: Case, generator: torch.Generator) -> tuple[Measurement, Outcome]:
    """Count the mistakes on the samples in a random order; a count that did not end is only a lower end.

    There are 2 / margin^2 passes. R = 1 and gamma >= margin, so this is twice the bound: as each pass that does not end
    the learning makes a mistake, an unending one is bound to exceed it.
    """
    x, y, _ = case.data()
    order = torch.randperm(len(x), generator=spawn(generator))
    learned = perceptron(x[order], y[order], passes=math.ceil(2 / case.margin**2), rule=case.rule)
    high = learned.mistakes if learned.outcome.converged else math.inf
    measurement = Measurement(
        "mistakes",
        learned.mistakes,
        learned.mistakes,
        high,
        confidence=1.0,
        method=f"counted over {learned.passes} passes",
    )
    return measurement, learned.outcome


def away(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return w - y x, the rule with the wrong sign.

    It never ends: if it did, every y_i w.x_i > 0, yet w.w = -sum y_i x_i.w over the mistakes would be negative.
    """
    return weights - y * x


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="optimization",
    statement="On samples of length at most R that a plane through the origin separates with margin gamma, "
    "the perceptron makes at most (R / gamma)^2 mistakes.",
    source="Novikoff 1962, On convergence proofs on perceptrons; slide on Rosenblatt's perceptron (1957).",
    assumptions={"separable through the origin": separated},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # 30 wrong labels of 100 in 10 dimensions leave no separating plane: of all labelings of n points in general
    # position a fraction of P(Binomial(n - 1, 1/2) < d) < 1e-16 is separable (Cover 1965).
    fails_on=lambda: Case(flipped=30),
    corrupted=lambda: Case(rule=away),
    convincing=lambda: Case(samples=2_000, dimension=50, margin=0.02),
)
