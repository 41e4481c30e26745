"""A PAC-Bayes certificate for the very networks that were drawn: no mean over the posterior, no Monte Carlo error."""

from __future__ import annotations

import torch

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .certificate import Certificate, guessing, shares
from .gaussian_posterior import Gaussian, divergence, log_ratio
from .inversion import check_delta, kl_inverse
from .pac_bayes import CONFIDENCE, collapse_notes, confidence_nats, predictions

ASSUMPTIONS = (
    "the samples counted are independent draws of the distribution that the risk is about",
    "the prior, its centre and its scale, was fixed without them",
    "the networks were drawn from the posterior once, and none was picked by its errors or replaced",
)


def disintegrated_certificate(
    posterior: Gaussian,
    prior: Gaussian,
    data: Data,
    *,
    delta: float = 0.05,
    draws: int = 1,
    union: float = 0.0,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Return the bound on the risk of the network drawn from `posterior`, from the n samples of `data`.

    With probability 1 - delta over samples and draw, kl(R_n(h) || R(h)) <= (ln dQ/dP(h) + ln(xi(n)/delta)) / n.
    For several draws the same holds for the mean of their errors, with the mean of ln dQ/dP: the classifier then
    picks one of these networks at random for every sample, and the log-ratio fluctuates less.
    Proof: E exp(n kl(R_n(h) || R(h))) <= xi(n) for h ~ P (Maurer 2004), so
    E (1/m) sum_j (dP/dQ)(h_j) exp(n kl_j) <= xi(n) for h_j ~ Q, and Markov's inequality bounds that sum by
    xi(n)/delta. By convexity it is at least exp((1/m) sum_j (n kl_j - ln dQ/dP(h_j))), and the mean of the kl_j is
    at least the kl of the means.
    Rounded up by its inversion. Terms: the error measured; ln(xi(n)/delta); the log-ratio.

    Raises `ValueError` on a delta outside (0, 1) or no draw.
    Source: Rivasplata et al. 2020; Viallard et al. 2023 (recalled, not checked against the papers; proved above).
    Cost: one pass over the data a draw.
    """
    check_delta(delta)
    if draws < 1:
        raise ValueError(f"draws={draws}; give at least 1")
    n = len(data)
    generator = or_default(generator)
    x, y = data.in_memory().x, data.targets
    weights = [posterior.draw(generator) for _ in range(draws)]
    wrong = sum(int((predictions(posterior, drawn, x) != y).sum()) for drawn in weights)
    ratio = sum(log_ratio(posterior, prior, drawn) for drawn in weights) / draws
    error, constant = wrong / (n * draws), confidence_nats(n, delta) + union
    # A log-ratio below 0 lowers the bound, to no less than the error: kl is never negative. (NaN stays NaN: refused.)
    stages = [
        ("error measured", error),
        (CONFIDENCE, kl_inverse(error, constant / n)),
        ("log-ratio of the draw", kl_inverse(error, max(constant + ratio, 0.0) / n)),
    ]
    networks = [posterior.network(drawn) for drawn in weights]
    return Certificate(
        bound=stages[-1][1],
        method="disintegrated",
        n=n,
        delta=delta,
        error=error,
        terms=shares(stages),
        assumptions=ASSUMPTIONS,
        errors=wrong if draws == 1 else None,
        trivial=guessing(data),
        subject="the network drawn" if draws == 1 else f"the {draws} networks drawn",
        classifier=networks[0] if draws == 1 else tuple(networks),
        union=(f"{union:.3g} nats for the priors tried",) if union else (),
        details={
            "log-ratio, nats": ratio,
            "KL, nats": divergence(posterior, prior),
            "draws": draws,
            "bound at KL = 0": stages[1][1],
            "gain over KL = 0": stages[1][1] - stages[2][1],
        },
        notes=collapse_notes(divergence(posterior, prior), False),
    )
