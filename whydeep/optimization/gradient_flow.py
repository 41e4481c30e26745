"""How gradients flow through depth: measured layer by layer, and predicted by the mean field of a wide network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from whydeep.core.data import Data
from whydeep.core.problem import Problem

Moments = tuple[float, float]
"""(E phi(sqrt(q) Z)^2, E phi'(sqrt(q) Z)^2) for Z standard normal."""

# Activations without a kink: the trapezoidal rule converges faster than any power of its step on them.
SMOOTH: tuple[type[nn.Module], ...] = (nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.Softplus)
CLOSED: tuple[type[nn.Module], ...] = (nn.Identity, nn.ReLU, nn.LeakyReLU)
# Layers that count even when their weight is computed by parts of theirs (weight normalisation, for one).
MIXING: tuple[type[nn.Module], ...] = (nn.Linear, _ConvNd, nn.MultiheadAttention, nn.RNNBase)


def moments(activation: nn.Module, q: float) -> Moments:
    """Return E phi(sqrt(q) Z)^2 and E phi'(sqrt(q) Z)^2 for Z ~ N(0, 1), q >= 0 the variance of pre-activations.

    In closed form for slope a below zero and 1 above (identity a = 1, ReLU a = 0, leaky ReLU):
    q (1 + a^2) / 2 and (1 + a^2) / 2, where no quadrature over the kink would be exact. At q = 0 a ReLU's slope is
    that mean, too: the limit q -> 0. By quadrature for the smooth ones.
    Raises `ValueError` on another activation, or q < 0 or not finite.

    >>> moments(nn.ReLU(), 3.0)
    (1.5, 0.5)
    """
    if not (q >= 0 and math.isfinite(q)):
        raise ValueError(f"the variance of the pre-activations is {q}; give a finite number >= 0")
    if isinstance(activation, CLOSED):
        below = {nn.Identity: 1.0, nn.ReLU: 0.0}.get(type(activation), getattr(activation, "negative_slope", None))
        assert below is not None
        half = (1 + below**2) / 2
        return q * half, half
    if not isinstance(activation, SMOOTH):
        known = ", ".join(kind.__name__ for kind in CLOSED + SMOOTH)
        raise ValueError(f"no mean field is known for {type(activation).__name__}; known are {known}")
    return _quadrature(activation, q)


def _quadrature(activation: nn.Module, q: float) -> Moments:
    # Trapezoidal rule on |z| <= 12 (the density beyond is below 1e-31), step 0.003. Its error falls like
    # exp(-2 pi d / step) with d the distance of the nearest pole, pi / sqrt(q) for a sigmoid: below 1e-16 up to
    # sqrt(q) = 170. Gauss and Hermite's nodes would lie too wide apart at such q.
    z = torch.linspace(-12, 12, 8001, dtype=torch.float64)
    weight = torch.exp(-z.square() / 2)
    weight = weight / weight.sum()
    h = (math.sqrt(q) * z).requires_grad_()
    with torch.enable_grad():
        value = activation(h)
        (slope,) = torch.autograd.grad(value.sum(), h)
    return float(weight @ value.detach().square()), float(weight @ slope.square())


@dataclass(frozen=True)
class Layer:
    """What the mean field needs to know of a dense layer.

    weight_variance: s_w^2 = fan_in * mean of squared weights. bias_variance: s_b^2 = mean of squared biases.
    activation: what follows the layer; Identity after the last.
    """

    weight_variance: float
    bias_variance: float
    activation: nn.Module


@dataclass(frozen=True)
class MeanField:
    """The prediction for a network of dense layers 1..L.

    variance: (L,), q_l of the pre-activations. chi: (L - 1,), the factor by which the squared length of the gradient
    with respect to the pre-activations shrinks from layer l + 1 back to layer l.
    """

    variance: Tensor
    chi: Tensor

    @property
    def lengths(self) -> Tensor:
        """Length of the gradient at layers 1..L relative to the last, (L,)."""
        backwards = torch.cumprod(self.chi.flip(0), 0).sqrt().flip(0)
        return torch.cat([backwards, torch.ones(1, dtype=torch.float64)])

    @property
    def factor(self) -> float:
        """The factor per layer: the (L - 1)-th root of the first length over the last."""
        return math.exp(float(self.chi.log().mean()) / 2)


def mean_field(layers: Sequence[Layer], *, input_square: float) -> MeanField:
    """Return the mean field of dense layers whose weights are independent, at finite depth, layer after layer.

    q_1 = s_w1^2 m_0 + s_b1^2 with m_0 = `input_square`, the mean of squared inputs;
    q_{l+1} = s_w,l+1^2 E phi_l(sqrt(q_l) Z)^2 + s_b,l+1^2;
    chi_l = s_w,l+1^2 E phi_l'(sqrt(q_l) Z)^2, so that |dR/dh_l|^2 = chi_l |dR/dh_{l+1}|^2 in squared Euclidean length;
    the mean square of an entry has the factor chi_l N_{l+1} / N_l for widths N. Exact as the widths go to infinity.

    Poole et al. (2016), Schoenholz et al. (2017) for equal layers. Raises `ValueError` with fewer than two layers.

    >>> he = Layer(2.0, 0.0, nn.ReLU())
    >>> mean_field([he] * 5, input_square=1.0).factor
    1.0
    """
    if len(layers) < 2:
        raise ValueError(f"{len(layers)} dense layers; a factor between layers needs two")
    square, variance, chi = input_square, [], []
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        variance.append(layer.weight_variance * square + layer.bias_variance)
        square, slope = moments(layer.activation, variance[-1])
        if after is not None:
            chi.append(after.weight_variance * slope)
    return MeanField(torch.tensor(variance, dtype=torch.float64), torch.tensor(chi, dtype=torch.float64))


def dense_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a network that is a plain sequence Linear, activation, Linear, ..., from its own weights.

    Flatten and Dropout (off in evaluation mode) may stand between. Raises `ValueError`, saying what is in the way,
    for any other network: the mean field here is that of dense layers in a row.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"the network is a {type(model).__name__}; the mean field needs an nn.Sequential")
    found: list[Layer] = []
    open_layer = False
    for module in model:
        if isinstance(module, nn.Flatten | nn.Dropout):
            continue
        if isinstance(module, nn.Linear):
            weights = module.weight.detach().double()
            bias = 0.0 if module.bias is None else float(module.bias.detach().double().square().mean())
            found.append(Layer(module.in_features * float(weights.square().mean()), bias, nn.Identity()))
            open_layer = True
        elif isinstance(module, CLOSED + SMOOTH) and open_layer:
            found[-1] = Layer(found[-1].weight_variance, found[-1].bias_variance, module)
            open_layer = isinstance(module, nn.Identity)
        else:
            raise ValueError(f"a {type(module).__name__} stands where the mean field has no formula")
    return tuple(found)


@dataclass(frozen=True)
class GradientNorms:
    """The gradient layer by layer, from input to output.

    names: of the layers that hold weights. norms: (L,), the root over samples of the mean squared Euclidean length of
    dloss_i / dh_l, h_l the layer's output (its pre-activations) for sample i.
    """

    names: tuple[str, ...]
    norms: Tensor

    @property
    def factor(self) -> float:
        """The factor per layer, (first norm / last norm)^(1/(L - 1)); 0 for a dead network, 1 with one layer."""
        first, last = float(self.norms[0]), float(self.norms[-1])
        if len(self.norms) == 1:
            return 1.0
        return (first / last) ** (1 / (len(self.norms) - 1)) if last > 0 else 0.0

    @property
    def ratio(self) -> float:
        """Smallest norm over largest, in [0, 1]; 0 for a dead network."""
        largest = float(self.norms.max())
        return float(self.norms.min()) / largest if largest > 0 else 0.0


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that mix units, by name.

    They are linear, convolutional and recurrent layers, attention, and any other module without parts that holds a
    weight of two dimensions or more. Normalisations are none of them, nor are bare parameters of a larger module.
    """
    attention = {id(part) for m in model.modules() if isinstance(m, nn.MultiheadAttention) for part in m.children()}
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if id(module) not in attention  # attention reads its parts' weights itself and never calls them
        and not isinstance(module, nn.LayerNorm)
        and (isinstance(module, MIXING) or (not list(module.children()) and _holds_matrix(module)))
    }


def _holds_matrix(module: nn.Module) -> bool:
    return any(value.ndim >= 2 for value in module.parameters(recurse=False))


def gradient_norms(problem: Problem, *, data: Data | None = None, batch_size: int = 2048) -> GradientNorms:
    """Measure the length of the loss's gradient with respect to the output of every layer that holds weights.

    norm_l = sqrt(1/n sum_i |dloss(model(x_i), y_i) / dh_l(x_i)|^2). Evaluation mode, on a private copy of the network;
    layers that do not run on the way to the output are left out, one that runs several times counts the sum of squares.
    Raises `ValueError` when no layer of this kind runs. Cost: one forward and one backward pass.
    """
    data = problem.train if data is None else data
    model = copy.deepcopy(problem.model).eval()
    for value in model.parameters():
        value.requires_grad_(True)  # frozen layers have gradients with respect to their outputs, too
    caught: list[tuple[str, Tensor]] = []

    def catcher(name: str) -> Callable[[nn.Module, object, object], object]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> object:
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not first.requires_grad:
                return None
            caught.append((name, first))
            # A copy travels on: an activation that works in place would overwrite what was caught.
            return (first.clone(), *output[1:]) if isinstance(output, tuple) else first.clone()

        return hook

    handles = [module.register_forward_hook(catcher(name)) for name, module in weight_layers(model).items()]
    squares: dict[str, float] = {}
    with torch.enable_grad():
        for x, y in data.batches(batch_size):
            caught.clear()
            total = problem.per_sample(model(x), y).sum()
            if not caught:
                break
            grads = torch.autograd.grad(total, [output for _, output in caught], materialize_grads=True)
            for (name, _), grad in zip(caught, grads, strict=True):
                squares[name] = squares.get(name, 0.0) + float(grad.double().square().sum())
    for handle in handles:
        handle.remove()
    if not squares:
        raise ValueError("no layer with a weight of two dimensions ran; give a network that has one")
    norms = torch.tensor([math.sqrt(value / len(data)) for value in squares.values()], dtype=torch.float64)
    return GradientNorms(tuple(squares), norms)
