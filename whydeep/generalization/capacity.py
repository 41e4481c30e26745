r"""Norm-based capacity bounds with every constant: R <= margin loss + 2 Rademacher average + confidence term.

The network is a `Chain` of affine layers W_l x + b_l and fixed Lipschitz maps. With s_l the spectral norm,
d_l = ||W_l - W0_l||_{2,1}, e_l = ||b_l - b0_l||_1, P_l the output positions of the layer, r_l a bound on the root mean
square norm that enters it, and t_l by how much the rest of the network can stretch its output, two covering numbers of
{(f(x_1), ..., f(x_n)) / sqrt(n)} in the Euclidean norm are derived:

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

The loss is the ramp at margin gamma, 1 below margin 0, 0 above gamma and linear between: at least the 0-1 loss, and
sqrt(2)/gamma-Lipschitz in the scores. The Rademacher average follows from Dudley's integral,
inf_a (4 a + 12/sqrt(n) int_a^1 sqrt(ln N(eps)) deps) (spectral; constants re-derived, as in the paper's Lemma A.5), or
from one step, inf_eps (eps + sqrt(2 ln N(eps) / n) / 2) (counting; Massart's lemma for losses in [0, 1]).

All norms and gamma are looked up after training, so each is rounded up (gamma down) to a grid, and the union bound over
the grids is paid: step j has probability 2/3 / ((|j|+1)(|j|+2)), which sums to 1 over the integers. Norms lie on
(1 + 1/L)^j for L layers, gamma on 2^-j. The confidence term is 3 sqrt(ln(2/delta') / (2 n)) with delta' the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whydeep.core.data import Data

from .chain import Chain, Link, read_chain
from .risk import margins

Cover = Callable[[Chain, float, int], float]
"""(chain, gamma, n) -> bound on the Rademacher average of the ramp loss."""


@dataclass(frozen=True)
class CapacityBound:
    """With probability 1 - delta over n independent training samples, the risk is at most `value`.

    value = margin_loss + complexity + confidence_term, of the 0-1 loss; above 1 it says nothing.
    margin: the gamma of the best such sum. complexity: 2 x Rademacher average.
    samples_needed: how many samples would bring it below 1 at the same norms and margins; infinite if none would.
    """

    name: str
    value: float
    margin: float
    margin_loss: float
    complexity: float
    confidence_term: float
    samples: int
    samples_needed: float

    @property
    def too_big(self) -> float:
        """The factor by which the bound exceeds the trivial value 1."""
        return self.value

    @property
    def dominated_by(self) -> str:
        """The largest of the three terms."""
        terms = {
            "margin loss": self.margin_loss,
            "complexity": self.complexity,
            "confidence term": self.confidence_term,
        }
        return max(terms, key=lambda name: terms[name])


@dataclass(frozen=True)
class Ledger:
    """The bounds of one network, the chain they were computed from, and the same bounds at other sample sizes."""

    chain: Chain
    bounds: tuple[CapacityBound, ...]
    value_at: Callable[[str, int], float]

    @property
    def smallest(self) -> CapacityBound:
        """The best of them; each was given its share of delta, so this may be looked up."""
        return min(self.bounds, key=lambda bound: bound.value)


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


COVERS: dict[str, Cover] = {"counting": counting_rademacher, "spectral": spectral_rademacher}


def step_price(step: int) -> float:
    """Return -ln of the probability 2/3 / ((|j|+1)(|j|+2)) of grid step j: what looking it up costs, in nats."""
    return math.log(1.5 * (abs(step) + 1) * (abs(step) + 2))


def on_grid(chain: Chain) -> tuple[Chain, float]:
    """Return the chain with its norms rounded up to the grid (1 + 1/L)^j, and the price of the union bound in nats.

    A norm that is zero by construction (no bias) needs no grid. The grid is fixed before the data are seen.
    """
    ratio = math.log1p(1 / len(chain.links))
    price = 0.0
    links: list[Link] = []
    for link in chain.links:
        rounded: dict[str, float] = {}
        for name in ("spectral", "distance", "bias", "bias_distance"):
            value = rounded[name] = getattr(link, name)
            if value > 0:
                step = math.ceil(math.log(value) / ratio - 1e-12)
                rounded[name] = max(value, math.exp(step * ratio))
                price += step_price(step)
        links.append(
            replace(
                link,
                spectral=rounded["spectral"],
                distance=rounded["distance"],
                bias=rounded["bias"],
                bias_distance=rounded["bias_distance"],
            )
        )
    return replace(chain, links=tuple(links)), price


def capacity_ledger(model: nn.Module, train: Data, *, start: nn.Module | None = None, delta: float = 0.05) -> Ledger:
    """Return the capacity bounds on the risk of `model`, from its norms and its margins on the training data.

    start: the network before training, drawn without the data; distances are measured from it. Every bound gets
    an equal share of delta, so all hold at once.

    Raises `InputError` when the network is no chain of affine layers and known Lipschitz maps (naming the module) or
    the data have no classes. Cost: one pass over the data, one singular value decomposition a layer.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}; give a probability in (0, 1)")
    found = margins(model, train).cpu().numpy()
    chain, price = on_grid(read_chain(model, train, start=start))
    share = math.log(2 * len(COVERS) / delta) + price

    def at(name: str, samples: int) -> CapacityBound:
        return _best(name, chain, found, samples, share)

    def value_at(name: str, samples: int) -> float:
        return at(name, samples).value

    bounds = tuple(
        replace(at(name, len(train)), samples_needed=_needed(partial(value_at, name), len(train))) for name in COVERS
    )
    return Ledger(chain, bounds, value_at)


def _best(name: str, chain: Chain, found: NDArray[np.float64], samples: int, share: float) -> CapacityBound:
    """The smallest bound over the grid of gamma; -ln delta' = share + price of gamma."""
    best: CapacityBound | None = None
    # No gamma above the median margin: beyond, complexity is only traded for a margin loss that says nothing either.
    typical = float(np.median(found))
    typical = typical if typical > 0 else float(np.abs(found).max())
    top = math.floor(math.log2(typical)) if typical > 0 else 0
    # Below 2^-20 of it nothing is gained: the margin loss is the training error by then.
    for step in range(top, top - 21, -1):
        margin = 2.0**step
        loss = float(np.clip(1 - found / margin, 0, 1).mean())
        complexity = 2 * COVERS[name](chain, margin, samples)
        confidence = 3 * math.sqrt((share + step_price(step)) / (2 * samples))
        value = loss + complexity + confidence
        if best is None or value < best.value:
            best = CapacityBound(name, value, margin, loss, complexity, confidence, samples, math.inf)
    assert best is not None
    return best


def _needed(value: Callable[[int], float], samples: int) -> float:
    """The least number of samples with value below 1, to 1 %: the value falls as they grow."""
    low, high = 1, max(1, samples)
    while value(high) >= 1:
        low, high = high, 2 * high
        if high > 2**100:
            return math.inf
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) >= 1 else (low, middle)
    return float(high)
