"""The risk of the Gibbs distribution exceeds its certificate with probability at most delta.

Statement: let the prior and the temperatures t_1, ..., t_K be fixed without the n samples, G_t have density
exp(-t F(w)) / Z against the prior with F the training loss, and let KL(G_t || prior) = int_0^t E_s F ds - t E_t F be
bounded from above by the left sum over the ladder. Then with probability at least 1 - delta, for all k at once,
kl(G_t[R_n] || G_t[R]) <= (KL + ln(xi(n) / delta)) / n at t = t_k. Of delta a part is for the averages over chains that
stand for E_t F and G_t[R_n].
Source: Maurer 2004 (the inequality); Maurer, Mirzaei and Pontil 2025 (the integral over temperatures; recalled, not
checked against the paper, derived in `certificates/gibbs.py`).
Assumptions: the samples are independent; the prior was fixed without them; the chains sample G_t.

The labels are fair coins, independent of the inputs, so that every network has risk 1/2 exactly and so has every
mixture of them, whatever the chains did. A linear network with more weights than samples fits such labels, and the
certificate stays above 1/2 only if what the fit cost in nats has been counted.

No rate near delta can be arranged: by Markov's inequality the bound fails with probability delta only if the moment
xi(n) is reached by one posterior alone, and the left sum and the chains' spread come on top. What the claim can and
does decide is that the rate is below delta, and that it is near 1 once the divergence is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.gaussian_posterior import Gaussian, around
from whydeep.generalization.certificates.gibbs import climb, ladder_certificate

RISK = 0.5
WIDE = 1.0
"""Scale of the prior: the scores of a draw then differ by some 17, so that most labels can be fitted."""
NARROW = 0.05
"""Scale of a prior around weights that fit: draws of it still fit nine labels in ten."""


@dataclass(frozen=True)
class Case:
    """`runs` times, `samples` random labels in `dimension` > samples dimensions; `rungs` temperatures up to n.

    apart: the prior is data-free; else it stands around weights that were fitted to the samples counted.
    counted: the certificate counts the divergence; else it is told that all losses were 0, which makes it 0.
    """

    samples: int
    dimension: int
    delta: float
    runs: int
    rungs: int = 4
    steps: int = 10
    apart: bool = True
    counted: bool = True


def prior_was_fixed_without_the_samples(case: Case) -> bool:
    """Whether the prior does not depend on the samples counted."""
    return case.apart


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """At most delta."""
    return Prediction("at most", case.delta, constants={"temperatures": case.rungs, "n": case.samples})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of runs in which the certificate lies below 1/2."""
    temperatures = case.samples * (torch.arange(case.rungs + 1, dtype=torch.float64) / case.rungs) ** 1.5
    violations = 0
    for _ in range(case.runs):
        data = coins(case, generator)
        prior = free(case) if case.apart else fitted(data)
        ladder = climb(prior, data, temperatures=temperatures, steps=case.steps, chains=3, generator=generator)
        if not case.counted:
            ladder = replace(ladder, losses=torch.zeros_like(ladder.losses))
        violations += ladder_certificate(ladder, prior, data, delta=case.delta).bound < RISK
    return proportion("runs with a violated certificate", violations, case.runs)


def coins(case: Case, generator: torch.Generator) -> Data:
    """Normal inputs with fair coins as labels."""
    x = torch.randn(case.samples, case.dimension, generator=generator, dtype=torch.float64)
    return Data(x, torch.randint(2, (case.samples,), generator=generator), classes=2)


def free(case: Case) -> Gaussian:
    """The prior around 0."""
    return around(linear(torch.zeros(2, case.dimension, dtype=torch.float64)), WIDE)


def fitted(data: Data) -> Gaussian:
    """A prior around the least weights whose scores differ by 1 in favour of every label."""
    assert isinstance(data.x, Tensor)
    w = torch.linalg.lstsq(data.x, 2.0 * data.targets.double() - 1).solution
    return around(linear(torch.stack([-w / 2, w / 2])), NARROW)


def linear(weight: Tensor) -> nn.Module:
    """A linear network without biases."""
    model = nn.utils.skip_init(nn.Linear, weight.shape[1], 2, bias=False, dtype=weight.dtype)  # type: ignore[no-untyped-call]
    assert isinstance(model, nn.Linear)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def holds_on() -> Case:
    """120 labels in 140 dimensions, delta 0.25, 16 runs.

    With the divergence counted the certificate is about 0.90 with a spread of 0.03 between runs, 13 spreads above 1/2;
    no violation in 16 runs ends the interval at 0.206. Left out, it is 0.33 with a spread of 0.05, three below 1/2; six
    violations in 10 runs begin the interval at 0.26, and fewer have a probability below 1e-12.
    """
    return Case(samples=120, dimension=140, delta=0.25, runs=16)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The risk of the Gibbs distribution exceeds its certificate with probability at most delta.",
    source="Maurer 2004; Maurer, Mirzaei and Pontil 2025 (recalled)",
    assumptions={
        "the prior was fixed without the samples": prior_was_fixed_without_the_samples,
        "the samples are independent": None,
        "the chains sample the Gibbs distribution": None,
    },
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), apart=False, runs=10),
    corrupted=lambda: replace(holds_on(), counted=False, runs=10),
    convincing=lambda: replace(holds_on(), runs=1000),
)
