"""Entropy-SGD: descent on the local entropy, whose gradient a short Langevin chain around the weights estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .counts import check_counts


class EntropySGD(torch.optim.Optimizer):
    """Entropy-SGD; one step is an inner chain y of `inner` steps, started at the weights x, and then a pull:

        y  <- y - inner_lr (grad f(y) - gamma (x - y)) + sqrt(inner_lr) noise z,   z ~ N(0, I)
        mu <- average mu + (1 - average) y
        x  <- x - lr gamma (x - mu),   gamma = gamma_0 (1 + scoping)^(number of steps done).

    gamma (x - <y>) is the gradient of the local entropy, and mu estimates <y>. lr gamma = 1 sets x to mu.
    f is what the closure computes, called at every inner step: let it draw another mini-batch each time, as the paper
    does; inside `Backprop` all `inner` gradients of a step are taken on the same mini-batch.
    noise: the factor eps of the paper; sqrt(inner_lr) eps z is its noise. The code that the authors published adds
    sqrt(2 inner_lr) eps z: for its chain give noise times sqrt(2). Their code also has the step of x without gamma,
    x - lr (x - mu), and Nesterov's momentum in both loops, which this has not: it follows the paper's algorithm 1.
    Defaults: inner, average, inner_lr and noise of the published code as far as read (20, 0.75, 0.1, 1e-4).
    All can differ by parameter group.
    generator: draws z, its state is part of `state_dict`; None takes a new one with PyTorch's present initial seed, so
    that inside `Backprop` the noise follows the generator of the training.

    Raises `ValueError` when lr, gamma, inner_lr or noise is below zero, inner is no whole number >= 1, average is
    outside [0, 1), or a step is taken without a closure. A parameter without a gradient stays where it is.
    Source: Chaudhari et al. 2017, Entropy-SGD, algorithm 1 (constants recalled, not checked against the paper). A port
    by others found it behind SGD with momentum: no accuracy is promised here.
    Cost: `inner` gradients and as many Gaussian vectors a step; memory of two more copies of the weights.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> step = EntropySGD([w], lr=0.5, gamma=1.0, inner=1, inner_lr=0.5, average=0.0, noise=0.0)
    >>> def closure():
    ...     w.grad = 2 * w.detach()  # f = w^2
    ...     return w.detach() ** 2
    >>> step.step(closure)
    tensor([1.])
    >>> w.data  # y = 1 - 0.5 * 2 = 0, mu = 0, x = 1 - 0.5 * 1 * (1 - 0)
    tensor([0.5000])
    """

    generator: torch.Generator

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float,
        *,
        gamma: float = 1.0,
        scoping: float = 0.0,
        inner: int = 20,
        inner_lr: float = 0.1,
        average: float = 0.75,
        noise: float = 1e-4,
        generator: torch.Generator | None = None,
    ) -> None:
        check_counts(inner=inner)
        self._inner = inner
        defaults = {"lr": lr, "gamma": gamma, "scoping": scoping, "inner_lr": inner_lr, "average": average}
        super().__init__(params, defaults | {"noise": noise, "done": 0})
        if generator is None:
            device = self.param_groups[0]["params"][0].device
            generator = torch.Generator(device=device).manual_seed(torch.initial_seed())
        self.generator = generator

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may have its own lr, gamma, scoping, inner_lr, average and noise."""
        values = self.defaults | param_group
        for name in ("lr", "gamma", "inner_lr", "noise"):
            if not values[name] >= 0:
                raise ValueError(f"{name} is {values[name]}; give a number >= 0")
        if not 0 <= values["average"] < 1:
            raise ValueError(f"average is {values['average']}; give a number in [0, 1)")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; `closure` computes the loss and its gradients, `inner` times; the first loss is returned."""
        if closure is None:
            raise ValueError("Entropy-SGD needs the loss at several points a step; give a closure that computes it")
        centre: dict[Tensor, Tensor] = {}
        mean: dict[Tensor, Tensor] = {}
        first: Any = None
        for number in range(self._inner):
            with torch.enable_grad():
                loss = closure()
            first = loss if number == 0 else first
            for group in self.param_groups:
                gamma = self._gamma(group)
                scale = math.sqrt(group["inner_lr"]) * group["noise"]
                for y in group["params"]:
                    if y.grad is None:
                        continue
                    if y not in centre:
                        centre[y] = y.detach().clone()
                        mean[y] = y.detach().clone()
                    y.add_(y.grad + gamma * (y - centre[y]), alpha=-group["inner_lr"])
                    if scale > 0:
                        # A generator draws only on its own device; for weights elsewhere the draw is copied.
                        device = self.generator.device
                        z = torch.randn(y.shape, dtype=y.dtype, device=device, generator=self.generator)
                        y.add_(z.to(y.device), alpha=scale)
                    mean[y].lerp_(y, 1 - group["average"])
        for group in self.param_groups:
            pull = group["lr"] * self._gamma(group)
            for x in group["params"]:
                if x in centre:
                    x.copy_(torch.lerp(centre[x], mean[x], pull))
            group["done"] += 1
        return first

    @staticmethod
    def _gamma(group: dict[str, Any]) -> float:
        return float(group["gamma"] * (1 + group["scoping"]) ** group["done"])

    def state_dict(self) -> dict[str, Any]:
        """Return the options of all groups, how many steps were done, and the state of the generator."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: scope and noise go on where they were."""
        super().load_state_dict(state_dict)
        # Checkpoints are often read onto an accelerator; a generator's state lives on the CPU.
        self.generator.set_state(state_dict["generator"].cpu())
