"""Gaussian distributions over the weights of any network: the prior and the posterior of PAC-Bayes bounds."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whydeep.core import parameters
from whydeep.core.errors import InputError


@dataclass(frozen=True)
class Gaussian:
    """Networks whose trainable weights are independent normals: w_i ~ N(mean_i, scale_i^2).

    mean, scale: (p,), scale > 0. model: their architecture, a copy in evaluation mode that no caller shares; its
    buffers (the statistics of batch normalisation, say) and frozen weights are the same in every draw.
    """

    mean: Tensor
    scale: Tensor
    model: nn.Module = field(repr=False)

    def __post_init__(self) -> None:
        if self.mean.shape != self.scale.shape or not bool((self.scale > 0).all()):
            raise ValueError("a Gaussian needs one scale > 0 for each mean; give both as vectors of one length")
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.scale).all()):
            raise ValueError("a mean or scale of a Gaussian is NaN or infinite; give finite ones")

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the weights of one network, (p,). Cost: p normal numbers."""
        return torch.addcmul(self.mean, self.scale, normals(self.mean, generator))

    def scores(self, weights: Tensor, x: Tensor) -> Tensor:
        """Return the outputs (n, ...) of the network with `weights` (p,) on x (n, ...); differentiable in both."""
        named = parameters.unflatten(weights, parameters.named(self.model))
        output: Tensor = functional_call(self.model, named, (x,))
        return output

    def network(self, weights: Tensor) -> nn.Module:
        """Return the network with `weights` (p,), a copy in evaluation mode."""
        made = copy.deepcopy(self.model)
        parameters.load(made, weights)
        return made


def normals(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers of the shape, type and device of `like`, drawn where the generator is."""
    drawn = torch.empty(like.shape, dtype=like.dtype, device=generator.device)
    return drawn.normal_(generator=generator).to(like.device)


def around(model: nn.Module, scale: float | Tensor) -> Gaussian:
    """Return the Gaussian centred at the weights of `model`, which is copied.

    scale: one for all weights, or (p,). Raises `InputError` when there is no trainable weight, one is not finite, or
    one is in half precision: draws would be rounded to so few values that they have no density.
    """
    named = parameters.named(model)
    if not named:
        raise InputError("the network has no trainable parameters", "give one that has")
    mean = parameters.flatten(named).clone()
    if not bool(torch.isfinite(mean).all()):
        raise InputError("a weight of the network is NaN or inf", "give weights of a finished training")
    if mean.element_size() < 4:
        raise InputError(f"the weights are in half precision ({mean.dtype})", "give model.float()")
    own = copy.deepcopy(model).eval()
    return Gaussian(mean, torch.as_tensor(scale, dtype=mean.dtype).expand_as(mean).clone(), own)


def divergence(posterior: Gaussian, prior: Gaussian) -> float:
    """Return KL(posterior || prior) in nats, >= 0, summed in double precision.

    1/2 sum_i (s_i^2/t_i^2 - 1 - ln(s_i^2/t_i^2) + (m_i - l_i)^2/t_i^2) with posterior N(m, s^2), prior N(l, t^2).
    Both must be of the same network, buffers included: a quantity that was fitted to the samples counted, and is no
    weight, would not be paid for.

    >>> linear = nn.Linear(1, 1, bias=False)
    >>> prior = around(linear, 1.0)
    >>> round(divergence(Gaussian(prior.mean + 2.0, prior.scale, linear), prior), 5)  # 2^2 / 2
    2.0
    """
    _check_pair(posterior, prior)
    ratio = posterior.scale.double() / prior.scale.double()
    moved = (posterior.mean.double() - prior.mean.double()) / prior.scale.double()
    # In this order NaN would stay NaN, and no bound is computed from it.
    return max(0.5 * float((ratio.square() - 1 - 2 * ratio.log() + moved.square()).sum()), 0.0)


def log_ratio(posterior: Gaussian, prior: Gaussian, weights: Tensor) -> float:
    """Return ln (dQ/dP)(weights) in nats, for Q the posterior and P the prior; its mean over draws of Q is the KL.

    sum_i ( ln(t_i/s_i) - ((w_i - m_i)/s_i)^2 / 2 + ((w_i - l_i)/t_i)^2 / 2 ), summed in double precision.
    """
    _check_pair(posterior, prior)
    w = weights.double()
    own = (w - posterior.mean.double()) / posterior.scale.double()
    other = (w - prior.mean.double()) / prior.scale.double()
    ratio = prior.scale.double() / posterior.scale.double()
    return float((ratio.log() + (other.square() - own.square()) / 2).sum())


def _check_pair(posterior: Gaussian, prior: Gaussian) -> None:
    if posterior.mean.shape != prior.mean.shape:
        raise ValueError(
            f"posterior over {len(posterior.mean)} weights, prior over {len(prior.mean)}; give two of one network"
        )
    own, other = _fixed(posterior.model), _fixed(prior.model)
    if own.keys() != other.keys() or any(not torch.equal(own[name], other[name]) for name in own):
        raise ValueError("posterior and prior differ in what is no weight; let both keep the prior's buffers")


def _fixed(model: nn.Module) -> dict[str, Tensor]:
    """What every draw shares: buffers, those that are not saved included, and frozen weights."""
    frozen = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
    return frozen | dict(model.named_buffers())
