"""The last block of an alternating method: the loss and its proximal map, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.loss import NAMED, one_hot
from whydeep.core.problem import Problem

from .kinks import hinge_proximal


@dataclass(frozen=True)
class OutputLoss:
    """A loss of the outputs V (n, k) against targets Y (n, k), classes as one-hot rows.

    total: (V, Y) -> the sum over samples, a scalar. gradient: (V, Y) -> its derivative by V, (n, k); at the kink of the
    hinge the derivative of its flat side, 0.
    proximal: (C, Y, beta) -> argmin_V total(V, Y) + beta/2 ||V - C||_F^2, (n, k).
    nearest: (V, Y, Z) -> the subgradient at V that is nearest to Z, (n, k); None where the gradient is the only one.
    """

    name: str
    total: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    proximal: Callable[[Tensor, Tensor, float], Tensor]
    nearest: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def subgradient(self, outputs: Tensor, targets: Tensor, near: Tensor) -> Tensor:
        """Return the subgradient at `outputs` nearest to `near`, all (n, k): what a KKT residual is taken to."""
        return self.gradient(outputs, targets) if self.nearest is None else self.nearest(outputs, targets, near)


def squared_proximal(centre: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return argmin_V 1/2 ||V - Y||_F^2 + beta/2 ||V - C||_F^2 = (Y + beta C)/(1 + beta).

    >>> squared_proximal(torch.tensor([[1.0]]), torch.tensor([[0.0]]), 3.0)
    tensor([[0.7500]])
    """
    return (target + beta * centre) / (1 + beta)


def cross_entropy_proximal(
    centre: Tensor, target: Tensor, beta: float, *, tolerance: float = 1e-10, iterations: int = 100
) -> Tensor:
    """Return argmin_v log sum_k exp(v_k) - <y, v> + beta/2 ||v - c||^2 for each row c, y of centre and target (n, k).

    Rows of `target` are non-negative and sum to 1. Newton's method on the gradient g = p - y + beta (v - c),
    p = softmax(v), whose Jacobian diag(p) + beta I - p p' is inverted by Sherman and Morrison in O(k); each sample's
    step is halved until ||g|| falls. As the Jacobian is at least beta I, g vanishes at the minimiser only and Newton's
    direction always lowers ||g||, so every sample converges from any start.

    tolerance: on max |g|, relative to 1 + beta |c| (the size of the terms of g).
    Raises `ArithmeticError` when a centre is not finite or a sample has not converged.
    Cost: O(n k) an iteration, usually fewer than ten of them.

    >>> v = cross_entropy_proximal(torch.zeros(1, 2).double(), torch.tensor([[1.0, 0.0]]).double(), 1.0)
    >>> torch.allclose(v + torch.softmax(v, 1), torch.tensor([[1.0, 0.0]]).double())  # v = y - p
    True
    """
    if not bool(torch.isfinite(centre).all()):
        raise ArithmeticError("the centre of the output step is not finite")
    limit = tolerance * (1 + beta * centre.abs().amax(1))
    v, (p, g) = centre, _gradient(centre, centre, target, beta)
    for _ in range(iterations):
        active = g.abs().amax(1) > limit
        if not bool(active.any()):
            return v
        direction = -_solve(p, g, beta)
        size = g.norm(dim=1)
        # A sample that is done takes a step of zero, so that its value does not depend on the others.
        step = active.to(v.dtype)
        for _ in range(60):  # 2^-60 is below the rounding of any step that can still matter
            trial = v + step[:, None] * direction
            new_p, new_g = _gradient(trial, centre, target, beta)
            longer = active & ~(new_g.norm(dim=1) <= (1 - 1e-4 * step) * size)
            if not bool(longer.any()):
                break
            step = torch.where(longer, step / 2, step)
        v, p, g = trial, new_p, new_g
    raise ArithmeticError(f"the output step did not converge in {iterations} Newton iterations")


def _gradient(v: Tensor, centre: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    p = torch.softmax(v, 1)
    return p, p - target + beta * (v - centre)


def _solve(p: Tensor, g: Tensor, beta: float) -> Tensor:
    """Return (D - p p')^-1 g for D = diag(p) + beta I: D^-1 g + D^-1 p (p' D^-1 g) / (1 - p' D^-1 p)."""
    scaled_g, scaled_p = g / (p + beta), p / (p + beta)
    # 1 - sum p^2/(p + beta) = beta sum p/(p + beta), as sum p = 1: without cancellation for a small beta.
    schur = beta * scaled_p.sum(1, keepdim=True)
    return scaled_g + scaled_p * ((p * scaled_g).sum(1, keepdim=True) / schur)


SQUARED = OutputLoss(
    name="squared",
    total=lambda v, y: 0.5 * (v - y).square().sum(),
    gradient=lambda v, y: v - y,
    proximal=squared_proximal,
)
CROSS_ENTROPY = OutputLoss(
    name="cross_entropy",
    total=lambda v, y: (torch.logsumexp(v, 1) - (y * v).sum(1)).sum(),
    gradient=lambda v, y: torch.softmax(v, 1) - y,
    proximal=cross_entropy_proximal,
)


def _nearest_of_hinge(v: Tensor, y: Tensor, near: Tensor) -> Tensor:
    sign = 2 * y - 1
    # At the kink sign v = 1, which the proximal map reaches exactly, -sign t for every t in [0, 1] is a subgradient.
    share = torch.where(sign * v == 1, (-sign * near).clamp(0, 1), (sign * v < 1).to(v.dtype))
    return -sign * share


HINGE = OutputLoss(
    name="hinge",
    total=lambda v, y: torch.relu(1 - (2 * y - 1) * v).sum(),
    gradient=lambda v, y: torch.where((2 * y - 1) * v < 1, 1 - 2 * y, 0.0),
    proximal=hinge_proximal,
    nearest=_nearest_of_hinge,
)
LOSSES = {"cross_entropy": CROSS_ENTROPY, "hinge": HINGE, "squared": SQUARED}


def output_loss(problem: Problem, *, solver: str = "ADMM") -> OutputLoss:
    """Return the loss of `problem` with its proximal map; raises `InputError` when there is none here.

    solver: who asks, for the message.
    """
    loss = problem.per_sample
    found = LOSSES.get(loss.name)
    # A function of the user's that happens to bear one of the names is another loss.
    if found is None or loss.per_sample is not NAMED[loss.name]:
        raise InputError(
            f"{solver} has no proximal map of the loss {loss.name}",
            f"give one of {', '.join(map(repr, sorted(LOSSES)))}",
        )
    if found is not SQUARED and problem.train.classes is None:
        raise InputError(
            f"the loss {loss.name} of {solver} needs class labels", "give data with classes, or the squared loss"
        )
    return found


def target_rows(targets: Tensor, outputs: int) -> Tensor:
    """Return the targets as float64 rows (n, outputs): labels one-hot, regression targets as they are."""
    like = torch.empty(0, outputs, dtype=torch.float64, device=targets.device)
    return one_hot(targets, like).double()
