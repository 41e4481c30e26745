r"""What a path of SGLD leaves behind: the sums from which its generalization certificates are computed.

Q is the law of the path w_0, ..., w_N of the update with the data's gradients g_k, P the law of the same update with
other drifts p_k in their place: p_k = 0 is the data-free prior (the drift of weight decay stays), p_k the gradient on
a part of the data is the prior that follows this part. Both start in the same law with the same noise, so with
sigma_k^2 = 2 eta_k / beta_k and d_k = g_k - p_k the path that Q draws with the noise z_k is the path that P draws with
the noise z_k - (eta_k / sigma_k) d_k, and

    ln dQ/dP (path) = sum_k beta_k eta_k ||d_k||^2 / 4 - sqrt(beta_k eta_k / 2) <d_k, z_k>        in nats.

The first sum is the path's divergence: its expectation is KL(Q || P), for the second has expectation zero. Every group
of parameters contributes its own terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

WORD = 8
"""Bytes that are added at a time."""


def fingerprint(weights: Iterable[Tensor]) -> int:
    """Return the sum of the weights' bits, read as whole numbers of 64 bits, modulo 2^64, in any order of the tensors.

    Each tensor is read in its own order, two single-precision weights a word; what is left over at its end is read as
    numbers of 32 or 16 bits. Exact on every device and for any number of threads. Weights that were drawn independently
    have the same with a chance of 2^-64. Not every change is seen: words that changed places have the same sum.
    """
    total = 0
    for value in weights:
        flat = value.detach().reshape(-1)
        size = flat.element_size()
        if flat.storage_offset() * size % WORD:
            flat = flat.clone()
        if over := flat.numel() * size % WORD // size:
            total += int(flat[-over:].view(torch.int32 if size % 4 == 0 else torch.int16).sum())
            flat = flat[:-over]
        total += int(flat.view(torch.int64).sum())
    return total % 2**64


@dataclass(frozen=True)
class LogRatio:
    """ln dQ/dP of one path: `divergence` - `fluctuation`, in nats.

    divergence: sum_k beta_k eta_k ||d_k||^2 / 4. fluctuation: sum_k sqrt(beta_k eta_k / 2) <d_k, z_k>, of mean zero and
    variance 2 KL. decayed: the divergence with the weights exp(-lambda (T_N - T_k) / 2), T_k = eta_1 + ... + eta_k and
    lambda the weight decay.
    """

    divergence: float = 0.0
    fluctuation: float = 0.0
    decayed: float = 0.0

    @property
    def value(self) -> float:
        """ln dQ/dP; infinite where a step without noise followed the data."""
        return self.divergence if math.isinf(self.divergence) else self.divergence - self.fluctuation

    def __add__(self, other: LogRatio) -> LogRatio:
        return LogRatio(
            self.divergence + other.divergence,
            self.fluctuation + other.fluctuation,
            self.decayed + other.decayed,
        )

    def longer(self, *, heat: float, squared: float, inner: float, decay: float) -> LogRatio:
        """Return the sums after one more step: heat = beta eta, squared = ||d||^2, inner = <d, z>."""
        # Without noise (heat infinite) the prior cannot follow where the data pushed at all.
        term = heat * squared / 4 if squared != 0 else 0.0
        swing = math.sqrt(heat / 2) * inner if math.isfinite(heat) else 0.0
        return LogRatio(self.divergence + term, self.fluctuation + swing, decay * self.decayed + term)


@dataclass(frozen=True)
class LangevinPath:
    """The sums along a path of SGLD until now.

    groups: against the data-free prior, by parameter group. prior: against the prior that followed a part of the data,
    None where none did in some step. squared: sum_k eta_k ||g_k||^2. time: T_N = sum_k eta_k of the first group.
    rates: (eta, beta, steps) of the first group, run by run; one_rate: whether all groups had the same.
    clip: the bound that each sample's gradient was clipped to, if any.
    strayed: whether something else than the steps moved the weights, between two of them or after the last.
    visited: the `fingerprint` of the weights after every step until then. shapes: of all tensors of weights.
    rounding: sum_k beta_k / (4 eta_k) (eps ||w||)^2 in nats, eps being the relative spacing of the weights' type and w
    their present values: the divergence of a shift by one unit in the last place of every weight in every step. That
    much the drifts that were made can differ from those in the sums, since a weight rounds where it is moved to.
    """

    steps: int
    groups: tuple[LogRatio, ...]
    prior: LogRatio | None
    squared: float
    time: float
    rates: tuple[tuple[float, float, int], ...]
    one_rate: bool
    clip: float | None
    strayed: bool = False
    visited: tuple[int, ...] = field(default=(), repr=False)
    shapes: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    rounding: float = 0.0

    def place(self, weights: Iterable[Tensor]) -> int | None:
        """Return after which step the weights were these, in any order of the tensors; the last of several, or None."""
        mark = fingerprint(weights)
        return next((k for k in range(len(self.visited), 0, -1) if self.visited[k - 1] == mark), None)

    @property
    def data_free(self) -> LogRatio:
        """The log-ratio against the data-free prior, all groups together."""
        return sum(self.groups, LogRatio())


@dataclass(frozen=True)
class Step:
    """One group's share of a step: ||g||^2, <g, z>, and ||d||^2, <d, z> where a prior followed a part of the data."""

    squared: float
    inner: float
    apart: float | None = None
    apart_inner: float = 0.0
    lr: float = 0.0
    beta: float = math.inf
    weight_decay: float = 0.0

    @property
    def heat(self) -> float:
        """beta eta, infinite for a step without noise."""
        return self.lr * self.beta if self.lr > 0 else 0.0


@dataclass
class Accumulator:
    """The sums while they grow."""

    clip: float | None = None
    groups: list[LogRatio] = field(default_factory=list)
    prior: LogRatio | None = field(default_factory=LogRatio)
    squared: float = 0.0
    rates: list[tuple[float, float]] = field(default_factory=list)
    one_rate: bool = True
    visited: list[int] = field(default_factory=list)
    strayed: bool = False
    stiffness: list[float] = field(default_factory=list)  # sum_k beta_k / eta_k of each group, where it was pushed

    def meet(self, weights: Iterable[Tensor]) -> None:
        """Notice whether these weights, from which the next step starts, are those that the last one left."""
        self.strayed |= bool(self.visited) and fingerprint(weights) != self.visited[-1]

    def leave(self, weights: Iterable[Tensor]) -> None:
        """Remember the weights that a step left; they are on no path once something else has moved them."""
        if not self.strayed:
            self.visited.append(fingerprint(weights))

    def join(self, weights: Iterable[Tensor]) -> None:
        """Let the last point be these weights: those that it had and some that join the path from here."""
        if self.visited and not self.strayed:
            self.visited[-1] = fingerprint(weights)

    def clipped(self, clip: float | None) -> None:
        """Notice to what the gradients of the next step were clipped: the path's clip is the largest of all steps."""
        self.clip = None if self.clip is None or clip is None else max(self.clip, clip)

    def advance(self, groups: list[Step]) -> None:
        """Add one step of all groups."""
        self.groups += [LogRatio()] * (len(groups) - len(self.groups))  # a group may join later
        self.stiffness += [0.0] * (len(groups) - len(self.stiffness))
        for index, step in enumerate(groups):
            decay = math.exp(-step.weight_decay * step.lr / 2)
            self.groups[index] = self.groups[index].longer(
                heat=step.heat, squared=step.squared, inner=step.inner, decay=decay
            )
            self.squared += step.lr * step.squared
            if step.squared != 0 and step.lr > 0:
                self.stiffness[index] += step.beta / step.lr
            if step.apart is None:
                self.prior = None
            elif self.prior is not None:
                # The decayed form is kept against the data-free prior only, as the slide has it.
                self.prior = self.prior.longer(heat=step.heat, squared=step.apart, inner=step.apart_inner, decay=1.0)
        self.rates.append((groups[0].lr, groups[0].beta))
        self.one_rate &= all((step.lr, step.beta) == self.rates[-1] for step in groups)

    def snapshot(self, groups: list[list[Tensor]]) -> LangevinPath:
        """Return the sums as they are now, with the present weights compared to those that the last step left."""
        weights = [value for group in groups for value in group]
        moved = bool(self.visited) and fingerprint(weights) != self.visited[-1]
        runs = tuple((lr, beta, len(list(same))) for (lr, beta), same in groupby(self.rates))
        return LangevinPath(
            steps=len(self.rates),
            groups=tuple(self.groups),
            prior=self.prior if self.rates else None,
            squared=self.squared,
            time=math.fsum(lr for lr, _ in self.rates),
            rates=runs,
            one_rate=self.one_rate,
            clip=self.clip,
            strayed=self.strayed or moved,
            visited=tuple(self.visited),
            shapes=tuple(tuple(value.shape) for value in weights),
            rounding=sum(
                stiff * units / 4
                for stiff, group in zip(self.stiffness, groups, strict=False)  # a group may have made no step yet
                if (units := math.fsum(map(_last_places, group))) > 0
            ),
        )

    def state(self) -> dict[str, Any]:
        """Return the sums as plain numbers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Accumulator:
        """Return the accumulator of a checkpoint."""
        prior = state["prior"]
        return cls(
            **state
            | {
                "groups": [LogRatio(**sums) for sums in state["groups"]],
                "prior": None if prior is None else LogRatio(**prior),
                "rates": list(state["rates"]),
                "visited": list(state.get("visited", [])),
            }
        )


def _last_places(value: Tensor) -> float:
    """Return (eps ||w||)^2, at least the squared units in the last place of all entries together."""
    return (torch.finfo(value.dtype).eps * float(value.detach().double().norm())) ** 2
