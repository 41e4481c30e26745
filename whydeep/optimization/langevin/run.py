"""A run of Langevin dynamics on a problem, with the sums of its path and, if wanted, a prior that follows a part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core import parameters
from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default, spawn
from whydeep.core.training import Outcome, Status

from .sgld import SGLD


@dataclass(frozen=True)
class LangevinRun:
    """What a run leaves behind.

    model: at the last step. average: the mean of the weights over the last half of the steps, in which most of the
    noise cancels; both are functions of the path alone. After a divergence both are the last finite weights.
    optimizer: holds the path's sums.
    prior_part, unseen: the training samples that the prior followed and the others; None without such a prior.
    loss: the training risk at the start of every step, (steps,).
    """

    model: nn.Module
    average: nn.Module
    optimizer: SGLD
    prior_part: Data | None
    unseen: Data | None
    loss: Tensor
    outcome: Outcome


def langevin_run(
    problem: Problem,
    *,
    lr: float,
    beta: float,
    steps: int,
    weight_decay: float = 0.0,
    batch_size: int | None = None,
    prior_samples: int = 0,
    generator: torch.Generator | None = None,
) -> LangevinRun:
    """Run `steps` steps of SGLD from the problem's weights and return the path.

    batch_size: None takes all samples in every step (gradient Langevin dynamics), which keeps the path's divergence
    small; else a batch drawn without replacement, anew in every step.
    prior_samples: so many training samples, chosen at random, whose gradient the prior follows; 0 for the data-free
    prior alone. It needs full batches: the prior's gradient is then a part of the step's own, at no further cost.

    Raises `ValueError` on steps below 1, a batch below 1, or a prior that leaves no sample. The user's model is left
    alone. Cost: `steps` gradients of all samples, or of a batch.
    """
    n = len(problem.train)
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"steps={steps}, batch_size={batch_size}; give at least 1")
    if not 0 <= prior_samples < n or (prior_samples and batch_size is not None):
        raise ValueError(
            f"prior_samples={prior_samples} of {n} with batch_size={batch_size}; give fewer than all and full batches"
        )
    generator = or_default(generator)
    followed, unseen = problem.train.split(prior_samples, generator) if prior_samples else (None, None)
    model = problem.copy()
    weights: list[Tensor] = [value for value in model.parameters() if value.requires_grad]
    optimizer = SGLD(weights, lr, beta=beta, weight_decay=weight_decay, generator=spawn(generator), accumulate=True)
    finite = problem.vector()  # the last weights at which the loss was finite
    total, averaged = torch.zeros_like(finite, dtype=torch.float64), 0
    history: list[float] = []
    outcome = Outcome(Status.BUDGET_SPENT, f"{steps} steps done")
    began = steps // 2
    drawn = spawn(generator)
    with global_seed(generator):  # dropout draws from the global generator
        for step in range(steps):
            prior = None
            if followed is not None and unseen is not None:
                prior, risk = _gradients_of_both(problem, model, weights, followed, unseen)
            else:
                chosen = problem.train
                if batch_size is not None and batch_size < n:
                    chosen = chosen.take(torch.randperm(n, generator=drawn)[:batch_size])
                gradient, risk = _gradient(problem, model, weights, chosen)
                for value, part in zip(weights, gradient, strict=True):
                    value.grad = part
            if not math.isfinite(risk):
                outcome = Outcome(Status.DIVERGED, f"the loss is {risk} at step {step + 1}")
                parameters.load(model, finite)
                break
            finite = parameters.flatten(parameters.named(model))
            optimizer.step(prior=prior)
            history.append(risk)
            if step >= began:
                total += parameters.flatten(parameters.named(model))
                averaged += 1
    model.zero_grad(set_to_none=True)
    return LangevinRun(
        model=model,
        average=problem.at((total / averaged if averaged and not outcome.diverged else finite).to(finite.dtype)).model,
        optimizer=optimizer,
        prior_part=followed,
        unseen=unseen,
        loss=torch.tensor(history, dtype=torch.float64),
        outcome=outcome,
    )


def _gradient(problem: Problem, model: nn.Module, weights: list[Tensor], data: Data) -> tuple[list[Tensor], float]:
    """Gradient of the mean loss on `data`, and that loss."""
    loss = problem.per_sample(model(data.in_memory().x), data.targets).mean()
    return list(torch.autograd.grad(loss, weights, materialize_grads=True)), float(loss.detach())


def _gradients_of_both(
    problem: Problem, model: nn.Module, weights: list[Tensor], followed: Data, unseen: Data
) -> tuple[list[Tensor], float]:
    """Set `.grad` to the gradient on all samples; return that on `followed`, and the risk on all."""
    prior, first = _gradient(problem, model, weights, followed)
    others, second = _gradient(problem, model, weights, unseen)
    share = len(followed) / (len(followed) + len(unseen))
    for value, one, two in zip(weights, prior, others, strict=True):
        value.grad = share * one + (1 - share) * two
    return prior, share * first + (1 - share) * second
