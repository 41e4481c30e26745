"""The risk of a network written in few bits exceeds its certificate with probability at most delta.

Statement: fix a prefix code for networks without the n samples, and let the network h be any that the samples suggest.
With probability at least 1 - delta, R(h) <= max {p : P(Binomial(n, p) <= mistakes(h)) >= delta 2^-bits(h)}.
Source: Blumer, Ehrenfeucht, Haussler and Warmuth 1987; Langford 2005 (for binomial tails).
Assumptions: the samples are independent; start, subspace and code were fixed without them.

The labels are fair coins, independent of the inputs, so that every network has risk 1/2 exactly. A linear network in a
subspace of more dimensions than there are samples is fitted to them, written to many digits and read back: it hardly
errs, and the bits that say so are what keeps its certificate above 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.occam import DIMENSIONS, STEPS, Subspace, occam_bound, subspace, written
from whydeep.generalization.risk import mistakes

RISK = 0.5
MARGIN = 30.0
"""By how much the scores are to differ: the coordinates are then some tens of quantisation steps."""


@dataclass(frozen=True)
class Case:
    """`runs` times, `samples` random labels in `dimension` dimensions are fitted in the subspace of `size`.

    apart: the start is drawn without the samples; else it fits them, and the code need not say anything.
    counted: whether the bits of the code are paid.
    """

    samples: int
    dimension: int
    delta: float
    runs: int
    size: int = DIMENSIONS[-1]
    apart: bool = True
    counted: bool = True


def start_and_code_were_fixed_without_the_samples(case: Case) -> bool:
    """Whether the point from which the code is counted does not depend on the samples."""
    return case.apart


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """At most delta."""
    return Prediction("at most", case.delta, constants={"n": case.samples, "dimensions": case.size})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of runs in which the certificate lies below 1/2."""
    violations = 0
    for _ in range(case.runs):
        x = torch.randn(case.samples, case.dimension, generator=generator, dtype=torch.float64)
        data = Data(x, torch.randint(2, (case.samples,), generator=generator), classes=2)
        model = nn.utils.skip_init(nn.Linear, case.dimension, 2, bias=False, dtype=torch.float64)  # type: ignore[no-untyped-call]
        space = subspace(model, generator=generator)  # draws its weights
        if case.apart:
            coordinates = fitted(space, data, case.size)
        else:
            space = replace(space, start=space.start + least_change(weight_features(x), wanted(space.start, data)))
            coordinates = torch.zeros(DIMENSIONS[0], dtype=torch.float64)
        code = written(coordinates, STEPS[-1])
        errors = int(mistakes(space.read(code), data).sum())
        violations += occam_bound(errors, case.samples, case.delta, len(code) if case.counted else 0) < RISK
    return proportion("runs with a violated certificate", violations, case.runs)


def weight_features(x: Tensor) -> Tensor:
    """The derivative of the second score less the first in the weights, (n, 2 d): the network is linear."""
    return torch.cat([-x, x], dim=1)


def wanted(start: Tensor, data: Data) -> Tensor:
    """By how much the scores' difference must change to be `MARGIN` in favour of every label, (n,)."""
    assert isinstance(data.x, Tensor)
    return MARGIN * (2.0 * data.targets.double() - 1) - weight_features(data.x) @ start


def least_change(features: Tensor, change: Tensor) -> Tensor:
    """The least vector with features @ vector = change."""
    least: Tensor = torch.linalg.pinv(features) @ change
    return least


def fitted(space: Subspace, data: Data, size: int) -> Tensor:
    """The least coordinates (size,) at which the network fits every label."""
    assert isinstance(data.x, Tensor)
    moved = weight_features(data.x) * (space.unit * space.sign)
    features = torch.zeros(len(data), size, dtype=torch.float64).index_add(1, space.which % size, moved)
    return least_change(features, wanted(space.start, data))


def holds_on() -> Case:
    """150 labels in 300 dimensions, delta 0.25, 16 runs.

    Paid, 400 coordinates cost some 3,200 bits, 15 nats a sample: the certificate is above 0.999 whatever the errors,
    and no violation in 16 runs ends the interval at 0.206. Unpaid, no label is lost to rounding and the certificate is
    0.009: every run violates. A start that fits needs 59 bits, 0.27 nats a sample, and is certified at 0.25.
    """
    return Case(samples=150, dimension=300, delta=0.25, runs=16)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The risk of a network written in few bits exceeds its certificate with probability at most delta.",
    source="Blumer, Ehrenfeucht, Haussler and Warmuth 1987; Langford 2005",
    assumptions={
        "start, subspace and code were fixed without the samples": start_and_code_were_fixed_without_the_samples,
        "the samples are independent": None,
    },
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), apart=False),
    corrupted=lambda: replace(holds_on(), counted=False),
    convincing=lambda: replace(holds_on(), runs=1000),
)
