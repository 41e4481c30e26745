r"""Which of the two SGLD bounds is tighter: stability gains a factor sqrt(n) on PAC-Bayes while gradients last.

Statement: with full gradients and losses in [0, 1] the stability bound of the expected gap is
L sqrt(beta sum eta / 2) / n, and the PAC-Bayes bound (the path's divergence by Pinsker) is
sqrt(beta sum eta_k ||g_k||^2 / (8 n)). Their ratio is 2 (L / g) / sqrt(n), g^2 the mean of ||g_k||^2 on the path: the
stability bound is the tighter one when the gradient keeps a fixed size against L while n grows, by a factor that falls
like n^-1/2; the PAC-Bayes bound is, when training soon makes the gradient of the risk small against L.
Source: the slides' two theorems (Mou, Wang, Zhai and Zheng 2018), constants derived in
whydeep.generalization.certificates.stability and whydeep.optimization.langevin.path.
Assumption: the gradient along the path does not vanish as n grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import nn

from whydeep.core.claim import Claim
from whydeep.core.measurement import Measurement
from whydeep.core.verdict import Prediction
from whydeep.generalization.certificates.stability import langevin_stability
from whydeep.optimization.langevin.sgld import SGLD


@dataclass(frozen=True)
class Case:
    """Logistic regression on unit vectors (so L = 1) for several numbers of samples.

    signal: how far the classes lie apart; without it and from zero the gradient is what sampling leaves, n^-1/2.
    power: of n in the stability bound; 1 is the theorem's.
    """

    sizes: tuple[int, ...] = (100, 200, 400, 800, 1600)
    dimension: int = 5
    signal: float = 1.0
    beta: float = 500.0
    step_size: float = 0.1
    steps: int = 10
    repeats: int = 12
    power: float = 1.0


def gradient_remains(case: Case) -> bool:
    """Whether the population's gradient at the start is not zero."""
    return case.signal > 0


def predict(case: Case, generator: torch.Generator) -> Prediction:
    """The exponent -1/2 of n, within .1.

    The standard error of the fitted slope is about .01 here, and the interval reaches four from an estimate that may
    itself be four off. A gradient that falls like n^-1/2 gives the exponent 0, five tolerances away.
    """
    return Prediction("grows like", -0.5, tolerance=0.1, constants={"L": 1.0})


def measure(case: Case, generator: torch.Generator) -> Measurement:
    """The slope of ln(stability bound / PAC-Bayes bound) against ln n, each from the sums of a path that was run."""
    sizes = [n for n in case.sizes for _ in range(case.repeats)]
    ratios = [_ratio(case, n, generator) for n in sizes]
    fit = stats.linregress(np.log(sizes), np.log(ratios))
    half = 4 * float(fit.stderr)
    return Measurement(
        "exponent of n",
        float(fit.slope),
        float(fit.slope) - half,
        float(fit.slope) + half,
        confidence=0.999,
        method=f"least squares over {len(sizes)} runs, four standard errors",
    )


def _ratio(case: Case, n: int, generator: torch.Generator) -> float:
    sign = torch.randint(2, (n,), generator=generator).double() * 2 - 1
    x = torch.randn(n, case.dimension, generator=generator, dtype=torch.float64)
    x[:, 0] += case.signal * sign
    signed = x / x.norm(dim=1, keepdim=True) * sign[:, None]
    w = nn.Parameter(torch.zeros(case.dimension, dtype=torch.float64))
    optimizer = SGLD([w], case.step_size, beta=case.beta, generator=generator, accumulate=True)
    for _ in range(case.steps):
        w.grad = -(torch.sigmoid(-(signed @ w.detach())) @ signed) / n
        if case.signal == 0:
            # Without anything to learn the noise alone would carry the weights away; the start is what is compared.
            w.data.zero_()
            w.grad = -(0.5 * signed.sum(0)) / n
        optimizer.step()
    path = optimizer.path
    bound = langevin_stability(path.rates, n=n, lipschitz=1.0, batch_size=n).value
    stability: float = bound * n ** (1 - case.power)
    return stability / math.sqrt(path.data_free.divergence / (2 * n))


claim = Claim(
    id=__name__.rsplit(".", 1)[1],
    question="generalization",
    statement="The ratio of SGLD's stability bound to its PAC-Bayes bound falls like n^-1/2 while the gradient keeps "
    "its size.",
    source="Slides on the two generalization bounds of SGLD; Mou, Wang, Zhai and Zheng 2018",
    assumptions={"the gradient does not vanish as n grows": gradient_remains},
    predict=predict,
    measure=measure,
    holds_on=Case,
    # Nothing to learn: the gradient itself falls like n^-1/2, and the ratio stays.
    fails_on=lambda: Case(signal=0.0),
    # A stability bound that falls like n^-1/2 only, as if the replaced sample weighed that much.
    corrupted=lambda: Case(power=0.5),
    convincing=lambda: Case(sizes=(100, 200, 400, 800, 1600, 3200), repeats=10),
)
