"""The spherical spin glass: where the critical values of a random polynomial of high dimension lie.

H(w) = L^(-(p - 1)/2) sum_{i1..ip} X_{i1..ip} w_{i1} ... w_{ip} on the sphere |w|^2 = L, X independent standard normal.
Choromanska et al. (2015) reach it from a ReLU network of depth p by assumptions that no real network meets
(independent paths, Gaussian weights of paths); what is exact here is exact for the spin glass alone.
Auffinger, Ben Arous and Cerny (2013): critical values of index k lie, but for a probability that is exponentially small
in L, in the band [-L E_k, -L E_inf]; below -L E_0 there is nothing. Formulas recalled, not checked against the papers;
E_0 = 1.657 at p = 3 is the known ground state.
"""

from __future__ import annotations

import itertools
import math

import torch
from scipy import optimize
from torch import Tensor

from whydeep.core.randomness import or_default


def threshold(order: int) -> float:
    """Return E_inf = 2 sqrt((p - 1)/p): above -L E_inf minima are exponentially rare, saddles of high index common.

    >>> round(threshold(3), 5)
    1.63299
    """
    _check(order)
    return 2 * math.sqrt((order - 1) / order)


def complexity(value: float, index: int, order: int) -> float:
    """Return Theta_k(u), the exponential rate in L of the number of critical points of index k with H <= L u.

    Theta_k(u) = log(p - 1)/2 - u^2 (p - 2)/(4 (p - 1)) - (k + 1) I(u) for u <= -E_inf, with
    I(u) = -(u/E_inf^2) sqrt(u^2 - E_inf^2) - log(-u + sqrt(u^2 - E_inf^2)) + log E_inf.
    Above -E_inf it keeps its value there; where it is negative such points do not occur. Natural logarithm.
    Raises `ValueError` when order < 3 or index < 0.
    """
    _check(order)
    if index < 0:
        raise ValueError(f"index={index}; give the number of downhill directions, 0 or more")
    edge = threshold(order)
    u = min(value, -edge)
    root = math.sqrt(max(u * u - edge * edge, 0.0))
    rate = -(u / edge**2) * root - math.log(-u + root) + math.log(edge)
    return 0.5 * math.log(order - 1) - u * u * (order - 2) / (4 * (order - 1)) - (index + 1) * rate


def critical_energy(index: int, order: int) -> float:
    """Return E_k > E_inf, the zero of Theta_k(-E): no critical points of index k or more lie below -L E_k.

    >>> [round(critical_energy(k, 3), 5) for k in range(3)]
    [1.657, 1.65287, 1.65025]
    """
    edge = threshold(order)
    # Theta_k is positive at the edge and falls without bound below it.
    return float(optimize.brentq(lambda e: complexity(-e, index, order), edge, 4 * edge + 4 * math.sqrt(order)))


def index(value: float, order: int) -> float:
    """Return the fraction of downhill directions of a critical point with H = L u, in the limit of large L.

    Given the energy and a zero gradient the Hessian on the sphere is sqrt(p (p - 1)) times a Gaussian matrix with
    spectrum in [-2, 2], less p u: the fraction is the part of the semicircle on [-1, 1] below u/E_inf,
    1/2 + (v sqrt(1 - v^2) + arcsin v)/pi with v = u/E_inf: none at -E_inf, one half at 0, all at E_inf.

    >>> index(-threshold(3), 3), index(0.0, 3)
    (0.0, 0.5)
    """
    v = max(-1.0, min(1.0, value / threshold(order)))
    return 0.5 + (v * math.sqrt(1 - v * v) + math.asin(v)) / math.pi


def couplings(size: int, order: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return X (size, ..., size), `order` times, drawn and made symmetric, float64: H(w) is the same polynomial.

    Memory: size^order numbers. Raises `ValueError` when order < 3 or that exceeds 2^28.
    """
    _check(order)
    if size < 2 or size**order > 2**28:
        raise ValueError(f"size={size} and order={order} make {size**order} couplings; give 4 to 2^28")
    drawn = torch.randn(*[size] * order, generator=or_default(generator), dtype=torch.float64)
    turns = list(itertools.permutations(range(order)))
    return sum((drawn.permute(turn) for turn in turns), torch.zeros_like(drawn)) / len(turns)


def energy(couplings: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return H/L (b,) and the gradient of H (b, L) on the sphere, at `points` (b, L) with |w|^2 = L.

    couplings: symmetric. The gradient is the tangential part, g - (g.w) w/L with g the gradient in R^L.
    """
    order, size = couplings.ndim, couplings.shape[0]
    state = (points @ couplings.reshape(size, -1)).view(len(points), *[size] * (order - 1))
    for _ in range(order - 2):
        state = torch.einsum("b...i,bi->b...", state, points)
    full = order * state / size ** ((order - 1) / 2)
    along = (full * points).sum(1)
    return along / (order * size), full - along[:, None] * points / size


def descend(couplings: Tensor, points: Tensor, *, steps: int = 400, step: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return where gradient descent on the sphere ends, (b, L), and |gradient|/sqrt(L) there, (b,).

    w <- sqrt(L) (w - step grad H)/|.|. The curvature of H at its minima is at most 2 p E_inf < 4 p, so that steps of .1
    are stable for p <= 5. A step reads all couplings once a point. At finite L minima also lie above the band, by
    O(L^(-2/3)): the largest eigenvalue of a Gaussian matrix falls short of its edge by so much.
    """
    size = couplings.shape[0]
    for _ in range(steps):
        _, slope = energy(couplings, points)
        moved = points - step * slope
        points = math.sqrt(size) * moved / moved.norm(dim=1, keepdim=True)
    return points, energy(couplings, points)[1].norm(dim=1) / math.sqrt(size)


def _check(order: int) -> None:
    if order < 3:
        raise ValueError(f"order={order}; give 3 or more: at order 2 the critical points are 2 L eigenvectors, no band")
