"""SGLD fits random labels when it is cold enough, and its certificate says so: it stays at guessing or above.

Statement: for labels drawn independently of the samples every classifier has the risk 1 - 1/K. So the certificate of an
SGLD path, which exceeds the risk with probability 1 - delta, stays above 1 - 1/K at every temperature, however few
training errors are left: what the fit gains the path's divergence costs.
Source: Zhang, Bengio, Hardt, Recht and Vinyals 2017 (random labels can be fitted); the bound of
the_gap_of_langevin_training_is_at_most_its_path_bound.
Assumption: the labels do not depend on the samples.

Measured: the smallest certificate over temperatures from beta = n/4, which hardly fits, to 10^5 n, where no training
error is left. Each certificate pays for the number of temperatures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement, exact
from whydeep.core.training import Outcome, Status
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.inversion import kl_inverse
from whydeep.optimization.langevin.sgld import SGLD


@dataclass(frozen=True)
class Case:
    """A linear classifier of `classes` classes on Gaussian samples in as many dimensions as there are samples.

    true_labels: each class is a cloud of its own. counted: the fraction of the log-ratio that the certificate counts.
    """

    samples: int = 100
    dimension: int = 100
    classes: int = 10
    temperatures: tuple[float, ...] = (0.25, 10.0, 1e3, 1e5)
    steps: int = 150
    step_size: float = 1.0
    delta: float = 0.05
    true_labels: bool = False
    counted: float = 1.0


def labels_are_random(case: Case) -> bool:
    """Whether the labels were drawn without the samples."""
    return not case.true_labels


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """At least 1 - 1/K."""
    return Prediction("at least", 1 - 1 / case.classes, constants={"K": case.classes, "n": case.samples})


def measure(case: Case, generator: torch.Generator) -> tuple[Measurement, Outcome]:
    """The smallest certificate over the temperatures; INCONCLUSIVE unless the coldest run left no training error.

    Certificates are deterministic given the run, so the number has no interval. With the log-ratio dropped the coldest
    run certifies 1 - (delta / (2 sqrt(n) J))^(1/n) = .07. In
    the broken case a thousand samples of clouds around 8 e_k are learnt by one step, for .1 nats a sample at
    beta = n/4: certificates of .1 to .3.
    """
    n, d = case.samples, case.dimension
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randint(case.classes, (n,), generator=generator)
    if case.true_labels:  # well separated clouds
        x[:, : case.classes] += 8 * torch.eye(case.classes, dtype=torch.float64)[y]
    found = [_run(case, x, y, ratio * n, generator) for ratio in case.temperatures]
    smallest = min(bound for bound, _ in found)
    fitted = found[-1][1] == 0
    outcome = Outcome(
        Status.CONVERGED if fitted else Status.DIVERGED,
        "the coldest run fits all labels" if fitted else f"the coldest run left {found[-1][1]:.2f} of the labels",
    )
    return exact("smallest certificate", smallest, unit="fraction", evaluations=case.steps * len(found)), outcome


def _run(case: Case, x: Tensor, y: Tensor, beta: float, generator: torch.Generator) -> tuple[float, float]:
    """The certificate of one run, and its training error."""
    w = nn.Parameter(torch.zeros(case.dimension, case.classes, dtype=torch.float64))
    optimizer = SGLD([w], case.step_size, beta=beta, generator=generator, accumulate=True)
    for _ in range(case.steps):
        optimizer.zero_grad()
        cross_entropy(x @ w, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    error = float(((x @ w.detach()).argmax(1) != y).double().mean())
    nats = case.counted * optimizer.path.data_free.value
    price = math.log(2 * math.sqrt(case.samples) * len(case.temperatures) / case.delta)
    return kl_inverse(error, max(0.0, nats + price) / case.samples), error


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="Langevin training fits random labels when it is cold enough, and at no temperature does its path "
    "certify less than guessing.",
    source='Zhang, Bengio, Hardt, Recht and Vinyals 2017, "Understanding deep learning requires rethinking '
    'generalization"; slide on random labels',
    assumptions={"the labels do not depend on the samples": labels_are_random},
    predict=predict,
    measure=measure,
    holds_on=Case,
    fails_on=lambda: Case(true_labels=True, samples=1000, dimension=10, steps=1, step_size=0.3),
    corrupted=lambda: Case(counted=0.0),
    convincing=lambda: Case(samples=400, dimension=400, steps=300),
)
