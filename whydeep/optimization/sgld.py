"""Stochastic gradient Langevin dynamics: gradient descent that does not stop in a minimum but samples around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SGLD(torch.optim.Optimizer):
    """Stochastic gradient Langevin dynamics, exactly the lecture's update:

        w <- w - eta (g + weight_decay w) + sqrt(2 eta / beta) z,    z ~ N(0, I).

    g is what `.grad` holds (the gradient of a mini-batch's mean loss), eta is `lr`, and beta multiplies the same mean
    loss: with exact gradients and small eta the iterates are in the end distributed as
    exp(-beta (F(w) + weight_decay ||w||^2 / 2)). No factor n is hidden in it: the posterior of n samples is beta = n.

    beta: inverse temperature, > 0; infinity gives plain gradient descent. temperature: 1 / beta, >= 0; give one of
    both. weight_decay: a drift that does not depend on the data. All can differ by parameter group, and change between
    steps (`torch.optim.lr_scheduler` works on `lr`).
    generator: draws z; its state is part of `state_dict`. None takes a new one with PyTorch's present initial seed, so
    that inside `Backprop` the noise follows the generator of the training.

    As in torch.optim, a parameter without a gradient is left where it is and gets no noise.
    Raises `ValueError` on a step size or weight decay below zero, on a beta that is not positive, when beta and
    temperature are both given or both missing, and on sparse gradients.
    Cost: one Gaussian vector a step, the dominant part for large networks; it is drawn for all parameters of a group
    at once, into memory that is kept: as much as the parameters.
    Source: Welling and Teh 2011; the form is that of Raginsky, Rakhlin and Telgarsky 2017 (recalled, not checked
    against the paper) and of the lecture's slide "Stochastic Gradient/Discrete Langevin Dynamics".

    >>> w = torch.nn.Parameter(torch.tensor([2.0]))
    >>> w.grad = torch.tensor([3.0])
    >>> SGLD([w], 0.1, temperature=0.0, weight_decay=0.5).step()  # 2 - 0.1 (3 + 0.5 2)
    >>> w.data
    tensor([1.6000])
    """

    generator: torch.Generator

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float,
        *,
        beta: float | None = None,
        temperature: float | None = None,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self._noise: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
        super().__init__(params, {"lr": lr, "beta": _inverse(beta, temperature), "weight_decay": weight_decay})
        if generator is None:
            device = self.param_groups[0]["params"][0].device
            generator = torch.Generator(device=device).manual_seed(torch.initial_seed())
        self.generator = generator

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may have its own lr, weight_decay, and beta or temperature."""
        group = dict(param_group)
        if "temperature" in group:
            group["beta"] = _inverse(group.get("beta"), group.pop("temperature"))
        for name, value in (self.defaults | group).items():
            if name in ("lr", "weight_decay") and not value >= 0:
                raise ValueError(f"{name} is {value}; give a number >= 0")
            if name == "beta":
                _inverse(value, None)
        super().add_param_group(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; `closure`, if given, computes the loss and the gradients first, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            weights = [value for value in group["params"] if value.grad is not None]
            if any(value.grad.is_sparse for value in weights):
                raise ValueError("a gradient is sparse; SGLD moves every weight, so build the layer with sparse=False")
            scale = math.sqrt(2 * group["lr"] / group["beta"])
            noise = self._draw(index, weights) if scale > 0 else [None] * len(weights)
            for value, z in zip(weights, noise, strict=True):
                if group["weight_decay"]:
                    value.mul_(1 - group["lr"] * group["weight_decay"])
                value.add_(value.grad, alpha=-group["lr"])
                if z is not None:
                    value.add_(z, alpha=scale)
        return loss

    def _draw(self, index: int, weights: list[Tensor]) -> list[Tensor | None]:
        """Return standard normal tensors shaped like `weights`: views of one buffer a device and type."""
        pieces: dict[int, Tensor] = {}
        kinds = dict.fromkeys((value.device, value.dtype) for value in weights)
        for device, dtype in kinds:
            members = [n for n, value in enumerate(weights) if (value.device, value.dtype) == (device, dtype)]
            sizes = [weights[n].numel() for n in members]
            buffer = self._noise.get((index, device, dtype))
            if buffer is None or len(buffer) != sum(sizes):
                # A generator draws only on its own device; for weights elsewhere the draw is copied.
                buffer = torch.empty(sum(sizes), dtype=dtype, device=self.generator.device)
                self._noise[index, device, dtype] = buffer
            drawn = buffer.normal_(generator=self.generator).to(device)
            for n, piece in zip(members, torch.split(drawn, sizes), strict=True):
                pieces[n] = piece.view(weights[n].shape)
        return [pieces[n] for n in range(len(weights))]

    def state_dict(self) -> dict[str, Any]:
        """Return the options of all groups and the state of the generator."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the noise goes on where it was."""
        super().load_state_dict(state_dict)
        # Checkpoints are often read onto an accelerator; a generator's state lives on the CPU.
        self.generator.set_state(state_dict["generator"].cpu())

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"generator": self.generator}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._noise = {}


def _inverse(beta: float | None, temperature: float | None) -> float:
    """Return beta from exactly one of beta and temperature."""
    if (beta is None) == (temperature is None):
        raise ValueError(f"beta={beta} and temperature={temperature}; give exactly one of them")
    if temperature is not None:
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}; give a number >= 0")
        return 1 / temperature if temperature > 0 else math.inf
    assert beta is not None
    if not beta > 0:
        raise ValueError(f"beta is {beta}; give a number > 0, or infinity for no noise")
    return beta
