r"""The PAC-Bayes bound from spectral norms, after Neyshabur, Bhojanapalli and Srebro 2018, with constants derived here.

Layers are augmented for the biases as in `peeling` (a constant unit), their fixed maps made 1-Lipschitz, and scaled to
one spectral norm beta = (prod s_l)^(1/L) each, which leaves a positively homogeneous network what it is. Inputs have
norm at most B. Then:
1. Perturbation (their Lemma 2): if ||U_l|| <= beta/L for all l, |f_{w+u}(x) - f_w(x)| <= e B beta^(L-1) sum_l ||U_l||,
   as each layer adds to what the earlier ones did, and (1 + 1/L)^L <= e.
2. Gaussian entries of standard deviation sigma in matrices at most h by h: ||U_l|| <= sigma sqrt(2 h ln(4 h L)) for
   all l at once with probability >= 1/2 (Tropp 2012: P(||U|| > t) <= 2 h exp(-t^2 / (2 h sigma^2))). So with
   sigma = gamma / (4 e L B beta^(L-1) sqrt(2 h ln(4 h L))) scores move by less than gamma/4 and margins by gamma/2.
3. The posterior is that Gaussian around w, given this event: its divergence from the prior N(0, sigma^2) is at most
   2 (KL + ln 2), KL = sum_l beta^2 ||W_l||_F^2 / (2 s_l^2 sigma^2), since KL is at least 1/2 of it minus ln 2.
4. PAC-Bayes (Maurer 2004, with Pinsker): risk(gamma/2) of the posterior <= margin loss(gamma/2) of it +
   sqrt((divergence + ln(2 sqrt(n) / delta)) / (2 n)); and R <= the left side, its margin loss <= that of w at gamma.
So R <= margin loss at gamma + sqrt((2 KL + 2 ln 2 + ln(2 sqrt(n) / delta)) / (2 n)). The paper has
4 sqrt((KL + ln(6 n / delta)) / (n - 1)) and 42 in place of 4 sqrt(2) e = 15.4 (recalled, not checked against it).

The largest norm among the n samples stands for B: with probability 1 - delta a new sample exceeds it with probability
at most ln(1/delta) / n, which is added. gamma, beta and B are rounded to grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .chain import Chain
from .peeling import best_constants, factors, why_scores_are_mapped
from .union_grid import rounded_up


def why_no_spectral_pac_bayes(chain: Chain) -> str | None:
    """Return which map between the layers is not positively homogeneous, or None."""
    for link in chain.links[:-1]:
        for one in link.maps:
            if not one.homogeneous:
                return f"{one.name} after {link.name} is not positively homogeneous (as ReLU is)"
    return why_scores_are_mapped(chain)


def augmented_spectral(chain: Chain, constants: NDArray[np.float64], start: float) -> list[float]:
    """Return upper bounds on the spectral norms of the augmented layers: of [s b/c; 0 c'/c], the last of [s b/c]."""
    before = [start, *constants.tolist()]
    after = [*constants.tolist(), 0.0]
    found = []
    for link, c, d in zip(chain.links, before, after, strict=True):
        slope = link.lipschitz
        block = np.array([[slope * link.spectral, slope * link.bias / c], [0.0, d / c]])
        found.append(float(np.linalg.norm(block, 2)))
    return found


def spectral_pac_bayes(
    chain: Chain,
) -> tuple[Callable[[float, int, float], tuple[float, float]], float, dict[str, float]]:
    """Return (margin, samples, nats) -> (complexity, confidence term), the price of the grids, and the factors.

    nats: -ln of the delta that is left for the bound, the price of margin, beta and B already in it.
    """
    depth = len(chain.links)
    size, price = rounded_up(chain.largest_norm, 2.0)
    has_bias = any(link.bias for link in chain.links)
    start = max(size, 1.0)
    last, reach = chain.links[-1], size
    if has_bias:
        constants = best_constants(chain, start)
        spectral = augmented_spectral(chain, constants, start)
        before = start if depth == 1 else float(constants[-1])
        frobenius = [*factors(chain, constants, start)[:-1].tolist(), math.hypot(last.frobenius, last.bias / before)]
        reach = math.hypot(size, start)
    else:
        spectral = [link.lipschitz * link.spectral for link in chain.links]
        frobenius = [link.lipschitz * link.frobenius for link in chain.links]
    h = 1 + max(max(link.inputs, link.units) for link in chain.links)
    root = math.sqrt(2 * h * math.log(4 * h * depth))
    product = math.prod(spectral)
    ratio = 1 + 1 / depth
    beta, cost = rounded_up(product ** (1 / depth), ratio)
    price += cost
    stable = sum((f / s) ** 2 for f, s in zip(frobenius, spectral, strict=True)) if product else 0.0

    def terms(margin: float, samples: int, nats: float) -> tuple[float, float]:
        kl = 0.0
        if product and reach:
            # The second is the condition ||U_l|| <= beta / L: the true beta is at least the rounded one over the ratio.
            far = margin / (4 * math.e * depth * reach * beta ** (depth - 1) * root)
            sigma = min(far, beta / (ratio * depth * root))
            kl = product ** (2 / depth) * stable / (2 * sigma**2)
        # E exp(n kl) <= 2 sqrt(n) from n = 8 on (Maurer 2004), <= n + 1 always.
        moments = math.log(2 * math.sqrt(samples)) if samples >= 8 else math.log(samples + 1)
        inside, share = 2 * kl + 2 * math.log(2) + moments, nats + math.log(2)
        complexity = math.sqrt(inside / (2 * samples))
        return complexity, math.sqrt((inside + share) / (2 * samples)) - complexity + share / samples

    named = {
        "product of spectral norms": product,
        "sum of squared ratios of norms": stable,
        "size of the inputs": reach,
        "width and depth": 4 * math.e * depth * root,
    }
    return terms, price, named
