"""Whatever the method, the risk exceeds a certificate with probability at most delta.

Statement: let J methods certify networks from the same samples at delta / J each. If the classifier that a held-out
method counts on, and the prior of a PAC-Bayes method, were fixed without these samples, then with probability at least
1 - delta no risk exceeds its bound; the PAC-Bayes posterior may be fitted to the samples as closely as it likes.
Source: Langford 2005 (held-out); Maurer 2004 (PAC-Bayes-kl, the mean over the posterior); Rivasplata et al. 2020 (the
same for one draw); Waudby-Smith and Ramdas 2024 (the mean empirical error from draws).
Assumptions: the samples are independent; classifier and prior were fixed without them.

The labels are fair coins, independent of the inputs, so that every classifier has risk 1/2 exactly, however it was
found. A linear network with more weights than samples fits them without an error, which is where a bound that forgets
to pay is found out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whydeep.core.claim import Claim
from whydeep.core.data import Data
from whydeep.core.measurement import Measurement, proportion
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.disintegrated import disintegrated_certificate
from whydeep.generalization.certificates.gaussian_posterior import around
from whydeep.generalization.certificates.heldout import BOUNDS, heldout_certificate
from whydeep.generalization.certificates.pac_bayes import pac_bayes_certificate

RISK = 0.5
METHODS = (*BOUNDS, "pac-bayes-kl", "disintegrated")
SCALE = 0.05
"""Of prior and posterior: nearly a weight's own size, and draws of the posterior still fit nine labels in ten."""


@dataclass(frozen=True)
class Case:
    """`runs` times, `samples` random labels in `dimension` > samples dimensions are certified by all methods.

    apart: the classifier and the prior are fitted to other samples than those counted.
    paid: whether the certificate is told where the prior is; else it takes the posterior for it, at KL = 0.
    """

    samples: int
    dimension: int
    delta: float
    runs: int
    apart: bool = True
    paid: bool = True


def classifier_and_prior_were_fixed_without_the_samples(case: Case) -> bool:
    """Whether what must not depend on the samples counted was fitted to others."""
    return case.apart


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """At most delta: the union bound over the methods."""
    return Prediction("at most", case.delta, constants={"methods": len(METHODS)})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The fraction of runs in which any certificate lies below 1/2."""
    share = case.delta / len(METHODS)
    violations = 0
    for _ in range(case.runs):
        counted, other = coins(case, generator), coins(case, generator)
        fixed, fitted = fit(other if case.apart else counted), fit(counted)
        bounds = [heldout_certificate(fixed, counted, delta=share, method=name).bound for name in BOUNDS]
        prior = around(fixed, SCALE)
        posterior = replace(prior, mean=around(fitted, SCALE).mean)
        known = prior if case.paid else posterior
        gibbs = pac_bayes_certificate(posterior, known, counted, delta=share, draws=20, generator=generator)
        single = disintegrated_certificate(posterior, known, counted, delta=share, generator=generator)
        violations += min(*bounds, gibbs.bound, single.bound) < RISK
    return proportion("runs with a violated certificate", violations, case.runs)


def coins(case: Case, generator: torch.Generator) -> Data:
    """Normal inputs with fair coins as labels."""
    x = torch.randn(case.samples, case.dimension, generator=generator, dtype=torch.float64)
    return Data(x, torch.randint(2, (case.samples,), generator=generator), classes=2)


def fit(data: Data) -> nn.Module:
    """The linear network of least norm whose scores differ by 1 in favour of every label."""
    model = nn.utils.skip_init(nn.Linear, data.input_shape[0], 2, bias=False, dtype=torch.float64)  # type: ignore[no-untyped-call]
    assert isinstance(data.x, Tensor)
    signs = 2.0 * data.targets.double() - 1
    w = torch.linalg.pinv(data.x) @ signs
    with torch.no_grad():
        model.weight.copy_(torch.stack([-w / 2, w / 2]))
    assert isinstance(model, nn.Module)
    return model


def holds_on() -> Case:
    """40 labels in 60 dimensions, five methods, delta 0.25, 80 runs.

    Held-out: the three bounds are violated by nested events, the largest of which is a binomial tail below delta / 5 =
    0.05: P(Binomial(40, 1/2) <= 14) = 0.040. PAC-Bayes: a posterior that fits costs hundreds of nats, so never.
    80 runs hold while at most 12 violate (Clopper-Pearson 0.247): at a rate of 0.040 more have probability 1e-5.
    Unpaid, or fitted to the samples counted, practically all 40 violate: the interval ends above 0.9.
    """
    return Case(samples=40, dimension=60, delta=0.25, runs=80)


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="No risk exceeds its certificate, whatever the method, but with probability delta.",
    source="Langford 2005; Maurer 2004; Rivasplata et al. 2020; Waudby-Smith and Ramdas 2024",
    assumptions={
        "classifier and prior were fixed without the samples": classifier_and_prior_were_fixed_without_the_samples,
        "the samples are independent": None,
    },
    predict=predict,
    measure=measure,
    holds_on=holds_on,
    fails_on=lambda: replace(holds_on(), apart=False, runs=40),
    corrupted=lambda: replace(holds_on(), paid=False, runs=40),
    convincing=lambda: replace(holds_on(), runs=1000),
)
