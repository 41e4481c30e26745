r"""The covariance of gradient noise: what SGD adds to the gradient, sample by sample.

With g_i the gradient of sample i's loss and g their mean over m samples,
    C = 1/(m-1) sum_i (g_i - g)(g_i - g)',   a step on a batch of b has noise covariance about C/b.
The nonzero eigenvalues of C are those of the m by m Gram matrix, so the p by p matrix is never formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.evaluation import evaluating
from whydeep.core.problem import Problem


@dataclass(frozen=True)
class GradientNoise:
    """eigenvalues of C, descending (at most m - 1 of them are not 0); squared_gradient: an estimate of ||grad R||^2.

    squared_gradient is unbiased, ||g||^2 - trace(C)/m, and may be negative where the noise hides it.
    """

    eigenvalues: Tensor
    squared_gradient: float
    samples: int

    @property
    def trace(self) -> float:
        """Mean squared distance of a sample's gradient from the mean: unbiased."""
        return float(self.eigenvalues.sum())

    @property
    def effective_rank(self) -> float:
        """trace(C)^2 / trace(C^2): the number of equal eigenvalues that would spread as these do; 0 without noise."""
        square = float(self.eigenvalues.square().sum())
        return self.trace**2 / square if square else 0.0

    @property
    def noise_scale(self) -> float:
        """trace(C) / ||grad R||^2: the batch size at which noise is as large as the gradient.

        McCandlish, Kaplan, Amodei et al. 2018 (recalled, not checked against the paper). Infinite where the gradient
        is not seen.
        """
        return self.trace / self.squared_gradient if self.squared_gradient > 0 else float("inf")


def per_sample_gradients(problem: Problem, data: Data) -> Tensor:
    """Return the gradients (m, p) of each sample's loss, in evaluation mode and float64; m backward passes."""
    weights = [value for value in problem.model.parameters() if value.requires_grad]
    rows = []
    with evaluating(problem.model), torch.enable_grad():
        for x, y in data.batches(1):
            loss = problem.per_sample(problem.model(x), y).sum()
            parts = torch.autograd.grad(loss, weights, materialize_grads=True)
            rows.append(torch.cat([part.reshape(-1) for part in parts]).double())
    return torch.stack(rows)


def gradient_noise(problem: Problem, *, samples: int = 256, generator: torch.Generator) -> GradientNoise:
    """Return the spectrum of C on at most `samples` training samples drawn without replacement.

    Raises `ValueError` when fewer than two samples remain: one has no spread. Cost: m backward passes, m p numbers.
    """
    data = problem.train.subsample(samples, generator)
    if len(data) < 2:
        raise ValueError(f"{len(data)} sample; a covariance needs at least 2")
    gradients = per_sample_gradients(problem, data)
    m = len(gradients)
    mean = gradients.mean(0)
    spread = gradients - mean
    eigenvalues = torch.linalg.eigvalsh(spread @ spread.T / (m - 1)).clamp(min=0).flip(0)
    squared = float(mean.square().sum()) - float(eigenvalues.sum()) / m
    return GradientNoise(eigenvalues, squared, m)
