"""PAC-Bayes certificates: the mean error of networks drawn from a Gaussian, by how far it moved from its prior.

Seeger 2002 and Maurer 2004: with probability 1 - delta over n independent samples, for all posteriors Q at once,
kl(Q[R_n] || Q[R]) <= (KL(Q || P) + ln(xi(n) / delta)) / n, where the prior P was fixed without these samples and
xi(n) <= 2 sqrt(n) is `kl_moment`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .betting import betting_bound
from .certificate import Certificate, guessing, shares
from .gaussian_posterior import Gaussian, divergence
from .inversion import check_delta, kl_inverse

ASSUMPTIONS = (
    "the samples counted are independent draws of the distribution that the risk is about",
    "the prior, its centre and its scale, was fixed without them",
    "what is used is a network drawn anew from the posterior, with a good source of random numbers",
)
SUBJECT = "networks drawn from the posterior"
CONFIDENCE = "confidence, ln(xi(n)/delta)"
COLLAPSED = 0.01
"""Nats below which the posterior is the prior for all purposes: the bound could not tell them apart."""


@dataclass(frozen=True)
class Draws:
    """Errors of networks drawn from a posterior, (m,), each in [0, 1] and counted on `samples` of the n.

    With all n samples each is the draw's empirical error; with fewer, chosen anew for each draw, its mean over draws
    is the same, Q[R_n].
    """

    errors: Tensor
    samples: int


def draw_errors(posterior: Gaussian, data: Data, *, draws: int, samples: int, generator: torch.Generator) -> Draws:
    """Return the errors of `draws` networks, each on `samples` of the data drawn without replacement (all if no more).

    Cost: draws p normal numbers, and draws passes of `samples` samples.
    """
    size = min(samples, len(data))
    everything = data.in_memory().x if size == len(data) else None
    found = torch.empty(draws, dtype=torch.float64)
    for index in range(draws):
        weights = posterior.draw(generator)
        if everything is not None:
            x, y = everything, data.targets
        else:
            chosen = torch.randperm(len(data), generator=generator)[:size]
            x, y = data.x[chosen], data.targets[chosen]
        found[index] = (predictions(posterior, weights, x) != y).double().mean()
    return Draws(found, size)


def predictions(posterior: Gaussian, weights: Tensor, x: Tensor | object) -> Tensor:
    """Return the class that the network with `weights` gives each sample, (n,) int64, in batches of 2,048."""
    assert isinstance(x, Tensor)
    with torch.no_grad():
        return torch.cat([posterior.scores(weights, part).argmax(1) for part in torch.split(x, 2048)])


def kl_moment(n: int) -> float:
    """Return xi(n) = sum_k C(n,k) (k/n)^k (1-k/n)^(n-k) = E exp(n kl(K/n || p)), for K ~ Binomial(n, p) and any p.

    In the expectation p cancels: C(n,k) p^k (1-p)^(n-k) exp(n kl(k/n || p)) = C(n,k) (k/n)^k (1-k/n)^(n-k). Maurer
    2004 shows that it is at most 2 sqrt(n) for n >= 8 and that no loss in [0, 1] has a larger moment; it is near
    sqrt(pi n / 2). Summed here, so that no half nat is given away; rounded up by 1e-9 of itself, for the logarithms of
    factorials are known to 1e-15 of some 1e6. Cost: n terms.

    >>> round(kl_moment(1), 6), round(kl_moment(2), 6)  # 1 + 1; 1 + 2/4 + 1
    (2.0, 2.5)
    """
    k = np.arange(1, n, dtype=np.float64)
    share = k / n
    logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + k * np.log(share) + (n - k) * np.log1p(-share)
    return float(2 + np.exp(logs).sum()) * (1 + 1e-9)


def confidence_nats(n: int, delta: float) -> float:
    """Return ln(xi(n) / delta), what the inequality asks for besides the KL."""
    return math.log(kl_moment(n) / delta)


def pac_bayes_certificate(
    posterior: Gaussian,
    prior: Gaussian,
    data: Data,
    *,
    delta: float = 0.05,
    draws: int = 1000,
    samples: int = 1000,
    union: float = 0.0,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Return the bound on the mean risk of networks drawn from `posterior`, from the n samples of `data`.

    kl_inverse(q, (KL + union + ln(xi(n) / (delta - d))) / n), where q is a betting bound on the mean empirical error
    of the posterior from `draws` networks, which fails with probability d = delta `monte_carlo_share`.
    Whether the posterior or the prior (KL = 0) is certified is decided by a tenth as many other draws of each: the
    inequality holds for all posteriors at once, and the draws that count have not been looked at. The bound of the
    other at KL = 0 is told beside it; each holds by itself.
    union: nats paid for priors that were tried on the data, ln(number) for equal shares.
    Rounded up: every inversion is. Terms: the mean error of the draws; Monte Carlo; ln(xi(n)/delta) and union; KL.

    Raises `ValueError` on a delta outside (0, 1).
    Cost: 2.2 draws passes of `samples` samples.
    """
    check_delta(delta)
    n, generator = len(data), or_default(generator)
    moved, share = divergence(posterior, prior), monte_carlo_share(n, draws)
    constant = confidence_nats(n, delta * (1 - share)) + union

    def stages(gaussian: Gaussian, nats: float) -> list[tuple[str, float]]:
        errors = draw_errors(gaussian, data, draws=draws, samples=samples, generator=generator).errors
        sure = betting_bound(errors, delta * share)
        return [
            ("error measured", float(errors.mean())),
            ("Monte Carlo", sure),
            (CONFIDENCE, kl_inverse(sure, constant / n)),
            ("KL", kl_inverse(sure, (nats + constant) / n)),
        ]

    def guess(gaussian: Gaussian, nats: float) -> float:
        few = draw_errors(gaussian, data, draws=max(1, draws // 10), samples=samples, generator=generator)
        return kl_inverse(float(few.errors.mean()), (nats + constant) / n)

    stays = moved < COLLAPSED or guess(prior, 0.0) <= guess(posterior, moved)
    still = stages(prior, 0.0)
    used = still if stays else stages(posterior, moved)
    bound = used[-1][1]
    return Certificate(
        bound=bound,
        method="pac-bayes-kl",
        n=n,
        delta=delta,
        error=used[0][1],
        terms=shares(used),
        assumptions=ASSUMPTIONS,
        trivial=guessing(data),
        subject=SUBJECT,
        classifier=prior if stays else posterior,
        union=(
            f"{share:.2g} of delta for the draws, the rest for the inequality",
            *((f"{union:.3g} nats for the priors tried",) if union else ()),
        ),
        details={
            "KL, nats": 0.0 if stays else moved,
            "KL of the trained posterior, nats": moved,
            "draws": draws,
            "samples a draw": min(samples, n),
            "bound at KL = 0": still[-1][1],
            "gain over KL = 0": still[-1][1] - bound,
        },
        notes=collapse_notes(moved, stays),
    )


def monte_carlo_share(n: int, draws: int) -> float:
    """Return the part of delta that is spent on the draws: fixed by their number, before any is made.

    A nat of ln(1/d) costs 1/draws there, and in the inequality about sqrt(q/(2 n c)) / sqrt(n) with n c of some ten
    nats, 0.03/sqrt(n) at an error q of 2 %; the total cost is least where the shares are in the proportion of these.

    >>> round(monte_carlo_share(30_000, 1000), 2), round(monte_carlo_share(600, 1000), 2)
    (0.85, 0.45)
    """
    nat = 1 / draws
    return nat / (nat + 0.03 / math.sqrt(n))


def collapse_notes(moved: float, fell_back: bool) -> tuple[str, ...]:
    """Return what must be said of a posterior that is its prior, or no better than it."""
    if moved < COLLAPSED:
        return (f"the posterior collapsed onto its prior (KL = {moved:.2g} nats): this is a held-out bound at a price",)
    if fell_back:
        return (f"moving away from the prior did not pay ({moved:.3g} nats), so the prior itself is certified",)
    return ()
