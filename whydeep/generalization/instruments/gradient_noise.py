"""What noise does SGD add: the covariance of the gradients of single samples."""

from __future__ import annotations

import math

import torch

from whydeep.core.exhibit import Curve, Line
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.core.numbers import plain
from whydeep.generalization.experiments.gradient_noise import GradientNoise, gradient_noise

NUMBERS = 20_000_000
"""The most entries of the table of gradients, samples times parameters: 160 MB in float64."""


def applies(subject: Subject) -> str | None:
    """Return why there is no spread of gradients to measure, or None."""
    if len(subject.problem.train) < 2:
        return "there is one training sample only; gradients have no spread"
    weights = sum(value.numel() for value in subject.problem.model.parameters() if value.requires_grad)
    if not weights:
        return "the network has no trainable parameters"
    if NUMBERS // weights < 2:
        return f"the gradients of {weights:,} parameters would not fit into memory, sample by sample"
    return None


def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
    """Take per-sample gradients at the trained network, and at its start where that is known."""
    problem = subject.problem
    weights = sum(value.numel() for value in problem.model.parameters() if value.requires_grad)
    samples = max(2, min(budget["samples"], NUMBERS // weights, len(problem.train)))
    state = generator.get_state()
    now = gradient_noise(problem, samples=samples, generator=generator)
    measurements = [
        exact("directions of gradient noise", now.effective_rank, method="trace(C)^2 / trace(C^2)"),
        exact("noise per sample", math.sqrt(now.trace), method="root of the mean squared distance from the mean"),
        exact("gradient samples", now.samples, unit="samples"),
        exact("parameters", weights, unit="parameters"),
    ]
    if math.isfinite(now.noise_scale):
        measurements.append(exact("batch at which noise equals gradient", now.noise_scale, unit="samples"))
    start = None
    if subject.start is not None:
        generator.set_state(state)  # the same samples
        start = gradient_noise(problem.with_model(subject.start), samples=samples, generator=generator)
        if math.isfinite(start.noise_scale):
            measurements.append(exact("the same before training", start.noise_scale, unit="samples"))
    return Observation(tuple(measurements), (_curve(now, start),))


def _curve(now: GradientNoise, start: GradientNoise | None) -> Curve:
    lines = []
    for label, noise in (("trained", now), ("before training", start)):
        if noise is not None and noise.trace > 0:
            values = noise.eigenvalues[noise.eigenvalues > 1e-6 * noise.eigenvalues[0]] / noise.trace
            role = "measured" if noise is now else "reference"
            lines.append(Line(label, range(1, len(values) + 1), values.tolist(), role=role))  # type: ignore[arg-type]  # a literal
    return Curve(
        title="Eigenvalues of the covariance of gradient noise",
        x_label="number (log scale)",
        y_label="share of the variance (log scale)",
        lines=tuple(lines),
        alt=f"The largest holds {100 * float(now.eigenvalues[0]) / max(now.trace, 1e-300):.2g} % of the variance; "
        f"the noise spreads as over {now.effective_rank:.2g} directions of equal size.",
        x_log=True,
        y_log=True,
    )


def answer(seen: Observation) -> Answer:
    """Say in how many directions the noise lies, and the batch at which it is as large as the gradient."""
    rank, weights = seen["directions of gradient noise"], seen["parameters"].value
    names = {m.name for m in seen.measurements}
    key = "batch at which noise equals gradient"
    sentence = f"The noise of SGD lies mostly in {plain(rank.value, 2)} of {weights:,.0f} directions"
    if key in names:
        sentence += f"; it is as large as the gradient at batches of {plain(float(f'{seen[key].value:.2g}'))} samples"
        earlier = "the same before training"
        if earlier in names:
            sentence += f" ({plain(float(f'{seen[earlier].value:.2g}'))} before training)"
    else:
        sentence += f"; the gradient is not seen through it on {seen['gradient samples'].value:,.0f} samples"
    few = rank.value <= 0.1 * min(weights, seen["gradient samples"].value)
    return Answer(f"{sentence}.", "few directions" if few else "many directions", "neutral", rank.name)


instrument = Instrument(
    name="gradient_noise",
    question="generalization",
    title="The covariance of gradient noise",
    lecture="SGD sees a sample of the gradient; the mismatch is noise, which acts like a temperature.",
    source='Slides "Stochastic Gradient Descent" and "SGLD"; Bottou 2010; McCandlish, Kaplan, Amodei et al. 2018',
    rule="few directions: the noise's effective rank is at most a tenth of what the samples could show; "
    "else many directions. Neither is good or bad.",
    caveat="Measured in evaluation mode at one point of the training, on a sample that limits the rank it can show.",
    rank=9,
    budgets={"quick": {"samples": 256}, "full": {"samples": 2_000}},
    applies=applies,
    run=run,
    answer=answer,
)
