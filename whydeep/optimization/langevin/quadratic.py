"""SGLD on a quadratic: the Gibbs variance, what the step size adds to it, and what mini-batches add."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor

from whydeep.core.exhibit import Curve, Line
from whydeep.core.measurement import Measurement
from whydeep.core.randomness import or_default, spawn

from .chains import Experiment, Point, run_chains


def predicted_variance(*, curvature: float, lr: float, beta: float, batch_variance: float = 0.0) -> float:
    """Return the stationary variance of w <- w - eta (a w + e) + sqrt(2 eta / beta) z on F = a w^2 / 2.

        v = (eta^2 s2 + 2 eta / beta) / (1 - (1 - eta a)^2)

    e is the noise of a mini-batch, independent from step to step, with variance s2. Without it v is the Gibbs variance
    1 / (beta a) times 1 / (1 - eta a / 2); with it, that at the temperature 1 / beta + eta s2 / 2.
    Raises `ValueError` unless 0 < eta a < 2: otherwise the chain leaves every bounded set.

    >>> round(predicted_variance(curvature=1.0, lr=0.5, beta=1.0), 6)  # 1 / (1 - 1/4)
    1.333333
    """
    if not 0 < lr * curvature < 2:
        raise ValueError(f"eta a is {lr * curvature:g}; give a step size with 0 < eta a < 2")
    return (lr**2 * batch_variance + 2 * lr / beta) / (1 - (1 - lr * curvature) ** 2)


def measured_variance(
    *,
    curvature: float,
    lr: float,
    beta: float,
    batch_variance: float = 0.0,
    chains: int = 20_000,
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> Measurement:
    """Return the mean square of independent chains that started at zero, once (1 - eta a)^(2 k) is below 1e-6.

    Interval: m times the mean square over the variance is chi-square with m degrees of freedom.
    """
    generator = or_default(generator)
    noise = spawn(generator)
    contraction = abs(1 - lr * curvature)
    steps = 1 if contraction == 0 else math.ceil(math.log(1e-6) / (2 * math.log(contraction)))

    def force(w: Tensor) -> Tensor:
        batch = torch.randn(len(w), generator=noise, dtype=w.dtype) if batch_variance else 0.0
        return curvature * w + math.sqrt(batch_variance) * batch

    start = torch.zeros(chains, dtype=torch.float64)
    w = run_chains(force, start, lr=lr, beta=beta, steps=steps, generator=generator)
    square, tail = float(w.square().mean()), (1 - confidence) / 2
    return Measurement(
        "stationary variance",
        square,
        chains * square / float(stats.chi2.isf(tail, chains)),
        chains * square / float(stats.chi2.ppf(tail, chains)),
        confidence=confidence,
        method=f"chi-square, {chains:,} independent chains",
        evaluations=steps,
    )


def stationary_variance(
    step_sizes: Sequence[float] = (0.05, 0.2, 0.5, 1.0, 1.5),
    *,
    curvature: float = 1.0,
    beta: float = 4.0,
    batch_variance: float = 0.0,
    chains: int = 20_000,
    generator: torch.Generator | None = None,
) -> Experiment:
    """Return the stationary variance at several step sizes, predicted and measured, beside that of Gibbs."""
    generator = or_default(generator)
    points = []
    for lr in step_sizes:
        options = {"curvature": curvature, "lr": lr, "beta": beta, "batch_variance": batch_variance}
        measured = measured_variance(**options, chains=chains, generator=generator)
        points.append(Point(lr, predicted_variance(**options), measured))
    x = [point.x for point in points]
    found = [point.measured for point in points]
    gibbs = 1 / (beta * curvature)
    curve = Curve(
        "Stationary variance on a quadratic",
        "step size",
        "variance",
        (
            Line("measured", x, [m.value for m in found], [m.low for m in found], [m.high for m in found], marks=True),
            Line("with its step", x, [point.predicted for point in points], role="theory"),
            Line("Gibbs", x, [gibbs] * len(x), role="reference"),
        ),
        alt=f"The variance goes from {found[0].value:.3g} at step size {x[0]:g} to {found[-1].value:.3g} at {x[-1]:g}; "
        f"the Gibbs density has {gibbs:.3g} throughout.",
    )
    return Experiment(tuple(points), curve)
