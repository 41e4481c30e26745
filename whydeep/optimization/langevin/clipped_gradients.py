"""Per-sample gradients: clipped, so that the Lipschitz constant of a bound is a fact, and their noise in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default


def per_sample_gradients(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of every sample's loss in the trainable weights, (n, p), flat in their order.

    loss: (output (n, ...), target) -> (n,). Raises `InputError` where the samples of a batch are mixed (batch
    normalisation in training mode), so that no sample has a loss of its own. Memory: n p numbers.
    """
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    rest = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
    rest |= dict(model.named_buffers())

    def of_one(values: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(model, values | rest, (sample[None],)), target[None]).sum()

    try:
        parts = vmap(grad(of_one), in_dims=(None, 0, 0), randomness="different")(weights, x, y)
    except (RuntimeError, ValueError) as fault:
        raise InputError(
            f"the network gives single samples no gradient of their own: {str(fault).strip().splitlines()[0]}",
            "put batch normalisation into evaluation mode, or use a network without it",
        ) from fault
    return torch.cat([parts[name].reshape(len(x), -1) for name in weights], dim=1)


def clipped_gradients(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, *, clip: float
) -> float:
    """Set `.grad` to the mean over the batch of g_i min(1, clip / ||g_i||); return the fraction that was clipped.

    What a step then uses are gradients of a function that is `clip`-Lipschitz in the weights for every sample: the L
    of the stability bounds. It is no longer the gradient of the loss; only the path is what the bounds speak of.
    Source: the clipping of Abadi et al. 2016, without their noise. Cost: the batch's gradients one by one, n p numbers.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> squared = lambda output, target: 0.5 * (output - target).square().sum(1)
    >>> clipped_gradients(model, squared, torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [8.0]]), clip=1.0)
    0.5
    >>> model.weight.grad  # (-0.5 - 1) / 2, where 8 was clipped to 1
    tensor([[-0.7500]])
    """
    if not 0 < clip < math.inf:
        raise ValueError(f"clip is {clip}; give a finite number > 0")
    gradients = per_sample_gradients(model, loss, x, y)
    norms = gradients.norm(dim=1)
    factors = (clip / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    mean = factors @ gradients / len(x)
    position = 0
    for value in model.parameters():
        if value.requires_grad:
            value.grad = mean[position : position + value.numel()].view_as(value).clone()
            position += value.numel()
    return float((norms > clip).double().mean())


@dataclass(frozen=True)
class BatchHeat:
    """How much hotter mini-batches make SGLD than its beta says.

    variance: s2, the variance of a batch's gradient, averaged over the p coordinates. beta: what was asked for.
    effective: beta_eff, 1 / beta_eff = 1 / beta + eta s2 / 2.
    """

    variance: float
    beta: float
    effective: float


def batch_heat(
    problem: Problem,
    *,
    lr: float,
    beta: float,
    batch_size: int | None,
    samples: int = 256,
    generator: torch.Generator | None = None,
) -> BatchHeat:
    """Return the effective inverse temperature of SGLD with mini-batches at the problem's present weights.

    A step adds noise of variance 2 eta / beta a coordinate, and a batch of b among n samples moves it by eta^2 s2 on
    top, s2 = tr(C) / (p b) (n - b) / n with C the covariance of single gradients: together as much as the
    temperature 1 / beta + eta s2 / 2. It is exact where the batch's noise is isotropic, as on a quadratic; elsewhere it
    is the mean over directions. tr(C), with n - 1, is estimated from `samples` gradients. batch_size None: all samples,
    so that nothing is heated.
    Cost: `samples` gradients, 64 at a time.
    """
    n = len(problem.train)
    b = n if batch_size is None else min(batch_size, n)
    if b < 1 or samples < 2 or n < 2:
        raise ValueError(
            f"batch_size={batch_size}, samples={samples}, n={n}; give a batch >= 1 and two samples or more"
        )
    trace, p = _trace_of_covariance(problem, problem.train.subsample(samples, or_default(generator)))
    variance = trace / (p * b) * (n - b) / n
    temperature = (0.0 if math.isinf(beta) else 1 / beta) + lr * variance / 2
    return BatchHeat(variance, beta, 1 / temperature if temperature > 0 else math.inf)


def _trace_of_covariance(problem: Problem, few: Data) -> tuple[float, int]:
    """Trace of the covariance of single gradients, and the number of weights."""
    total, squares, p = None, 0.0, 0
    with evaluating(problem.model):
        for x, y in few.batches(64):
            gradients = per_sample_gradients(problem.model, problem.per_sample, x, y).double()
            total = gradients.sum(0) if total is None else total + gradients.sum(0)
            squares += float(gradients.square().sum())
            p = gradients.shape[1]
    assert total is not None
    m = len(few)
    return max(0.0, (squares - float(total.square().sum()) / m) / (m - 1)), p
