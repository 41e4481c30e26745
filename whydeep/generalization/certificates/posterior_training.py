"""Trains a Gaussian posterior by minimising a PAC-Bayes bound. What comes out is certified later, by counting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.randomness import or_default

from .gaussian_posterior import Gaussian
from .inversion import kl_inverse
from .local_draws import local_draws

Objective = Callable[[Tensor, Tensor], Tensor]


class _InverseKl(torch.autograd.Function):
    """p = kl_inverse(q, c), with the derivatives of the implicit function kl(q || p) = c."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, q: Tensor, c: Tensor) -> Tensor:
        p = kl_inverse(float(q.detach()), float(c.detach()))
        context.at = float(q.detach()), p  # type: ignore[attr-defined]
        return q.new_tensor(p)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, p = context.at  # type: ignore[attr-defined]
        q, p = min(max(q, 1e-9), 1 - 1e-9), min(p, 1 - 1e-9)
        p = max(p, q + 1e-9)
        # d kl / dp = (p - q) / (p (1 - p)); d kl / dq = ln(q (1 - p) / (p (1 - q))).
        rate = p * (1 - p) / (p - q)
        return grad * -rate * math.log(q * (1 - p) / (p * (1 - q))), grad * rate


def kl_objective(risk: Tensor, cost: Tensor) -> Tensor:
    """max {p : kl(risk || p) <= cost}: the Seeger-Maurer bound itself; beyond a surrogate risk of 1, McAllester's."""
    if float(risk.detach()) >= 1 - 1e-6:
        return risk + torch.sqrt(cost / 2)
    bound: Tensor = _InverseKl.apply(risk, cost)  # type: ignore[no-untyped-call]
    return bound


def quadratic_objective(risk: Tensor, cost: Tensor) -> Tensor:
    """(sqrt(risk + c) + sqrt(c))^2 with c = cost / 2, never below the kl bound (Perez-Ortiz et al. 2021)."""
    half = cost / 2
    return (torch.sqrt(risk + half) + torch.sqrt(half)).square()


def lambda_objective(risk: Tensor, cost: Tensor) -> Tensor:
    """risk / (1 - l/2) + cost / (l (1 - l/2)) at its best l = 2 / (sqrt(2 risk / cost + 1) + 1), held fixed.

    Thiemann et al. 2017; cost is (KL + ln(xi(n)/delta)) / n.
    """
    with torch.no_grad():
        best = 2 / (torch.sqrt(2 * risk / cost + 1) + 1)
    return risk / (1 - best / 2) + cost / (best * (1 - best / 2))


MEMORY = 0.01
"""Weight of the present minibatch in the average of the risk."""
OBJECTIVES: dict[str, Objective] = {"kl": kl_objective, "lambda": lambda_objective, "quad": quadratic_objective}


@dataclass(frozen=True)
class PosteriorTraining:
    """How a posterior is trained: on the means u and log scales r, in units of the prior's scale.

    steps minibatches of batch_size; step_size falls by a cosine. each_weight: by Adam, step_size being that of each
    weight, for a posterior that must move far. Otherwise the whole of u, and of r, takes steps of Euclidean length
    step_size at most, divided by the root mean square of the gradient's length: then the KL, which is |u|^2 / 2, is
    at most (steps step_size)^2 / 2 nats whatever the number of weights, and moves in the gradient's direction only.
    objective: "kl", "quad" or "lambda". warm_up: over this fraction of the steps the KL counts from 0 to 1, or the
    posterior falls back onto the prior before it has learnt anything.
    The surrogate of an error is cross-entropy / ln 2 (at least 1 where the right class has not half the probability);
    after the fraction `errors_after` of the steps it is the chance of an error itself (`LocalDraws.errors`), where the
    network's last layer is linear.
    """

    steps: int = 500
    batch_size: int = 256
    step_size: float = 0.02
    each_weight: bool = False
    objective: str = "kl"
    warm_up: float = 0.25
    errors_after: float = 1.0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.objective!r}; give one of {', '.join(OBJECTIVES)}")
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps={self.steps}, batch_size={self.batch_size}; give at least 1 of each")


class _WholeVector(torch.optim.Optimizer):
    """Adam with one second moment for a whole tensor: that of the gradient's Euclidean length."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the averaged gradient."""
        for group in self.param_groups:
            for value in group["params"]:
                state = self.state[value]
                if not state:
                    state.update(count=0, first=torch.zeros_like(value), second=0.0)
                state["count"] += 1
                state["first"].lerp_(value.grad, 0.1)
                state["second"] += 0.01 * (float(value.grad.square().sum()) - state["second"])
                first = 1 - 0.9 ** state["count"]
                length = math.sqrt(state["second"] / (1 - 0.99 ** state["count"]))
                if length > 0:
                    value.sub_(state["first"], alpha=group["lr"] / (first * length))


def train_posterior(
    prior: Gaussian,
    data: Data,
    *,
    nats: float,
    start: Gaussian | None = None,
    training: PosteriorTraining | None = None,
    generator: torch.Generator | None = None,
) -> Gaussian:
    """Return a posterior that makes the objective small on `data`; starts at `start`, or at the prior.

    With u = (mean - prior mean) / prior scale and r = ln(scale / prior scale), KL = 1/2 sum(exp(2r) - 1 - 2r + u^2).
    A step goes down the gradient of objective(q, c), c = (KL + nats) / n, whose two partial derivatives weigh the
    gradient of a minibatch's risk and that of the KL; they are taken at q = the risk averaged over the last hundred
    minibatches, since at one minibatch's they would be those of a convex function of noise. Where it can, every sample
    of a batch has a draw of its own (`local_draws`).
    nats: ln(xi(n)/delta) and what else the bound pays beside the KL, over the n = len(data) samples.
    Cost: steps gradients of batch_size samples, twice that in the layers whose outputs are drawn, and a normal number a
    step for each of the other weights.
    """
    training = training or PosteriorTraining()
    generator, first = or_default(generator), start or prior
    objective, size = OBJECTIVES[training.objective], min(training.batch_size, len(data))
    shift = (first.mean - prior.mean) / prior.scale
    stretch = (first.scale / prior.scale).log()
    optimizer: torch.optim.Optimizer
    if training.each_weight:
        optimizer = torch.optim.Adam([shift, stretch], lr=training.step_size, fused=True)
    else:
        optimizer = _WholeVector([shift, stretch], lr=training.step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    targets, draws = data.targets, local_draws(prior, data.x[torch.arange(min(4, len(data)))])
    average = 0.0
    for step in range(training.steps):
        chosen = torch.randint(len(data), (size,), generator=generator)
        stretched = stretch.exp()
        mean = torch.addcmul(prior.mean, prior.scale, shift).requires_grad_()
        scale = (prior.scale * stretched).requires_grad_()
        x, y = data.x[chosen], targets[chosen]
        if draws.last is not None and step >= training.errors_after * training.steps:
            risk = draws.errors(mean, scale, x, y, generator).mean()
        else:
            risk = F.cross_entropy(draws.scores(mean, scale, x, generator), y) / math.log(2)
        slopes = torch.autograd.grad(risk, [mean, scale])
        average += max(MEMORY, 1 / (step + 1)) * (float(risk.detach()) - average)
        if not math.isfinite(average):
            return first  # it diverged: what it started from is certified instead
        share = min(1.0, (step + 1) / (training.warm_up * training.steps)) if training.warm_up else 1.0
        excess = stretched.square_().sub_(1)  # exp(2r) - 1, the derivative of the KL in r
        nearness = 0.5 * float(torch.addcmul(excess - 2 * stretch, shift, shift).sum())
        by_risk, by_cost = _slopes(objective, average, (share * nearness + nats) / len(data))
        weight = by_cost * share / len(data)
        shift.grad = (slopes[0] * prior.scale).mul_(by_risk).add_(shift, alpha=weight)
        stretch.grad = (slopes[1] * scale.detach()).mul_(by_risk).add_(excess, alpha=weight)
        optimizer.step()
        schedule.step()
    mean, scale = prior.mean + prior.scale * shift, prior.scale * stretch.exp()
    if not bool(torch.isfinite(mean).all() and torch.isfinite(scale).all() and (scale > 0).all()):
        return first
    return replace(prior, mean=mean, scale=scale)


def _slopes(objective: Objective, risk: float, cost: float) -> tuple[float, float]:
    """Return the derivatives of the objective in the risk and in the cost."""
    q, c = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (risk, cost))
    by_risk, by_cost = torch.autograd.grad(objective(q, c), [q, c])
    return float(by_risk), float(by_cost)
