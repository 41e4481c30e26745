"""Stochastic gradient Langevin dynamics: gradient descent that does not stop in a minimum but samples around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .gaussian_noise import GaussianNoise
from .path import Accumulator, LangevinPath, Step

OPTIONS = ("lr", "beta", "weight_decay")
OTHER = 0x5851F42D4C957F2D
"""Makes one seed of another; any bits would do."""
SMALL = 1 << 13
"""Numbers that are joined in less time than a call takes (2 microseconds)."""
LONGEST = 1 << 18
"""Numbers of which a sum in single precision is known to 2e-4 of itself in the worst case, that all are equal: some 64
partial sums are kept, and of 2^23 equal numbers 4e-3 were lost."""


class SGLD(torch.optim.Optimizer):
    """Stochastic gradient Langevin dynamics, exactly the lecture's update:

        w <- w - eta (g + weight_decay w) + sqrt(2 eta / beta) z,    z ~ N(0, I).

    g is what `.grad` holds (the gradient of a mini-batch's mean loss), eta is `lr`, and beta multiplies the same mean
    loss: with exact gradients and small eta the iterates are in the end distributed as
    exp(-beta (F(w) + weight_decay ||w||^2 / 2)). No factor n is hidden in it: the posterior of n samples is beta = n.

    beta: inverse temperature, > 0; infinity gives plain gradient descent. temperature: 1 / beta, >= 0; give one of
    both. weight_decay: a drift that does not depend on the data. All can differ by parameter group, and change between
    steps (`torch.optim.lr_scheduler` works on `lr`).
    generator: draws z; its state is part of `state_dict`. None takes a new one whose seed follows from PyTorch's
    present initial seed, so that inside `Backprop` the noise follows the generator of the training, and is another one,
    so that the noise is not the numbers that the initial weights were made of. For float32 on the CPU it seeds a faster
    generator at the first step, whose state is stored, too; there z is drawn while the next gradient is computed if
    the network is large and a second core is free. The numbers are the same in either case.
    accumulate: keep the sums of `path`, from which `generalization.sgld_certificate` computes certificates, and notice
    where something else moves the weights.
    clip: what every sample's gradient was clipped to, as `clipped_gradients` does; it becomes a fact of `path`. A
    gradient that is longer is refused (a mean of vectors not longer than L is not longer than L).

    As in torch.optim, a parameter without a gradient is left where it is and gets no noise.
    Raises `ValueError` on a step size or weight decay below zero, on a beta or clip that is not positive, when beta and
    temperature are both given or both missing, on sparse gradients, and on a gradient longer than `clip`.
    Cost: one Gaussian vector a step, the dominant part for large networks; it is drawn for all parameters of a type at
    once, into memory that is kept: once or twice as much as the parameters. With `accumulate`, two inner products and
    two sums.
    Source: Welling and Teh 2011; the form is that of Raginsky, Rakhlin and Telgarsky 2017 (recalled, not checked
    against the paper) and of the lecture's slide "Stochastic Gradient/Discrete Langevin Dynamics".

    >>> w = torch.nn.Parameter(torch.tensor([2.0]))
    >>> w.grad = torch.tensor([3.0])
    >>> SGLD([w], 0.1, temperature=0.0, weight_decay=0.5).step()  # 2 - 0.1 (3 + 0.5 2)
    >>> w.data
    tensor([1.6000])
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float,
        *,
        beta: float | None = None,
        temperature: float | None = None,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
        accumulate: bool = False,
        clip: float | None = None,
    ) -> None:
        if clip is not None and not 0 < clip < math.inf:
            raise ValueError(f"clip is {clip}; give a finite number > 0, or None")
        self._sums: Accumulator | None = None  # a group is added while the base class is set up
        super().__init__(params, {"lr": lr, "beta": _inverse(beta, temperature), "weight_decay": weight_decay})
        if generator is None:
            device = self.param_groups[0]["params"][0].device
            generator = torch.Generator(device=device).manual_seed(torch.initial_seed() ^ OTHER)
        self._noise = GaussianNoise(generator)
        self.clip = clip
        self._sums = Accumulator(clip) if accumulate else None

    @property
    def generator(self) -> torch.Generator:
        """The generator of the noise."""
        return self._noise.generator

    @property
    def path(self) -> LangevinPath:
        """The sums along the path until now; raises `ValueError` unless the optimizer was built to accumulate.

        Costs a pass over the weights: whether they still are what the last step left.
        """
        if self._sums is None:
            raise ValueError("this SGLD keeps no sums along its path; build it with accumulate=True")
        return self._sums.snapshot([group["params"] for group in self.param_groups])

    def _weights(self) -> list[Tensor]:
        return [value for group in self.param_groups for value in group["params"]]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; it may have its own lr, weight_decay, and beta or temperature."""
        group = dict(param_group)
        if "temperature" in group:
            group["beta"] = _inverse(group.get("beta"), group.pop("temperature"))
        for name, value in (self.defaults | group).items():
            if name in ("lr", "weight_decay") and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; give a finite number >= 0")
            if name == "beta":
                _inverse(value, None)
        if self._sums is not None:
            self._sums.meet(self._weights())
        super().add_param_group(group)
        if self._sums is not None:
            self._sums.join(self._weights())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, prior: Sequence[Tensor | None] | None = None) -> Any:
        """Make one update.

        closure: computes the loss and the gradients first; its loss is returned.
        prior: the drift of a prior that follows a part of the data, one tensor for each parameter of all groups (None
        where there is no gradient): the gradient on that part at the present weights. The update does not use it;
        `path` compares the path with the prior's.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [[value for value in group["params"] if value.grad is not None] for group in self.param_groups]
        moving = [value for weights in groups for value in weights]
        if any(value.grad is not None and value.grad.is_sparse for value in moving):
            raise ValueError("a gradient is sparse; SGLD moves every weight, so build the layer with sparse=False")
        accounted = self._sums is not None or self.clip is not None
        # Before the noise is asked for: a second thread may still be drawing it.
        flat = [_flat([value.grad for value in weights]) for weights in groups] if accounted else []
        squared = [_inner(vectors, vectors) for vectors in flat]
        warm = [group["lr"] > 0 and group["beta"] < math.inf for group in self.param_groups]
        noise = self._noise.like([v for weights, hot in zip(groups, warm, strict=True) if hot for v in weights])
        if accounted:
            self._account(flat, squared, noise, warm, self._followed(prior))
        everything = self._weights() if self._sums is not None else []
        if self._sums is not None:
            # Every weight is read: PyTorch's count of a tensor's changes does not see those made through `.data`.
            self._sums.meet(everything)
        rest = iter(noise)
        for group, weights, hot in zip(self.param_groups, groups, warm, strict=True):
            if not weights:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, [value.grad for value in weights], alpha=-group["lr"])
            if hot:
                drawn = list(islice(rest, len(weights)))
                torch._foreach_add_(weights, drawn, alpha=math.sqrt(2 * group["lr"] / group["beta"]))
        self._noise.draw_ahead()
        if self._sums is not None:
            self._sums.leave(everything)
        return loss

    def _followed(self, prior: Sequence[Tensor | None] | None) -> list[list[Tensor]] | None:
        """Return the prior's drifts by group, those of parameters without a gradient left out."""
        if prior is None:
            return None
        expected = sum(len(group["params"]) for group in self.param_groups)
        if len(prior) != expected:
            raise ValueError(f"{len(prior)} drifts of the prior for {expected} parameters; give one each")
        drifts, rest = [], iter(prior)
        for group in self.param_groups:
            pairs = [(value, next(rest)) for value in group["params"]]
            drifts.append([torch.zeros_like(v) if drift is None else drift for v, drift in pairs if v.grad is not None])
        return drifts

    def _account(
        self,
        gradients: list[list[Tensor]],
        squared: list[float],
        noise: list[Tensor],
        warm: list[bool],
        followed: list[list[Tensor]] | None,
    ) -> None:
        """Add this step's sums, before the weights move; gradients: of each group, as `_flat` returns them."""
        rest, dots = iter(noise), []
        for index, vectors in enumerate(gradients):
            drawn = _flat(list(islice(rest, self._moving(index)))) if warm[index] else []
            inner = [squared[index], _inner(vectors, drawn)]
            if followed is not None and vectors:
                difference = list(torch._foreach_sub(vectors, _flat(followed[index])))
                inner += [_inner(difference, difference), _inner(difference, drawn)]
            elif followed is not None:
                inner += [0.0, 0.0]
            dots.append(tuple(inner))
        norm = math.sqrt(sum(inner[0] for inner in dots))
        # A mean of vectors of length L, summed in float32, is longer than L by rounding only.
        if self.clip is not None and not norm <= self.clip * (1 + 1e-4):
            raise ValueError(
                f"the gradient has norm {norm:.4g}, more than clip={self.clip:g}; let clipped_gradients compute it"
            )
        if self._sums is not None:
            self._sums.clipped(self.clip)
            options = [{name: float(group[name]) for name in OPTIONS} for group in self.param_groups]
            self._sums.advance([Step(*inner, **option) for inner, option in zip(dots, options, strict=True)])

    def _moving(self, group: int) -> int:
        """How many tensors of a group have a gradient."""
        return sum(value.grad is not None for value in self.param_groups[group]["params"])

    def state_dict(self) -> dict[str, Any]:
        """Return the options of all groups, the state of the noise, and the sums along the path."""
        generator, noise = self._noise.state()
        sums = None if self._sums is None else self._sums.state()
        return super().state_dict() | {"generator": generator, "noise": noise, "path": sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: the noise and the sums go on where they were."""
        super().load_state_dict(state_dict)
        self._noise.restore(state_dict["generator"], state_dict.get("noise"))
        sums = state_dict.get("path")
        if sums is not None:
            self._sums = Accumulator.of(sums)
            self.clip = self._sums.clip
        else:
            self._sums = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "generator": self.generator,
            "noise": self._noise.state(),
            "clip": self.clip,
            "_sums": copy.deepcopy(self._sums),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        generator, noise = state.pop("generator", None), state.pop("noise", None)
        super().__setstate__(state)
        if generator is not None:
            self._noise = GaussianNoise(generator)
            self._noise.restore(*noise)


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    """Return large tensors as vectors of `LONGEST` at most, and the small ones of a kind as one: each costs a call.

    Half precision becomes single: sums in it stop growing after a few hundred terms.
    """
    vectors = [(value.float() if value.element_size() < 4 else value).reshape(-1) for value in tensors]
    large = [piece for value in vectors if value.numel() >= SMALL for piece in torch.split(value, LONGEST)]
    small: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for value in vectors:
        if value.numel() < SMALL:
            small.setdefault((value.device, value.dtype), []).append(value)
    return large + [torch.cat(kind) for kind in small.values()]


def _inner(first: list[Tensor], second: list[Tensor]) -> float:
    """Return <first, second> over all vectors; 0 where `second` is empty (no noise was drawn)."""
    if not second:
        return 0.0
    return math.fsum(float(torch.dot(one, other)) for one, other in zip(first, second, strict=True))


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
