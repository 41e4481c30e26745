r"""In how many ways can a piecewise linear network label n samples? Its growth function, and its VC dimension.

After layer l the signals are, wherever all decisions of the activations so far are fixed, polynomials of degree l in
the W_l parameters up to there. T polynomials of degree D in W variables have at most 2 (2 e T D / W)^W patterns of
signs when T >= W (Warren 1968, as Anthony and Bartlett 1999, Theorem 8.3: recalled, not checked against the book), and
at most 2^T in any case. Layer after layer the decisions multiply (Bartlett, Harvey, Liaw and Mehrabian 2019, proof of
Theorem 7):
    ln Pi(n) <= sum over layers of ln min(2 (2 e n k_l l / W_l)^(W_l), 2^(n k_l)),
k_l the comparisons that the maps after layer l make for one sample (one a ReLU, every pair in a window of a maximum),
and for the last layer the K (K-1) / 2 comparisons of the scores. Weights that a convolution shares are counted once.

The mistakes on n samples take at most Pi(n) patterns, so with probability 1 - delta
    R <= R_n + 2 sqrt(ln Pi(n) / (2 n)) + sqrt(ln(1/delta) / (2 n))
(symmetrisation, Massart's lemma for losses in [0, 1], bounded differences): no margin and no norm enters.

The slide's O(E log E), E the number of edges, holds for networks of threshold units (Baum and Haussler 1989) and for
piecewise linear ones of fixed depth (Bartlett, Maiorov and Meir 1998); for deep ReLU networks it is O(E L log E), and
some need Omega(E L log(E/L)) (Bartlett et al. 2019).
"""

from __future__ import annotations

import math

from .chain import Chain


def why_not_counted(chain: Chain) -> str | None:
    """Return which map is not piecewise linear, or None."""
    for link in chain.links:
        for one in link.maps:
            if one.comparisons is None:
                return f"{one.name} after {link.name} is not piecewise linear, so its decisions cannot be counted"
    return None


def log_patterns(polynomials: float, degree: int, variables: int) -> float:
    """Return ln of Warren's bound on the sign patterns, capped by the number of all patterns.

    >>> log_patterns(2, 1, 3) == 2 * math.log(2)  # two signs: four patterns
    True
    """
    every = polynomials * math.log(2)
    if polynomials < variables:
        return every
    return min(every, math.log(2) + variables * math.log(2 * math.e * polynomials * degree / variables))


def log_growth(chain: Chain, samples: int, *, classes: int | None = None) -> float:
    """Return ln Pi(n) for n samples, in nats; `classes`: how many scores are compared (the network's by default)."""
    scores = chain.links[-1].units if classes is None else classes
    total, parameters = 0.0, 0
    for degree, link in enumerate(chain.links, start=1):
        parameters += link.parameters
        for one in link.maps:
            if one.comparisons:
                total += log_patterns(samples * one.comparisons, degree, parameters)
    return total + log_patterns(samples * scores * (scores - 1) / 2, len(chain.links), parameters)


def vc_dimension(chain: Chain) -> int:
    """Return an upper bound on the VC dimension of the sign of one score difference.

    The largest n with Pi(n) >= 2^n for two classes: more samples cannot be shattered.
    """

    def shatters(n: int) -> bool:
        return log_growth(chain, n, classes=2) >= n * math.log(2)

    # ln Pi(n) is concave in n apart from the caps, and these only hold it below n k ln 2: one crossing.
    low, high = 1, 2
    while shatters(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if shatters(middle) else (low, middle)
    return low


def recalled_vc_dimension(chain: Chain) -> float:
    """Return L + Lbar W log2(4 e R log2(2 e R)) of Bartlett, Harvey, Liaw and Mehrabian 2019, Theorem 7.

    R = sum_l l k_l over units, Lbar = sum_l W_l / W. Recalled, not checked against the paper; one output.
    """
    cumulated, total = 0, 0
    for link in chain.links:
        total += link.parameters
        cumulated += total
    depth = len(chain.links)
    units = [link.units for link in chain.links[:-1]] + [1]
    r = sum(index * k for index, k in enumerate(units, start=1))
    return depth + cumulated * math.log2(4 * math.e * r * math.log2(2 * math.e * r))
