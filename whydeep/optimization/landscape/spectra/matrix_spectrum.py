"""The spectrum of a symmetric matrix that is known by its products: ends, trace and density in one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whydeep.core.exhibit import Curve
from whydeep.core.measurement import Measurement
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Callback, Progress

from . import memory as memory_of
from .block_lanczos import Projection, block_lanczos, lengths
from .density_curve import density_curve
from .hessian import Hessian
from .matrix_free import block_product
from .spectral_density import Density, Quadrature
from .trace import KNOWN, Trace, deflated_trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Spectrum:
    """What products with a symmetric matrix A (p, p) told of its eigenvalues.

    eigenvalues: (top,), the largest, descending, with eigenvectors (top, p) of length 1 and residuals (top,): some
    eigenvalue of A lies within each value +- its residual |A v - value v|. smallest, smallest_residual, softest: the
    same at the other end. unseen: with 95 % probability over the random start no eigenvalue lies further outside the
    two ends than this. converged: the residuals asked for were reached.
    trace_error: the standard error of the trace. products: all that were taken, those with vectors.
    layers: the spectra of the diagonal blocks by layer, where asked for.
    """

    eigenvalues: Tensor
    residuals: Tensor
    eigenvectors: Tensor
    smallest: float
    smallest_residual: float
    softest: Tensor
    traced: Trace
    quadrature: Quadrature
    unseen: float
    converged: bool
    products: int
    seconds: float
    layers: Mapping[str, Spectrum] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Spectrum({self.size:,} parameters, largest {self.largest:.4g} +- {float(self.residuals[0]):.1g}, "
            f"smallest {self.smallest:.4g} +- {self.smallest_residual:.1g}, trace {self.trace:.4g} with standard error "
            f"{self.trace_error:.2g}, {self.products} products{'' if self.converged else ', not converged'})"
        )

    @property
    def size(self) -> int:
        """The number p of parameters."""
        return self.quadrature.size

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[0])

    @property
    def sharpest(self) -> Tensor:
        """The direction (p,) of the largest eigenvalue."""
        return self.eigenvectors[0]

    @property
    def trace(self) -> float:
        """The estimate of the trace."""
        return self.traced.value

    @property
    def trace_error(self) -> float:
        """Its standard error."""
        return self.traced.error

    @property
    def negative(self) -> Measurement:
        """The number of negative eigenvalues, with an interval: see `Quadrature.below`.

        An eigenvalue within rounding of zero counts on neither side; where many lie near zero the interval is wide.
        """
        scale = max(abs(self.largest), abs(self.smallest))
        noise = float(torch.finfo(self.eigenvectors.dtype).eps) * math.sqrt(self.size) * scale
        return self.quadrature.below(-noise, name="negative eigenvalues")

    def density(self, grid: Tensor | Sequence[float], *, width: float | None = None) -> Density:
        """Return the smoothed spectral density on `grid` with a band: see `Quadrature.density`."""
        return self.quadrature.density(grid, width=width)

    def grid(self, points: int = 400) -> Tensor:
        """Return equally spaced eigenvalues (points,) that cover the spectrum and 6 % of its range beyond the ends."""
        low, high = self.smallest, self.largest
        beyond = 0.06 * (high - low) if high > low else max(1.0, abs(high))
        return torch.linspace(low - beyond, high + beyond, points, dtype=torch.float64)

    def curve(self, title: str = "Density of the eigenvalues") -> Curve:
        """Return the density on a logarithmic scale as a plot, with the eigenvalues at the ends marked."""
        return density_curve(self, title)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the density into `ax` (new ones when None) and return it."""
        return self.curve().plot(ax)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The ends with the interval +- residual, and the trace with Student's 95 % interval."""
        ends = (
            ("largest curvature", self.largest, float(self.residuals[0])),
            ("smallest curvature", self.smallest, self.smallest_residual),
        )
        counts: dict[str, Any] = {"evaluations": self.products, "seconds": self.seconds}
        return (
            *(
                Measurement(
                    name, value, value - residual, value + residual, method="block Lanczos, +- residual", **counts
                )
                for name, value, residual in ends
            ),
            self.traced.measurement,
        )


def matrix_spectrum(
    operator: Callable[[Tensor], Tensor] | Any,
    like: Tensor,
    *,
    top: int = 10,
    density: bool = True,
    columns: int | None = None,
    tolerance: float = 1e-4,
    trace_tolerance: float = 0.02,
    steps: int | None = None,
    probes: int = 200,
    memory: int | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Spectrum:
    """Measure the spectrum of any symmetric matrix; like: a vector (p,), for length, type and device. See `spectrum`.

    >>> diagonal = torch.arange(1.0, 6.0, dtype=torch.float64)
    >>> seen = matrix_spectrum(lambda v: diagonal * v, diagonal, top=2)
    >>> [round(float(value), 6) for value in seen.eigenvalues], round(seen.trace, 6)
    ([5.0, 4.0], 15.0)
    """
    if top < 1 or not tolerance >= 0 or not trace_tolerance >= 0:
        got = f"top={top}, tolerance={tolerance}, trace_tolerance={trace_tolerance}"
        raise ValueError(f"{got}; give top >= 1 and tolerances >= 0")
    began = time.perf_counter()
    # A child: the start has to be unrelated to a network that was itself drawn from this seed.
    generator = spawn(or_default(generator))
    size, top = len(like), min(top, len(like))
    block, steps = sizes(size, density=density, columns=columns, steps=steps)
    if block < 1 or steps < 1 or min(size, block * steps) < top:
        given = f"{steps} steps of {block} vectors cannot hold top={top} eigenvalues"
        raise ValueError(f"{given}; give a smaller top or more steps")
    check_memory(like, memory, top=top, density=density, columns=columns, steps=steps)
    multiply = operator if isinstance(operator, Hessian) else block_product(operator, size)
    taken, halted = 0, False
    most = min(size, block * steps) + probes

    def product(rows: Tensor) -> Tensor:
        nonlocal taken, halted
        images = multiply(rows)
        taken += len(rows)
        halted = halted or (callback is not None and callback(Progress(taken, most)) is True)
        return images

    def reached(seen: Projection) -> bool:
        if len(seen.matrix) < min(size, top + 1):
            return False
        # A start of b vectors shows an eigenvalue b times; where it came to an end, multiple ones are to be expected.
        if seen.closed and not seen.whole and seen.starts * block < top:
            return False
        values, _, residuals = seen.ritz()
        wanted = torch.cat([residuals[-top:], residuals[:1]])
        return bool(wanted.max() <= tolerance * values.abs().max() + seen.rounding)

    def stop(seen: Projection) -> bool:
        # Where few directions are left, visiting them makes everything exact and costs no more than the trace's probes.
        return halted or (tolerance > 0 and size - taken > 2 * KNOWN and reached(seen))

    start = torch.randn(min(block, size), size, generator=generator, dtype=like.dtype).to(like.device)
    noise = operator.noise if isinstance(operator, Hessian) else None
    seen = block_lanczos(product, start, steps=steps, stop=stop, noise=noise)
    captured = float(seen.matrix.trace())
    if seen.whole:
        traced = Trace.known(captured)
    else:
        traced = deflated_trace(
            product,
            seen.basis,
            captured=captured,
            tolerance=trace_tolerance,
            probes=probes,
            stop=lambda: halted,
            generator=generator,
        )
    if callback is not None:
        callback(Progress(taken, taken))
    values, coordinates, residuals = seen.ritz()
    chosen = torch.cat([coordinates[:, -top:].flip(1), coordinates[:, :1]], 1)
    vectors = chosen.T.to(seen.basis) @ seen.basis
    vectors /= lengths(vectors)[:, None].to(vectors)
    return Spectrum(
        eigenvalues=values[-top:].flip(0),
        residuals=residuals[-top:].flip(0),
        eigenvectors=vectors[:-1],
        smallest=float(values[0]),
        smallest_residual=float(residuals[0]),
        softest=vectors[-1],
        traced=traced,
        quadrature=Quadrature.of(seen, traced),
        unseen=0.0 if seen.whole else _unseen(size, seen.steps, seen.first, float(values[-1] - values[0])),
        converged=reached(seen),
        products=taken,
        seconds=time.perf_counter() - began,
    )


MANY = 10_000
"""Parameters from which on one random column tells the density: a mass of many eigenvalues errs by sqrt(2 / p), 1 %."""


def sizes(size: int, *, density: bool, columns: int | None, steps: int | None) -> tuple[int, int]:
    """Return the vectors of a block and the most blocks: 140 vectors in all, .56 GB for a million float32 parameters.

    On trained networks of 60,000 and 80,000 parameters 34 to 54 vectors one by one brought ten eigenvalues and the
    smallest to 1e-4, 50 to 78 in blocks of 2, 66 to 93 in blocks of 3. Two columns halve the variance of the density,
    which counts where parameters are few, and see an eigenvalue of multiplicity two.
    """
    block = columns if columns is not None else 2 if density and size < MANY else 1
    return block, 140 // max(1, block) if steps is None else steps


def check_memory(
    like: Tensor, limit: int | None, *, top: int, density: bool, columns: int | None, steps: int | None
) -> None:
    """Raise `InputError` when `matrix_spectrum` with these settings needs more than `limit` bytes."""
    block, steps = sizes(len(like), density=density, columns=columns, steps=steps)
    kept = min(top, len(like), block * steps) + 1  # more are refused for want of steps, not of memory
    memory_of.check(len(like), block=block, steps=steps, kept=kept, width=like.element_size(), limit=limit)


def _unseen(size: int, steps: int, columns: int, spread: float) -> float:
    """Return how far outside the Ritz values an eigenvalue may lie, with 95 % confidence.

    By Kuczynski and Wozniakowski (1992, theorem 4.2; recalled, not checked against the paper) k steps from a random
    direction fall short of the largest eigenvalue by more than eps * spread with probability at most
    1.648 sqrt(p) exp(-sqrt(eps) (2k - 1)). The columns of the start are independent, and all must fail.
    """
    # 2.5 % for each end; the true spread is at most the one seen divided by 1 - 2 eps.
    chance = 0.025 ** (1 / columns)
    eps = (math.log(1.648 * math.sqrt(size) / chance) / (2 * steps - 1)) ** 2
    return eps * spread / (1 - 2 * eps) if eps < 0.5 else math.inf
