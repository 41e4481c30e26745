"""Double descent: the test error of the least-norm fit peaks where the features' rank reaches the number of samples.

Statement: least squares of least norm on N Gaussian features of rank r(N), with noisy targets that depend on a few of
the features: the variance s^2 r/(n - r - 1) grows up to r = n, and s^2 n/(r - n - 1) falls after it. Features that
repeat others add no rank: with every feature twice, the peak is at N = 2n and not at N = n.
Source: Belkin, Hsu and Xu 2020; Hastie, Montanari, Rosset and Tibshirani 2022; slide "Big model should fail!".
Assumptions: the targets are noisy; there is no regularisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction

FEW = 5
"""Features that the targets depend on: all of them are among those of every width."""


@dataclass(frozen=True)
class Case:
    """copies: how often every feature occurs. ranks: the ranks tried; `draws` data sets each. ridge: n lambda."""

    samples: int
    ranks: tuple[int, ...]
    draws: int
    copies: int = 2
    noise: float = 1.0
    ridge: float = 0.0


def targets_are_noisy(case: Case) -> bool:
    """Whether the targets hold noise to be fitted."""
    return case.noise > 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """N = copies x n, within half a step of the grid of widths."""
    width = case.copies * case.samples
    steps = [b - a for a, b in zip(case.ranks, case.ranks[1:], strict=False)]
    return Prediction("equals", width, tolerance=case.copies * min(steps) / 2)


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The width with the largest median excess ||w - w*||^2 over the draws, in terms of the distinct features.

    A repeated feature acts as one with weights sqrt(copies) times as long; the fit is by singular values, with all
    copies in the matrix, and the test error is exact: the sum over copies of w is the weight of a feature.
    """
    errors = []
    for rank in case.ranks:
        x = torch.randn(case.draws, case.samples, rank, generator=generator, dtype=torch.float64)
        truth = torch.zeros(rank, 1, dtype=torch.float64)
        truth[:FEW] = 1.0
        noise = case.noise * torch.randn(case.draws, case.samples, 1, generator=generator, dtype=torch.float64)
        u, s, vh = torch.linalg.svd(x.repeat(1, 1, case.copies), full_matrices=False)
        kept = s > 1e-9 * s[:, :1]
        shrunk = torch.where(kept, s / (s.square() + case.ridge), 0.0)
        w = vh.mT @ (shrunk[..., None] * (u.mT @ (x @ truth + noise)))
        weight = w.reshape(case.draws, case.copies, rank).sum(1)[..., None]
        errors.append(float((weight - truth).square().sum((1, 2)).median()))
    peak = max(range(len(errors)), key=lambda k: errors[k])
    width = float(case.copies * case.ranks[peak])
    return Measurement("width at the peak", width, width, width, confidence=1.0, method="largest median of the grid")


def holds_on() -> Case:
    """n = 20: at rank 14 and at 28 the excess is about 3 (14/5 and 20/7 plus the bias), at 20 it has no mean.

    There it is about 1/s^2, s the smallest singular value, of order 20: a draw below 4 is rare, the median of 51 draws
    below 4 next to impossible.
    """
    return Case(samples=20, ranks=(8, 14, 20, 28, 40), draws=51)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The test error of the least-norm fit peaks at the width where the features' rank reaches the number of "
    "samples.",
    source='Belkin, Hsu and Xu 2020; Hastie, Montanari, Rosset and Tibshirani 2022; slide "Big model should fail!"',
    assumptions={"the targets are noisy": targets_are_noisy},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), noise=0.0),
    corrupted=lambda: replace(holds_on(), ridge=40.0),
    convincing=lambda: Case(samples=40, ranks=(10, 20, 28, 34, 40, 46, 52, 60, 80, 120), draws=401),
)
