"""The risk of a classifier trained by SGLD exceeds the certificate of its path with probability at most delta.

Statement: let w_0 be drawn without the samples, Q be the law of the path w_0, ..., w_N given n independent samples and
P that of the same update without the data's gradient. With probability 1 - delta, for the very path that was run,

    kl(R_n(w_N) || R(w_N)) <= (ln dQ/dP(path) + ln(2 sqrt(n) / delta)) / n.

Source: Rivasplata, Kuzborskij, Szepesvari and Shawe-Taylor 2020 (disintegrated bounds; recalled, not checked against
the paper); the log-ratio of paths is derived in whydeep.optimization.langevin.path. The lecture's slide on the
PAC-Bayes bound of SGLD has the same sum in expectation.
Assumption: the start does not depend on the samples.

Predicted: a violation rate of at most delta. Measured over seeds and temperatures, on a mixture of two Gaussians where
the risk of a linear classifier is known exactly. The bound is loose (a union over all paths), so no violation is
expected: of 120 runs none has an interval up to .0303, below delta = .05.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import nn

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.inversion import kl_inverse
from whydeep.optimization.langevin.sgld import SGLD


@dataclass(frozen=True)
class Case:
    """Linear classifiers of classes +-1 at +-mean in the first of `dimension` coordinates, unit noise in all.

    temperatures: beta / n of the runs, `seeds` each. fitted_start: start at weights that fit the samples.
    counted: the fraction of the log-ratio that the bound counts; 1 is the theorem's.
    """

    samples: int = 40
    dimension: int = 60
    mean: float = 1.0
    temperatures: tuple[float, ...] = (0.25, 1.0, 10.0, 100.0)
    seeds: int = 30
    steps: int = 10
    step_size: float = 0.5
    delta: float = 0.05
    fitted_start: bool = False
    counted: float = 1.0


def start_without_the_samples(case: Case) -> bool:
    """Whether w_0 was drawn before the samples were seen."""
    return not case.fitted_start


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """At most delta."""
    return Prediction("at most", case.delta, constants={"n": case.samples, "delta": case.delta})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """Count the runs whose exact risk Phi(-mean w_1 / ||w||) exceeds their certificate.

    With the log-ratio dropped more than half of the runs violate: cold ones fit all 40 samples in 60 coordinates,
    which certifies .13, while their risk stays near .25. From a fitted start all do.
    """
    violations = runs = 0
    for temperature in case.temperatures:
        for _ in range(case.seeds):
            risk, bound = _run(case, temperature * case.samples, generator)
            violations += risk > bound
            runs += 1
    return proportion("violation rate", violations, runs, evaluations=runs * case.steps)


def _run(case: Case, beta: float, generator: torch.Generator) -> tuple[float, float]:
    """Train once; return the exact risk and the certificate."""
    n, d = case.samples, case.dimension
    sign = torch.randint(2, (n,), generator=generator).double() * 2 - 1
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 0] += case.mean * sign
    signed = x * sign[:, None]
    start = torch.linalg.pinv(signed).sum(1) if case.fitted_start else torch.zeros(d, dtype=torch.float64)
    w = nn.Parameter(start)
    optimizer = SGLD([w], case.step_size, beta=beta, generator=generator, accumulate=True)
    for _ in range(case.steps):
        # The logistic loss ln(1 + e^-m) of the margins m: its gradient is -sigmoid(-m) times the signed sample.
        w.grad = -(torch.sigmoid(-(signed @ w.detach())) @ signed) / n
        optimizer.step()
    place = w.detach()
    risk = float(stats.norm.sf(case.mean * float(place[0]) / float(place.norm())))
    error = float((signed @ place <= 0).double().mean())
    nats = case.counted * optimizer.path.data_free.value
    cost = max(0.0, nats + math.log(2 * math.sqrt(n) / case.delta)) / n
    return risk, kl_inverse(error, cost)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The risk of a classifier trained by SGLD exceeds the certificate of its own path with probability at "
    "most delta.",
    source="Rivasplata, Kuzborskij, Szepesvari and Shawe-Taylor 2020; slide on the PAC-Bayes bound of SGLD",
    assumptions={
        "the start does not depend on the samples": start_without_the_samples,
        "the samples are independent": None,
    },
    predict=predict,
    measure=measure,
    holds_on=Case,
    # The fit is already there at the start, and the path costs next to nothing.
    fails_on=lambda: Case(fitted_start=True, step_size=1e-4),
    # The log-ratio dropped: training error and confidence alone.
    corrupted=lambda: Case(counted=0.0),
    convincing=lambda: Case(seeds=250),
)
