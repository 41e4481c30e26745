"""Draws of a layer's outputs instead of its weights: every sample meets weights of its own, at no cost in memory.

With one draw of the weights for a whole batch, all samples share its noise, which no larger batch averages away. A
linear layer with independent weights N(m, s^2) sends on, for a sample x, independent normals

    y ~ N(m x + b, s^2 x^2 + t^2)        (squares elementwise, t the scale of the bias),

so that the outputs can be drawn at the price of one more product (Kingma, Salimans and Welling 2015). Where a sample
meets the same weights at several places (convolutions; linear layers on sequences), the outputs are dependent, and

    y = m * x + r (D * (q x)) + t z,     D ~ N(0, s^2) once a batch, q and r signs drawn for each sample and channel

has for every sample the law of one draw of the weights, since r_i D_ij q_j has that of D_ij; between samples the noise
is uncorrelated (Wen, Vicol, Ba, Tran and Grosse 2018). Both leave the mean of a loss over samples what it is, and with
it its gradient; they only fluctuate less.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whydeep.core import parameters
from whydeep.core.randomness import or_default

from .gaussian_posterior import Gaussian, normals

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs can be drawn; subclasses may use their weights otherwise, and are left alone."""


@dataclass(frozen=True)
class LocalDraws:
    """A network that draws outputs where it can, and weights elsewhere.

    local: names of the layers whose outputs are drawn. model: a copy in which these are replaced; nobody shares it.
    last: the linear one of them whose outputs, (n, classes), are those of the network; None where there is none.
    """

    local: tuple[str, ...]
    model: nn.Module = field(repr=False)
    named: dict[str, Tensor] = field(repr=False)
    last: str | None = None

    def scores(self, mean: Tensor, scale: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return outputs (n, ...) on x (n, ...), those of each sample by weights N(mean, scale^2); differentiable.

        mean, scale: (p,). The weights of all other layers are drawn once for the whole batch.
        """
        means, scales = (parameters.unflatten(vector, self.named) for vector in (mean, scale))
        given: dict[str, Tensor] = {}
        for name in self.named:
            if name.rpartition(".")[0] in self.local:
                given |= {f"{name}_mean": means[name], f"{name}_scale": scales[name]}
            else:
                given[name] = torch.addcmul(means[name], scales[name], normals(means[name], generator))
        for module in self.model.modules():
            if isinstance(module, _Drawing):
                module.generator = generator
        output: Tensor = functional_call(self.model, given, (x,))
        return output

    def errors(self, mean: Tensor, scale: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each sample a bound on the chance that its drawn outputs are largest at another class, (n,).

        Given the inputs of the last layer, output k is N(m_k, v_k), so class k beats y with probability
        Phi((m_k - m_y) / sqrt(v_k + v_y)); their sum over k is the chance itself for two classes, and at least that for
        more. Unlike the 0-1 loss of a draw it has a derivative. Raises `ValueError` where there is no `last` layer.
        """
        layer = None if self.last is None else self.model.get_submodule(self.last)
        if not isinstance(layer, _Drawing):
            raise ValueError("the network's outputs are not those of a layer whose outputs are drawn; use its scores")
        layer.moments = True
        try:
            m, v = self.scores(mean, scale, x, generator)
        finally:
            layer.moments = False
        at = y[:, None]
        lead = (m - m.gather(1, at)) / (v + v.gather(1, at)).clamp_min(torch.finfo(v.dtype).tiny).sqrt()
        beaten: Tensor = torch.special.ndtr(lead).scatter(1, at, 0.0).sum(1)
        return beaten


class _Drawing(nn.Module):
    """Stands where a layer stood; its means and scales are given in every call."""

    weight_mean: Tensor
    weight_scale: Tensor
    bias_mean: Tensor | None
    bias_scale: Tensor | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple, so that its weights are no parameters here
        self.flat = isinstance(layer, nn.Linear)
        self.generator = torch.Generator()
        self.moments = False
        for name in ("weight", "bias"):
            value = getattr(layer, name)
            self.register_buffer(f"{name}_mean", None if value is None else value.detach().clone())
            self.register_buffer(f"{name}_scale", None if value is None else torch.zeros_like(value))

    def forward(self, x: Tensor) -> Tensor:
        return self._outputs(x) if self.flat and x.dim() == 2 else self._flipped(x)

    def _outputs(self, x: Tensor) -> Tensor:
        """Independent normals for every sample and unit."""
        mean = nn.functional.linear(x, self.weight_mean, self.bias_mean)
        spread = None if self.bias_scale is None else self.bias_scale.square()
        variance = nn.functional.linear(x.square(), self.weight_scale.square(), spread)
        if self.moments:
            return torch.stack([mean, variance])
        # A sample of zeros has no variance, where the root has no derivative; clamping gives it the derivative 0.
        root = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return torch.addcmul(mean, root, normals(mean, self.generator))

    def _flipped(self, x: Tensor) -> Tensor:
        """One draw of the weights for all, its signs flipped anew for each sample; a bias drawn for each sample."""
        mean = self._product(x, self.weight_mean, self.bias_mean)
        drawn = self.weight_scale * normals(self.weight_scale, self.generator)
        noise = self._each(mean).sign() * self._product(self._each(x).sign() * x, drawn, None)
        if self.bias_scale is not None:
            each = self._each(mean)
            noise = noise + each * self.bias_scale.view(each[:1].shape)
        return mean + noise

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (layer,) = self.layer
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            sent: Tensor = layer._conv_forward(x, weight, bias)  # with its stride, padding, dilation and groups
            return sent
        return nn.functional.linear(x, weight, bias)

    def _each(self, like: Tensor) -> Tensor:
        """Return a standard normal number for each sample and channel, shaped to meet them."""
        channels = like.dim() - 1 if self.flat else 1
        shape = [size if axis in (0, channels) else 1 for axis, size in enumerate(like.shape)]
        return normals(like.new_empty(shape), self.generator)


def local_draws(gaussian: Gaussian, x: Tensor) -> LocalDraws:
    """Return the network of `gaussian`, drawing outputs in every layer in which that has the same law.

    That is in layers of `KINDS` of which all weights are trained, which no other layer shares, and which are called
    once, with one row (one leading index) a sample. x: a few samples (n >= 2, ...) on which this is looked up. If with
    all scales zero the outputs are then not the network's (the forward pass reads weights itself, say), no layer is
    replaced. Cost: three forward passes.
    """
    named = parameters.named(gaussian.model)
    local, last = _eligible(gaussian.model, x)
    found = LocalDraws(local, _replaced(gaussian.model, local), named, last)
    if local and not _agrees(found, gaussian, x):
        return LocalDraws((), copy.deepcopy(gaussian.model), named)
    return found


def _eligible(model: nn.Module, x: Tensor) -> tuple[tuple[str, ...], str | None]:
    """Names of the layers that can be replaced, and of a linear one that gives the outputs: by one pass of a copy."""
    own = copy.deepcopy(model)
    owners = Counter(id(value) for module in own.modules() for value in module.parameters(recurse=False))
    rows: dict[str, list[int]] = {}
    sent: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        rows[name] = []

        def look(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            rows[name].append(len(given[0]) if given else -1)  # called by keyword: left alone
            sent[name] = output

        return look

    for name, module in own.named_modules():
        values = dict(module.named_parameters())
        plain = type(module) in KINDS and "weight" in values and set(values) <= {"weight", "bias"}
        own_alone = all(value.requires_grad and owners[id(value)] == 1 for value in values.values())
        if plain and own_alone and not module._forward_hooks and not module._forward_pre_hooks:
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        output = own(x)
    local = tuple(name for name, seen in rows.items() if seen == [len(x)])
    linear = [name for name in local if type(own.get_submodule(name)) is nn.Linear and sent[name].dim() == 2]
    return local, next((name for name in linear if sent[name] is output), None)


def _replaced(model: nn.Module, local: tuple[str, ...]) -> nn.Module:
    own = copy.deepcopy(model)
    for name in local:
        if not name:
            return _Drawing(own)
        parent, _, child = name.rpartition(".")
        setattr(own.get_submodule(parent), child, _Drawing(own.get_submodule(name)))
    return own


def _agrees(found: LocalDraws, gaussian: Gaussian, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            still = found.scores(gaussian.mean, torch.zeros_like(gaussian.scale), x, or_default(None))
            exact = gaussian.scores(gaussian.mean, x)
    except (AttributeError, RuntimeError, TypeError):
        return False  # the forward pass asks a layer for what only the layer itself has
    # The same products in another order of sums: the last digits of single precision.
    return torch.allclose(still, exact, rtol=1e-4, atol=1e-5)
