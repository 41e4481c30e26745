"""The job of `whydeep spectrum`: a network, trained here or given, and the spectrum of its Hessian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.loss import Loss, PerSample
from whydeep.core.measurement import Measurement, exact
from whydeep.core.numbers import interval, plain
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default, spawn
from whydeep.core.record import plain as plainly
from whydeep.core.training import Progress, Solver
from whydeep.optimization.landscape import Spectrum, spectrum
from whydeep.optimization.named import by_name

Tell = Callable[[str, Progress], bool]


@dataclass(frozen=True)
class Curvature:
    """The spectrum of one network's Hessian, on so many samples, and how it was called."""

    spectrum: Spectrum
    samples: int
    config: Mapping[str, Any]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The eigenvalues and the smallest with the interval +- residual, the trace, and how many lie well below 0."""
        seen = self.spectrum
        ranked = zip(seen.eigenvalues.tolist(), seen.residuals.tolist(), strict=True)
        further = [
            Measurement(f"eigenvalue {rank}", value, value - residual, value + residual, method="+- residual")
            for rank, (value, residual) in enumerate(ranked, 1)
        ][1:]
        most, least, trace = seen.measurements
        level = -0.01 * max(abs(seen.largest), abs(seen.smallest))
        negative = seen.quadrature.below(level, name="eigenvalues below −1 % of the largest")
        return (exact("parameters", seen.size), most, *further, least, trace, negative)

    @property
    def sentence(self) -> str:
        """The ends and the trace in words, and whether all was reached that was asked for."""
        most, least, trace = self.spectrum.measurements
        words = [plain(m.value, 4) if m.high - m.low < 1e-3 * abs(m.value) else _interval(m) for m in (most, least)]
        shape = (
            f"The Hessian of {plain(self.spectrum.size)} parameters on {plain(self.samples)} samples has curvatures "
        )
        found = (
            f"{shape}from {words[1]} to {words[0]} and trace {_interval(trace)}, from {self.spectrum.products} products"
        )
        return f"{found}." if self.spectrum.converged else f"{found}; the residuals asked for were not reached."

    def to_json(self) -> dict[str, Any]:
        """Return everything but the eigenvectors as JSON can hold it; the density on 400 points with its 95 % band."""
        return {
            "sentence": self.sentence,
            "samples": self.samples,
            **_json(self.spectrum),
            "layers": {name: _json(layer) for name, layer in self.spectrum.layers.items()},
            "config": plainly(self.config),
        }


def curvature(
    model: nn.Module | Callable[[], nn.Module],
    train: Data,
    *,
    samples: int | None = None,
    loss: Loss | str | PerSample = "cross_entropy",
    solver: Solver | None = None,
    operator: Literal["hessian", "ggn"] = "hessian",
    top: int = 10,
    per_layer: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    config: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> Curvature:
    """Train where needed, then measure the spectrum on `samples` of the training data (all when None).

    model: a network is measured as it is, unless a solver is given; a function that makes one is trained on `train` by
    `solver` (Adam when None) first. Telling True ends the training, or the search, with what there is.
    Raises `InputError` when a training diverges, and as `spectrum` does.
    """
    generator = or_default(generator)
    train = train.to(device)
    with global_seed(generator):
        network = (model if isinstance(model, nn.Module) else model()).to(device)
    problem = Problem(network, train, loss=loss)
    if solver is not None or not isinstance(model, nn.Module):
        maker = solver or by_name("adam", samples=len(train))
        training = maker.train(problem, generator=spawn(generator), callback=_named(tell, "training"))
        if training.outcome.diverged:
            raise InputError(f"the training diverged: {training.outcome.reason}", "give a smaller step size")
        problem = problem.with_model(training.model)
    looked_at = train if samples is None else train.subsample(samples, spawn(generator))
    seen = spectrum(
        problem,
        operator=operator,
        top=top,
        per_layer=per_layer,
        data=looked_at,
        generator=generator,
        callback=_named(tell, "spectrum"),
    )
    return Curvature(seen, len(looked_at), dict(config or {}))


def _named(tell: Tell | None, phase: str) -> Callable[[Progress], bool | None] | None:
    return None if tell is None else lambda step: tell(phase, step)


def _interval(seen: Measurement) -> str:
    return interval(seen.value, seen.low, seen.high)


def _json(seen: Spectrum) -> dict[str, Any]:
    density = seen.density(seen.grid())
    negative = seen.negative
    content = {
        "parameters": seen.size,
        "eigenvalues": seen.eigenvalues.tolist(),
        "residuals": seen.residuals.tolist(),
        "smallest": seen.smallest,
        "smallest_residual": seen.smallest_residual,
        "trace": seen.trace,
        "trace_error": seen.trace_error,
        "negative": {"value": negative.value, "low": negative.low, "high": negative.high},
        "density": {name: getattr(density, name).tolist() for name in ("grid", "value", "low", "high")},
        "converged": seen.converged,
        "products": seen.products,
        "seconds": seen.seconds,
    }
    return dict(plainly(content))
