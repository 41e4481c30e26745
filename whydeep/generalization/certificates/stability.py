r"""Algorithmic stability: how much the learnt network changes when one training sample is replaced.

If replacing any one sample of S moves the expected loss at any point by at most eps (uniform stability, the expectation
being over the algorithm's own randomness), then |E[R - R_n]| <= eps, the expectation being over S as well (Bousquet and
Elisseeff 2002). The functions return eps.

Stochastic gradient descent without noise, loss L-Lipschitz in the weights and B-smooth, eta_t the steps, one sample a
step (Hardt, Recht and Singer 2016, "Train faster, generalize better"; the first two are re-derived below, the third is
recalled, not checked against the paper):
    convex, eta_t <= 2/B:                    eps = 2 L^2 / n  sum_t eta_t
    gamma-strongly convex, eta <= 1/B:       eps = 2 L^2 / (gamma n)
    no convexity, eta_t <= c/t:              eps = (1 + 1/(B c)) / (n - 1) (2 c L^2)^(1/(B c + 1)) T^(B c/(B c + 1))

Two runs see the same indices. With probability 1 - 1/n a step uses the same sample in both, and then a gradient step on
a convex, B-smooth function with eta <= 2/B does not increase their distance; on a gamma-strongly convex one with
eta <= 1/B it multiplies it by at most 1 - eta gamma. With probability 1/n it adds at most 2 eta L. So
E d_t <= sum 2 eta L / n, or the geometric series 2 L / (gamma n), and the loss differs by at most L times that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def convex_stability(step_sizes: Sequence[float], *, n: int, lipschitz: float, smoothness: float) -> float:
    """Return 2 L^2 / n times the sum of the step sizes; raises `ValueError` where a step exceeds 2/B.

    >>> convex_stability([0.5] * 10, n=100, lipschitz=1.0, smoothness=2.0)
    0.1
    """
    _check(n, lipschitz, smoothness)
    if max(step_sizes, default=0.0) > 2 / smoothness:
        raise ValueError(f"a step of {max(step_sizes):g} exceeds 2/B = {2 / smoothness:g}; shorten the steps")
    return 2 * lipschitz**2 / n * math.fsum(step_sizes)


def strongly_convex_stability(
    step_size: float, *, n: int, lipschitz: float, smoothness: float, convexity: float
) -> float:
    """Return 2 L^2 / (gamma n), whatever the number of steps; raises `ValueError` where the step exceeds 1/B.

    L holds on the set to which the weights are projected, or which they do not leave.

    >>> strongly_convex_stability(0.5, n=100, lipschitz=1.0, smoothness=2.0, convexity=0.5)
    0.04
    """
    _check(n, lipschitz, smoothness)
    if not 0 < convexity <= smoothness:
        raise ValueError(f"convexity={convexity}, smoothness={smoothness}; give 0 < convexity <= smoothness")
    if step_size > 1 / smoothness:
        raise ValueError(f"a step of {step_size:g} exceeds 1/B = {1 / smoothness:g}; shorten the steps")
    return 2 * lipschitz**2 / (convexity * n)


def nonconvex_stability(steps: int, *, decay: float, n: int, lipschitz: float, smoothness: float) -> float:
    """Return the bound for steps of at most decay / t and a loss in [0, 1] (recalled, not checked against the paper).

    >>> round(nonconvex_stability(1, decay=1.0, n=3, lipschitz=1.0, smoothness=1.0), 6)  # (1 + 1)/2 sqrt(2)
    1.414214
    """
    _check(n, lipschitz, smoothness)
    power = 1 / (smoothness * decay + 1)
    first = (1 + 1 / (smoothness * decay)) / (n - 1)
    return float(first * (2 * decay * lipschitz**2) ** power * steps ** (1 - power))


@dataclass(frozen=True)
class StabilityBound:
    """|E[R - R_n]| <= value for a loss in [0, loss_range], the expectation over S, the indices and the noise.

    k0: the steps that are paid by how seldom the replaced sample is drawn in them; coupling and divergence are the two
    parts of the value. slide_k0, slide: the slide's form (k0 + L sqrt(beta sum eta)) / n with constant 1, its k0 being
    the first step with eta beta L^2 < 1 (for the order of magnitude: the slide gives no constant).
    batch_size: of the n samples, so many in every step; n is all.
    """

    value: float
    k0: int
    coupling: float
    divergence: float
    slide_k0: int
    slide: float
    steps: int
    n: int
    lipschitz: float
    loss_range: float
    batch_size: int

    @property
    def vacuous(self) -> bool:
        """Whether it is no better than the range of the loss."""
        return self.value >= self.loss_range


def langevin_stability(
    rates: Sequence[tuple[float, float, int]],
    *,
    n: int,
    lipschitz: float,
    batch_size: int = 1,
    loss_range: float = 1.0,
) -> StabilityBound:
    r"""Return the stability bound of SGLD: the lecture's first theorem with its constants.

    rates: (eta, beta, steps), run by run. lipschitz: L >= the norm of every sample's gradient at all weights; clipping
    makes it a fact. batch_size: b samples drawn without replacement; n is gradient Langevin dynamics.

        b < n:  M min over k0 of [ k0 b/n + sqrt(1/2 sum_{k > k0} ln(1 + b^2/(n (n-b)) s_k (1 + s_k) e^{s_k})) ],
                s_k = 2 eta_k beta_k L^2 / b^2
        b = n:  M sqrt(1/2 sum_k eta_k beta_k L^2 / n^2)

    Proof. A step's kernel is (1 - b/n) A + (b/n) B: batches without the replaced sample and with it, B' for the other
    data. chi2(K, K') = (b/n)^2 int (B - B')^2 / K' <= b^2 / (n (n-b)) int (B - B')^2 / A. By joint convexity of
    (x - y)^2 / z this is at most its mean over batches T of B with one partner in A each, T with another sample in the
    replaced one's place. Centres then lie within 2 eta L / b of each other: with a, a' the distances of B and B' from A
    in standard deviations sqrt(2 eta/beta), |a|^2, |a'|^2, |a - a'|^2 <= s, and the Gaussian integral is
    e^{|a|^2} + e^{|a'|^2} - 2 e^{<a, a'>}, the squared distance of features of the kernel e^{<x, y>}, whose metric is
    e^{|x|^2} (I + x x^T): at most s (1 + s) e^s. Then KL <= ln(1 + chi2), the chain rule over steps, and Pinsker. The
    first k0 steps are equal unless they draw the replaced sample: probability at most k0 b/n. For b = n the centres lie
    2 eta L / n apart, so KL = eta beta L^2 / n^2 a step.
    Source: the form is that of Mou, Wang, Zhai and Zheng 2018 on the slide; constants derived here. For b = n it is
    Theorem 7.23 of Zhang 2023, "Mathematical Analysis of Machine Learning".
    Raises `ValueError` on numbers that are not positive.

    >>> bound = langevin_stability([(0.01, 1.0, 100)], n=1000, lipschitz=1.0, batch_size=1000)
    >>> round(bound.value * 1000, 6)  # sqrt(1/2 * 100 * 0.01)
    0.707107
    """
    if not 0 < loss_range < math.inf:
        raise ValueError(
            f"loss_range={loss_range}; the bound needs a loss between 0 and a finite range; "
            "take the 0-1 loss, or clip yours"
        )
    _check(n, lipschitz, loss_range)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size} of {n} samples; give at least 1 and at most all")
    costs = np.concatenate(
        [np.empty(0), *(np.full(k, _step_divergence(eta * beta, n, lipschitz, batch_size)) for eta, beta, k in rates)]
    )
    # What is left of the divergence after the first k0 steps, k0 = 0, ..., N.
    left = np.concatenate([np.cumsum(costs[::-1])[::-1], [0.0]])
    coupling = np.minimum(1.0, np.arange(len(left)) * batch_size / n)
    k0 = int(np.argmin(coupling + np.sqrt(left / 2)))
    heat = [eta * beta for eta, beta, count in rates for _ in range(count)]
    slide_k0 = next((k for k, value in enumerate(heat) if value * lipschitz**2 < 1), len(heat))
    return StabilityBound(
        value=loss_range * float(coupling[k0] + math.sqrt(left[k0] / 2)),
        k0=k0,
        coupling=loss_range * float(coupling[k0]),
        divergence=loss_range * math.sqrt(left[k0] / 2),
        slide_k0=slide_k0,
        slide=loss_range * (slide_k0 + lipschitz * math.sqrt(math.fsum(heat[slide_k0:]))) / n,
        steps=len(costs),
        n=n,
        lipschitz=lipschitz,
        loss_range=loss_range,
        batch_size=batch_size,
    )


def _step_divergence(heat: float, n: int, lipschitz: float, b: int) -> float:
    """Bound on the KL divergence of one step's kernels, heat = eta beta."""
    if b == n:
        return heat * lipschitz**2 / n**2
    s = 2 * heat * lipschitz**2 / b**2
    # ln(1 + x) with x = e^u: for large u it is u, and e^u would overflow.
    if s == 0:
        return 0.0
    u = 2 * math.log(b) - math.log(n) - math.log(n - b) + math.log(s) + math.log1p(s) + s
    return math.log1p(math.exp(u)) if u < 700 else u


def _check(n: int, lipschitz: float, other: float) -> None:
    if n < 2 or not 0 < lipschitz < math.inf or not 0 < other < math.inf:
        raise ValueError(f"n={n}, lipschitz={lipschitz}, {other}; give two samples or more and finite numbers > 0")
