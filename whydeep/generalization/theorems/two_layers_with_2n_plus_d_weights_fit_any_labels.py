"""A two-layer ReLU network with 2n + d weights takes any values at n distinct samples in d dimensions.

Statement: for distinct x_1 .. x_n in R^d and any y in R^n there are a in R^d and b, w in R^n with sum_j w_j
relu(a'x_i - b_j) = y_i for all i. So a class of this size follows every sign: its Rademacher average is 1.
Source: Zhang, Bengio, Hardt, Recht and Vinyals 2017, Theorem 1 (number recalled, not checked against the paper).
Assumptions: the samples are distinct.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.verdict import Prediction
from whydeep.generalization.experiments.expressivity import Memoriser, memorising_network


@dataclass(frozen=True)
class Case:
    """Gaussian samples with signs as labels, drawn anew `draws` times. twins: pairs of equal samples, labels unlike.

    dropped: how many of the n units are left out after the construction.
    """

    samples: int
    features: int
    draws: int = 20
    twins: int = 0
    dropped: int = 0


def samples_are_distinct(case: Case) -> bool:
    """Whether no two samples are equal."""
    return case.twins == 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The largest error |f(x_i) - y_i| is at most 1e-6: zero up to rounding.

    The system's triangular matrix is badly conditioned when neighbours are close: gaps of 1e-6 cost ten digits of 16.
    """
    weights = 2 * case.samples + case.features
    return Prediction("at most", 1e-6, constants={"weights": weights})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The largest error over all draws, with the network's own count of weights checked."""
    worst = 0.0
    for _ in range(case.draws):
        x = torch.randn(case.samples, case.features, generator=generator, dtype=torch.float64)
        y = (2 * torch.randint(2, (case.samples,), generator=generator) - 1).double()
        # A twin has the same sample and the other label: the network is made for one of the two.
        twin = x[: case.twins]
        network = memorising_network(x, y, generator=generator)
        if sum(value.numel() for value in network.parameters()) != 2 * case.samples + case.features:
            raise ValueError("the network has not 2n + d weights")
        if case.dropped:
            kept = case.samples - case.dropped
            network = Memoriser(network.direction.data, network.thresholds.data[:kept], network.weights.data[:kept])
        with torch.no_grad():
            errors = [(network(x)[:, 0] - y).abs().max()]
            if case.twins:
                errors.append((network(twin)[:, 0] + y[: case.twins]).abs().max())
        worst = max(worst, float(torch.stack(errors).max()))
    return exact("largest error at a sample", worst)


def holds_on() -> Case:
    """50 samples in 5 dimensions; of 20 draws the closest neighbours are 1e-5 apart, so errors stay near 1e-9."""
    return Case(samples=50, features=5)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="A two-layer ReLU network with 2n + d weights fits any labels of n distinct samples in d dimensions.",
    source="Zhang, Bengio, Hardt, Recht and Vinyals, ICLR 2017, Theorem 1",
    assumptions={"the samples are distinct": samples_are_distinct},
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), twins=1, draws=1),
    corrupted=lambda: replace(holds_on(), dropped=1, draws=1),
    convincing=lambda: Case(samples=100, features=64),
)
