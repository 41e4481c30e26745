r"""Rademacher averages of networks with given norms, peeled off layer by layer.

Loss and scores: the ramp at margin gamma is sqrt(2)/gamma-Lipschitz in the K scores, so by the vector contraction of
Maurer 2016 (Corollary 4: sqrt(2) L E sup sum_ik e_ik f_k(x_i); recalled, not checked against the paper) its Rademacher
average is at most (2/gamma) 1/n E sup_f sum_ik e_ik f_k(x_i). With the last layer's ||W_L||_{2,1} <= m (sum of the
norms of its rows w_k) the supremum over it is m max_k ||sum_i e_ik z_i||, z_i what enters it.

Peeling (Golowich, Rakhlin and Shamir 2018, Lemma 1): for convex increasing g and an activation that acts unit by unit,
is 1-Lipschitz and positively homogeneous, E sup g(||sum e_i act(W f(x_i))||) <= 2 E sup g(||W||_F ||sum e_i f(x_i)||).
Proof: the norm squared is sum_j ||w_j||^2 (sum e_i act(w_j/||w_j|| f_i))^2, largest with all of ||W||_F in one row; the
absolute value costs the 2, and contraction removes the activation. Down to the inputs, with L layers and
P = m prod_{l<L} ||W_l||_F, B^2 = 1/n sum ||x_i||^2:
    g(z) = z^2:          1/n E max_k ... <= P B sqrt(K 2^(L-1) / n)               (max_k a_k <= sqrt(sum_k a_k^2));
    g(z) = exp(lambda z): 1/n E max_k ... <= P B (sqrt(2 ((L-1) ln 2 + ln K)) + 1) / sqrt(n)    (bounded differences).
The second is the theorem of Golowich et al. with K outputs; theirs has sqrt(2 L ln 2) + 1 for one. The first with
2^(L-1/2) in place of 2^((L-1)/2) is that of Neyshabur, Tomioka and Srebro 2015 (recalled, not checked against the
paper; the smaller factor derived here shows that the value holds).

Biases: (x, c_0) enters, c_0 fixed beforehand; the layer [W b/c; 0 c'/c] hands the constant on. Any constants c'
represent the same function, so they are chosen freely: the product decides, and it alone is rounded to a grid.

l1 (Bartlett and Mendelson 2002; recalled as (2A)^L B sqrt(2 ln(2d)/n), not checked against the paper; derived here):
a unit of layer l has sum |w| <= A_l and |b| <= b_l. For the first layer, r_1 = A_1 max_j rms(x_j) sqrt(2 ln(2d)) + b_1
(Massart, 2d signed features); then r_{l+1} = A_{l+1} (2 c_l r_l + z_l) + b_{l+1}, c_l the unit slope of the maps
between, z_l the largest |entry| of their image of 0, since |sum e_i v_i| <= sup_v sum e_i (v_i - z) +
sup_v sum -e_i (v_i - z) + |z sum e_i|. The ramp of K such scores has at most 2/gamma K r_L / sqrt(n).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .chain import Chain


def why_not_peeled(chain: Chain) -> str | None:
    """Return which map between the layers cannot be peeled off, or None."""
    for link in chain.links[:-1]:
        for one in link.maps:
            if not one.unitwise:
                return f"{one.name} after {link.name} compares units, so the layer cannot be peeled off unit by unit"
            if not one.homogeneous:
                return f"{one.name} after {link.name} is not positively homogeneous (as ReLU is)"
            if one.comparisons and one.slope > 1:
                return f"{one.name} after {link.name} has a slope above 1"
    return why_scores_are_mapped(chain)


def why_scores_are_mapped(chain: Chain) -> str | None:
    """Return what follows the last affine layer and changes the scores, or None."""
    last = chain.links[-1]
    changing = [one.name for one in last.maps if (one.slope, one.offset, one.unit_slope) != (1.0, 0.0, 1.0)]
    return f"{changing[0]} follows the last layer {last.name}, and the scores must be affine" if changing else None


def factors(chain: Chain, constants: NDArray[np.float64], start: float) -> NDArray[np.float64]:
    """Return the norms of the augmented layers, (L,): Frobenius of the hidden ones, (2,1) of the last.

    constants: c_1 .. c_{L-1}, what the constant unit carries after each hidden layer; start: c_0.
    """
    before = np.concatenate([[start], constants])
    norms = [
        link.lipschitz * math.sqrt(link.frobenius**2 + (link.bias / c) ** 2 + (after / (link.lipschitz * c)) ** 2)
        for link, c, after in zip(chain.links[:-1], before, constants, strict=False)
    ]
    last = chain.links[-1]
    return np.array([*norms, last.row_norms + last.bias_sum / before[-1]])


def best_constants(chain: Chain, start: float) -> NDArray[np.float64]:
    """Return constants c_1 .. c_{L-1} with the least product of `factors` found; any are valid.

    The logarithm of the product is a sum of log-sums of exponentials of ln c, hence convex.
    """
    hidden = len(chain.links) - 1
    if hidden == 0:
        return np.empty(0)

    def product(logs: NDArray[np.float64]) -> float:
        return float(np.log(factors(chain, np.exp(np.clip(logs, -300, 300)), start) + 1e-300).sum())

    sizes = [max(size, 1e-12) for size in chain.sizes[1:]]
    found = minimize(product, np.log(sizes), method="L-BFGS-B")
    best: NDArray[np.float64] = np.exp(np.clip(found.x, -300, 300))
    return best


def frobenius_product(chain: Chain, start: float) -> float:
    """Return P of the network with its biases: the least product of the augmented layers' norms; `start` is c_0."""
    if not any(link.bias for link in chain.links):
        norms = [link.lipschitz * link.frobenius for link in chain.links[:-1]]
        return math.prod(norms) * chain.links[-1].row_norms
    return float(factors(chain, best_constants(chain, start), start).prod())


def golowich_rademacher(product: float, size: float, *, depth: int, classes: int, samples: int) -> float:
    """Return P B (sqrt(2 ((L-1) ln 2 + ln K)) + 1) / sqrt(n), for margin 1/2: the factor 2/gamma is the caller's."""
    return product * size * (math.sqrt(2 * ((depth - 1) * math.log(2) + math.log(classes))) + 1) / math.sqrt(samples)


def neyshabur_rademacher(product: float, size: float, *, depth: int, classes: int, samples: int) -> float:
    """Return P B sqrt(K) 2^(L-1/2) / sqrt(n), for margin 1/2: the factor 2/gamma is the caller's."""
    return product * size * math.sqrt(classes / samples) * 2 ** (depth - 0.5)


def l1_rademacher(chain: Chain, samples: int) -> float:
    """Return K r_L / sqrt(n), for margin 1/2: the factor 2/gamma is the caller's."""
    first = chain.links[0]
    r = first.row_sum * chain.largest_feature * math.sqrt(2 * math.log(2 * first.inputs)) + first.bias_largest
    for before, link in zip(chain.links, chain.links[1:], strict=False):
        contraction = math.prod(one.unit_slope for one in before.maps)
        r = link.row_sum * (2 * contraction * r + before.zero) + link.bias_largest
    return chain.links[-1].units * r / math.sqrt(samples)
