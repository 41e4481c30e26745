"""The trace of a symmetric matrix, by random probes on what a basis has not captured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.measurement import Measurement, exact
from whydeep.core.randomness import or_default

from .block_lanczos import BlockProduct, lengths

KNOWN = 12.0
"""Degrees of freedom at which the standard error is trusted: its own relative error is then 1 / sqrt(2 * 12) = 20 %."""

AT_ONCE = 4
"""Probes that are multiplied together at most: larger blocks are hardly faster, and every one is five vectors more."""


@dataclass(frozen=True)
class Trace:
    """What probes z told of tr A beside a basis: B = P A P is A on the d directions that the basis leaves out.

    captured: tr(Q A Q^T) on the basis. dimension: d. probes (k,): the z . B z. squares (k,): the |B z|^2.
    overlaps (k/2, 3): of every two probes z, z' taken together B z . B z', z . B z' and z . z'.
    """

    captured: float
    dimension: int
    probes: Tensor
    squares: Tensor
    overlaps: Tensor

    @staticmethod
    def known(value: float) -> Trace:
        """Return a trace without error: the basis is everything."""
        nothing = torch.zeros(0, dtype=torch.float64)
        return Trace(value, 0, nothing, nothing, nothing.reshape(0, 3))

    @property
    def value(self) -> float:
        """The estimate of tr A, without bias for a given number of probes."""
        return self.captured + (float(self.probes.mean()) if len(self.probes) else 0.0)

    @property
    def error(self) -> float:
        """The standard error of the mean of k probes uniform on the sphere of radius sqrt(d), from their images.

        One probe has variance V = 2 d / (d + 2) (tr B^2 - (tr B)^2 / d), by the fourth moments of a point on a sphere.
        As E |B z|^2 = tr B^2, the images tell it: V is estimated without bias by (d S - t^2) / ((d + 2) / 2 - 1 / k)
        with S the mean of |B z|^2 and t that of z . B z. The sum |B z|^2 runs over all directions at once, so that few
        probes tell it well, where their spread s^2 would need a dozen: see `degrees`.
        """
        count, size = len(self.probes), self.dimension
        if not count:
            return 0.0
        centred = size * float(self.squares.mean()) - float(self.probes.mean()) ** 2
        return math.sqrt(max(0.0, centred) / ((size + 2) / 2 - 1 / count) / count)

    @property
    def degrees(self) -> float:
        """The degrees of freedom nu of the standard error: its square varies as chi^2_nu / nu (Satterthwaite 1946).

        With C = B - tr B / d the relative variance of |C z|^2 is 2 r, r = tr C^4 / (tr C^2)^2: 1 where one direction
        holds everything, 1/m where m directions count alike. Two independent probes tell r, the mean square of the
        cosine between C z and C z', and k of them together have nu = k / r.
        """
        count = len(self.probes)
        if count < 2 or not len(self.overlaps):
            return float(count)
        shift = float(self.probes.mean()) / self.dimension
        lengths = self.squares - 2 * shift * self.probes + shift**2 * self.dimension
        across = self.overlaps @ torch.tensor([1.0, -2 * shift, shift**2], dtype=torch.float64)
        paired = lengths[: 2 * len(across)].clamp(min=0).reshape(-1, 2).prod(1)
        # Where nothing is left but rounding the cosine is 0 / 0, and the standard error about 0 whatever it is.
        agreement = float(across.square().sum()) / float(paired.sum()) if bool(paired.sum() > 0) else 0.0
        return count / min(1.0, max(agreement, 1e-6))

    @property
    def measurement(self) -> Measurement:
        """The trace with a 95 % interval, by Student's distribution with `degrees` degrees of freedom."""
        count = len(self.probes)
        if not count:
            return exact("trace", self.captured, method="every direction visited")
        half = float(stats.t.ppf(0.975, self.degrees)) * self.error
        method = f"{count} random probes beside the basis, variance from their images"
        return Measurement("trace", self.value, self.value - half, self.value + half, method=method, evaluations=count)


def deflated_trace(
    product: BlockProduct,
    basis: Tensor,
    *,
    captured: float = 0.0,
    tolerance: float = 0.02,
    probes: int = 200,
    stop: Callable[[], bool] | None = None,
    generator: torch.Generator | None = None,
) -> Trace:
    """Estimate tr A = tr(Q A Q^T) + E z^T A z, z uniform on the sphere of radius sqrt(d) orthogonal to Q.

    Hutchinson's estimator (1990; there with entries +-1). basis Q: (m, p), orthonormal rows chosen independently of
    the probes; captured = tr(Q A Q^T); d = p - m. The directions that Q has captured no longer cause variance: the idea
    of Hutch++ (Meyer et al. 2021), there with a random sketch of A for Q, here with the vectors of Lanczos' method,
    which are there already.

    Probes are taken in pairs until the standard error is at most tolerance * |estimate| and rests on `KNOWN` degrees
    of freedom, `probes` at most, or until `stop` says so after a product. A look at the error before stopping makes it
    smaller on average than it is, by about 1 / (2 nu). Raises `ValueError` for fewer than 2 probes, or when the basis
    is everything. Cost: one product a probe.

    >>> nothing = torch.zeros(0, 5, dtype=torch.float64)
    >>> seen = deflated_trace(lambda v: 2 * v, nothing)
    >>> round(seen.value, 9), round(seen.error, 6)
    (10.0, 0.0)
    """
    if probes < 2:
        raise ValueError(f"probes={probes}; give at least 2, one alone tells nothing of its spread")
    generator = or_default(generator)
    taken, size = basis.shape
    if taken >= size:
        raise ValueError(f"a basis of {taken} of {size} directions leaves nothing to probe; take {size - 1} at most")
    seen = Trace(captured, size - taken, *(torch.zeros(*s, dtype=torch.float64) for s in ((0,), (0,), (0, 3))))
    wanted = 4
    while True:
        count = min(wanted, AT_ONCE, probes - len(seen.probes))
        seen = _more(seen, product, basis, count=count, generator=generator)
        goal = tolerance * abs(seen.value)
        sure = KNOWN * len(seen.probes) / seen.degrees
        needed = max(sure, len(seen.probes) * (seen.error / goal) ** 2 if goal > 0 else math.inf)
        enough = (seen.error <= goal and seen.degrees >= KNOWN) or len(seen.probes) >= probes
        if enough or (stop is not None and stop()):
            return seen
        # An even number, as many as the present estimate asks for: on the way one learns no more than at its end.
        wanted = 2 * max(1, math.ceil((min(needed, probes) - len(seen.probes)) / 2))


def _more(seen: Trace, product: BlockProduct, basis: Tensor, *, count: int, generator: torch.Generator) -> Trace:
    """Return `seen` with `count` further probes."""
    size = basis.shape[1]
    rows = torch.randn(count, size, generator=generator, dtype=basis.dtype).to(basis)
    for _ in range(2):  # what rounding left in the captured directions, large in A, is taken out the second time
        rows -= (rows @ basis.T) @ basis
    rows *= (math.sqrt(seen.dimension) / lengths(rows)[:, None]).to(rows)
    images = product(rows)
    inside = (images @ basis.T).double()
    values = (rows * images).sum(1, dtype=torch.float64)
    squares = images.square().sum(1, dtype=torch.float64) - inside.square().sum(1)
    # Two and two; of an odd number the last stays alone.
    first, second = slice(0, count - 1, 2), slice(1, count, 2)
    overlaps = torch.stack(
        [
            (images[first] * images[second]).sum(1, dtype=torch.float64) - (inside[first] * inside[second]).sum(1),
            (rows[first] * images[second]).sum(1, dtype=torch.float64),
            (rows[first] * rows[second]).sum(1, dtype=torch.float64),
        ],
        dim=1,
    )
    return Trace(
        seen.captured,
        seen.dimension,
        torch.cat([seen.probes, values.cpu()]),
        torch.cat([seen.squares, squares.cpu()]),
        torch.cat([seen.overlaps, overlaps.cpu()]),
    )
