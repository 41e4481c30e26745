r"""Covering numbers of the networks with given norms, and the Rademacher averages that follow.

With s_l the spectral norm of layer l, d_l = ||W_l - W0_l||_{2,1}, e_l = ||b_l - b0_l||_1, P_l the output positions of
the layer, r_l a bound on the root mean square norm that enters it, and t_l by how much the rest of the network can
stretch its output, two covering numbers of {(f(x_1), ..., f(x_n)) / sqrt(n)} in the Euclidean norm are derived:

spectral (Maurey's lemma, layer by layer, as in Bartlett, Foster and Telgarsky 2017, Lemma 3.2 and Theorem 3.3, whose
numbers are recalled, not checked against the paper; the constants are derived here, not taken from it):
    ln N(eps) <= C / eps^2 + D,  D = sum_l ln(2 W_l),  W_l parameters,
    C = (sum_l (T_l^2 t_l^2 ln(2 W_l))^(1/3))^3,  T_l = d_l r_l + e_l sqrt(P_l).
  A layer's output is a combination of 2 W_l signed signals with coefficients whose sum is at most T_l when each
  signal has norm 1, so that k = ceil(T^2/eta^2) of them come within eta. Centres are projected onto the convex set of
  outputs that the layer can give, so they obey its norms; the shares eps_l of eps are the best ones.
  From the paper it departs by biases (a further signal), shared weights (a convolution counts its taps, not the dense
  matrix), activations that do not fix zero (through r_l), and the explicit D of rounding k up.
counting (volume of a ball, layer by layer):
    ln N(eps) <= sum_l W_l ln(1 + 2 (s_l r_l + ||b_l||) t_l / eps_l),  eps_l = eps W_l / sum W.

The loss is the ramp at margin gamma, sqrt(2)/gamma-Lipschitz in the scores. The Rademacher average follows from
Dudley's integral, inf_a (4 a + 12/sqrt(n) int_a^1 sqrt(ln N(eps)) deps) (spectral; constants re-derived, as in the
paper's Lemma A.5), or from one step, inf_eps (eps + sqrt(2 ln N(eps) / n) / 2) (counting; Massart's lemma for losses
in [0, 1]). The slide's covering number, ln N = (A L)^(L(L+1)) / eps^(2L), is the older one with l1 norms.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .chain import Chain, Link
from .union_grid import rounded_up


def spectral_rademacher(chain: Chain, margin: float, samples: int) -> float:
    """Return Dudley's bound from the spectral covering number, for the ramp loss at `margin`.

    With K = sqrt(2 C)/gamma: 4 a + 12/sqrt(n) (K ln(1/a) + sqrt(D) (1 - a)) at a = min(1, 3 K) / sqrt(n). Every a in
    (0, 1] is valid; a = 1 would give 4, which only repeats that the loss is at most 1 and hides by how much the
    theorem misses.
    """
    layers = list(zip(chain.links, chain.sizes, chain.rests, strict=True))
    logs = [math.log(2 * link.parameters) for link in chain.links]
    reach = [(link.distance * size + link.bias_distance) * rest for link, size, rest in layers]
    cube = sum((one * one * log) ** (1 / 3) for one, log in zip(reach, logs, strict=True))
    k, root = math.sqrt(2 * cube**3) / margin, math.sqrt(samples)
    if k == 0:  # every layer is its origin: one function
        return 0.0
    a = min(1.0, 3 * k) / root
    return 4 * a + 12 / root * (k * math.log(1 / a) + math.sqrt(sum(logs)) * (1 - a))


RESOLUTIONS: NDArray[np.float64] = np.logspace(-6, 0, 61)
"""Where the one-step bound is tried: every resolution gives a valid bound, so the grid needs no union bound."""


def counting_rademacher(chain: Chain, margin: float, samples: int) -> float:
    """Return the one-step bound from counting parameters, for the ramp loss at `margin`."""
    total = sum(link.parameters for link in chain.links)
    logarithm = np.zeros_like(RESOLUTIONS)
    for link, size, rest in zip(chain.links, chain.sizes, chain.rests, strict=True):
        share = RESOLUTIONS * margin / math.sqrt(2) * link.parameters / total
        logarithm += link.parameters * np.log1p(2 * (link.spectral * size + link.bias) * rest / share)
    return float((RESOLUTIONS + np.sqrt(2 * logarithm / samples) / 2).min())


def on_grid(chain: Chain) -> tuple[Chain, float]:
    """Return the chain with its norms rounded up to the grid (1 + 1/L)^j, and the price of the union bound in nats.

    A norm that is zero by construction (no bias) needs no grid. The grid is fixed before the data are seen.
    """
    ratio = 1 + 1 / len(chain.links)
    price = 0.0
    links: list[Link] = []
    for link in chain.links:
        norms: dict[str, float] = {}
        for name in ("spectral", "distance", "bias", "bias_distance"):
            norms[name], cost = rounded_up(getattr(link, name), ratio)
            price += cost
        links.append(
            replace(
                link,
                spectral=norms["spectral"],
                distance=norms["distance"],
                bias=norms["bias"],
                bias_distance=norms["bias_distance"],
            )
        )
    return replace(chain, links=tuple(links)), price
