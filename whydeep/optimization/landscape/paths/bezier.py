"""A bent path between two solutions: a Bezier curve whose control points are trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.problem import Problem
from whydeep.core.randomness import global_seed, or_default

from .leg import Leg, Path
from .profile import State, between


def bernstein(t: float, degree: int) -> list[float]:
    """Return the weights binom(degree, k) t^k (1 - t)^(degree - k), k = 0..degree; their sum is 1.

    >>> bernstein(0.5, 2)
    [0.25, 0.5, 0.25]
    """
    return [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]


def bent(
    problem: Problem,
    a: nn.Module,
    b: nn.Module,
    *,
    bends: int = 1,
    steps: int = 300,
    lr: float = 0.02,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
    data: Data | None = None,
    points: int = 25,
    **rest: Any,
) -> Path:
    """Return the Bezier curve from a to b whose control points minimise the mean risk along it.

    phi(t) = sum_k binom(m, k) t^k (1 - t)^(m-k) w_k with w_0 = a, w_m = b, m = bends + 1; w_1..w_{m-1} start on the
    straight line and follow the gradient of E_{t ~ U[0,1]} R(phi(t)) by Adam, one t and one mini-batch a step, the step
    size falling as a half cosine to zero (Garipov et al. 2018, section 3.4, equation 2: their loss with t uniform in t,
    not in arc length). Any network: the curve is evaluated by `torch.func.functional_call`, no layer is rewritten.
    Batch norm normalises by the mini-batch while the bend is trained and gets its statistics anew along the finished
    curve; dropout is off. Frozen weights and buffers move on the straight line.

    Raises `ValueError` on bends < 1 or steps < 1, `InputError` when the training is not finite.
    Cost: one gradient of a mini-batch a step, memory of 2 + 3 bends networks.
    """
    if bends < 1 or steps < 1:
        raise ValueError(f"bends={bends}, steps={steps}; give at least 1 of each")
    generator = or_default(generator)
    model = problem.copy().eval()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    first, last = a.state_dict(), b.state_dict()
    degree = bends + 1
    control: list[dict[str, Tensor]] = [
        {name: between(first, last, k / degree)[name].clone().requires_grad_() for name in names}
        for k in range(1, degree)
    ]
    _train(problem, model, (first, *control, last), names, steps, lr, batch_size, generator)
    inner = [{name: value.detach() for name, value in each.items()} for each in control]

    def at(t: float) -> State:
        parts = bernstein(t, degree)
        state = between(first, last, t)
        for name in names:
            points_ = [first[name], *(each[name] for each in inner), last[name]]
            state[name] = sum((part * value for part, value in zip(parts, points_, strict=True)), 0 * first[name])
        return state

    remark = f"{bends} control point{'s' if bends > 1 else ''}, {steps} steps"
    return Path.of("bezier", problem, [Leg(at, bent=True)], data=data, points=points, remark=remark, **rest)


def _train(
    problem: Problem,
    model: nn.Module,
    control: tuple[State, ...],
    names: list[str],
    steps: int,
    lr: float,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    """Move the inner control points; the outer two are the ends."""
    free = [each[name] for each in control[1:-1] for name in names]
    optimizer = torch.optim.Adam(free, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = min(batch_size, len(problem.train))
    done = 0
    with global_seed(generator), torch.enable_grad():
        while done < steps:
            for x, y in problem.train.batches(size, generator):
                if done == steps:
                    break
                if len(x) < min(2, size):  # batch norm has no variance of one
                    continue
                t = float(torch.rand((), generator=generator))
                parts = bernstein(t, len(control) - 1)
                weights = {
                    name: torch.stack([part * each[name] for part, each in zip(parts, control, strict=True)]).sum(0)
                    for name in names
                }
                output = torch.func.functional_call(model, weights, (x,))
                loss = problem.per_sample(output, y).mean()
                if not bool(torch.isfinite(loss)):
                    raise InputError(
                        f"the risk on the curve is {float(loss.detach())} at step {done + 1}", "give a smaller lr"
                    )
                gradients = torch.autograd.grad(loss, free, materialize_grads=True)
                for value, gradient in zip(free, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
                schedule.step()
                done += 1
