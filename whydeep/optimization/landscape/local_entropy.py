"""The risk seen through a window: local entropy at a finite temperature, the Moreau envelope at temperature zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from whydeep.core import parameters
from whydeep.core.evaluation import evaluating
from whydeep.core.measurement import Measurement
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn

Function = Callable[[Tensor], Tensor]
"""Points (p,) or (m, p), one a row -> values () or (m,)."""


def risk_function(problem: Problem) -> Function:
    """Return w (p,) -> R(w) as a differentiable function of the parameters, in evaluation mode on all training data."""
    model = problem.copy()
    like = parameters.named(model)
    data = problem.train.in_memory()

    def risk(vector: Tensor) -> Tensor:
        if vector.ndim == 2:
            return torch.stack([risk(each) for each in vector])
        with evaluating(model):
            output = torch.func.functional_call(model, parameters.unflatten(vector, like), (data.x,))
        return problem.per_sample(output, data.targets).mean()

    return risk


@dataclass(frozen=True)
class Envelope:
    """The Moreau envelope at a point: its value, the point y where it is reached, and its gradient gamma (x - y).

    slope: the largest entry of grad f(y) + gamma (y - x), zero at a stationary point.
    """

    value: float
    proximal: Tensor
    gradient: Tensor
    slope: float


def moreau_envelope(
    f: Function | Problem, x: Tensor | None = None, *, gamma: float, iterations: int = 200, tolerance: float = 1e-9
) -> Envelope:
    """Return min_y f(y) + gamma/2 |x - y|^2, with the minimiser and the gradient gamma (x - y*) at x (p,).

    f: a function of (p,), or a problem, whose risk is taken, x then being its parameters by default. In the notation
    f_g(x) = min_y f(y) + |x - y|^2 / (2 g) it is g = 1 / gamma. For f = a y^2 / 2 it is a gamma / (a + gamma) x^2 / 2.
    The minimum is found by L-BFGS from y = x until the slope is at most `tolerance`; exact for quadratics up to
    rounding. Where gamma exceeds the largest negative curvature of f the inner problem is convex and the minimum the
    global one; otherwise it is the local one that is reached from x.

    Raises `ValueError` when gamma is not positive. Cost: about 1.2 gradients an iteration.
    Source: Moreau (1965); its place among the lecture's topics: Chaudhari et al. (2018), Deep Relaxation.

    >>> found = moreau_envelope(lambda y: 1.5 * y.square().sum(-1), torch.tensor([2.0], dtype=torch.float64), gamma=1.0)
    >>> round(found.value, 9), round(float(found.gradient), 9)  # 3 1 / (3 + 1) 2^2 / 2, and 3/4 of x
    (1.5, 1.5)
    """
    function, x = _given(f, x)
    _positive("gamma", gamma)
    y = x.clone().requires_grad_()

    def closure() -> Tensor:
        with torch.enable_grad():
            value = function(y) + gamma / 2 * (x - y).square().sum()
            (y.grad,) = torch.autograd.grad(value, [y])
        return value

    value = float(closure().detach())
    left = iterations
    while left > 0 and float(_slope(y).abs().max()) > tolerance:
        # Started anew: a line search that ended in the rounding of the value leaves the memory of a bad step behind.
        rounds = min(left, 40)
        optimizer = torch.optim.LBFGS(
            [y],
            max_iter=rounds,
            tolerance_grad=tolerance,
            tolerance_change=0.0,
            history_size=min(20, len(x) + 1),
            line_search_fn="strong_wolfe",
        )
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        value = float(closure().detach())
        left -= rounds
    nearest = y.detach().clone()
    return Envelope(value, nearest, gamma * (x - nearest), float(_slope(y).abs().max()))


def _slope(y: Tensor) -> Tensor:
    assert y.grad is not None
    return y.grad


@dataclass(frozen=True)
class LocalEntropy:
    """The local entropy at a point, with its gradient gamma (x - <y>), <y> the mean under the local Gibbs density.

    value: with the interval of its Monte Carlo error; gradient (p,). effective: of so many samples the weights are
    worth; below about 100 neither number means much, and the interval is too narrow.
    """

    value: Measurement
    gradient: Tensor
    effective: float


def local_entropy(
    f: Function | Problem,
    x: Tensor | None = None,
    *,
    gamma: float,
    beta: float = 1.0,
    samples: int = 1000,
    generator: torch.Generator | None = None,
) -> LocalEntropy:
    """Return the local entropy of f at x (p,), as a smoothed f (its negative logarithm), and its gradient:

        F(x) = -1/beta log E exp(-beta f(x + z)),  z ~ N(0, I / (beta gamma))
             = -1/beta log (beta gamma / 2 pi)^(p/2) Int exp(-beta [f(y) + gamma/2 |x - y|^2]) dy.

    Normalised, so that F(x) -> f(x) as gamma -> infinity, and to the Moreau envelope as beta -> infinity.
    Baldassi et al. (2015) and Chaudhari et al. (2017, Entropy-SGD) take beta = 1, drop the constant, and give log Int a
    plus sign, which a minimum of f turns into a maximum of entropy. On f = a y^2 / 2, p = 1:
    F = a gamma / (a + gamma) x^2 / 2 + log(1 + a / gamma) / (2 beta).

    By importance sampling from the Gaussian, in antithetic pairs x +- z: consistent, with the interval by the delta
    method over the pairs. It works in low dimension or for a narrow window (beta times the variation of f in the window
    of a few units at most); `effective` tells. A network is trained on it without this sum: `EntropySGD`.
    Raises `ValueError` when gamma or beta is not positive, or samples < 4. Cost: `samples` values of f.

    >>> point = torch.tensor([1.0], dtype=torch.float64)
    >>> found = local_entropy(lambda y: y.square().sum(-1), point, gamma=2.0, samples=20_000)
    >>> exact = 2 * 2 / (2 + 2) / 2 + math.log(2) / 2
    >>> found.value.low < exact < found.value.high
    True
    """
    function, x = _given(f, x)
    _positive("gamma", gamma)
    _positive("beta", beta)
    if samples < 4:
        raise ValueError(f"samples={samples}; give at least 4")
    generator = spawn(or_default(generator))  # unrelated to an x that was drawn from the same seed
    pairs = samples // 2
    z = torch.randn(pairs, len(x), generator=generator, dtype=x.dtype).to(x.device) / math.sqrt(beta * gamma)
    with torch.no_grad():
        exponents = -beta * torch.stack([function(x + z), function(x - z)]).double()
    largest = exponents.max()
    weights = torch.exp(exponents - largest)  # (2, pairs)
    each = weights.mean(0)
    total = each.mean()
    value = -(float(largest) + math.log(float(total))) / beta
    # The deviation of log of a mean is that of the mean over the mean.
    deviation = float(each.std() / total) / math.sqrt(pairs) / beta
    reach = float(stats.norm.ppf(0.975)) * deviation
    shift = ((weights[0] - weights[1]).to(z) @ z) / weights.sum().to(z)
    return LocalEntropy(
        Measurement(
            "local entropy",
            value,
            value - reach,
            value + reach,
            method=f"{pairs} antithetic pairs",
            evaluations=2 * pairs,
        ),
        -gamma * shift,
        float(weights.sum().square() / weights.square().sum()),
    )


def softened(curvature: Tensor, *, gamma: float) -> Tensor:
    """Return a gamma / (a + gamma), the curvature that a quadratic of curvature a has under either envelope, > -gamma.

    >>> softened(torch.tensor([1.0, 1e9]), gamma=1.0)
    tensor([0.5000, 1.0000])
    """
    if bool((curvature <= -gamma).any()):
        raise ValueError(f"a curvature is {float(curvature.min()):g}; a window of gamma={gamma:g} does not contain it")
    return curvature * gamma / (curvature + gamma)


def volume_term(curvature: Tensor, *, gamma: float, beta: float) -> float:
    """Return sum_i log(1 + a_i / gamma) / (2 beta): what local entropy adds at a minimum of curvatures a_i.

    The steeper the minimum, the more: it is why local entropy prefers flat minima.

    >>> round(volume_term(torch.tensor([1.0, 3.0]), gamma=1.0, beta=0.5), 6)  # log 2 + log 4
    2.079442
    """
    if bool((curvature <= -gamma).any()):
        raise ValueError(f"a curvature is {float(curvature.min()):g}; a window of gamma={gamma:g} does not contain it")
    return float(torch.log1p(curvature.double() / gamma).sum()) / (2 * beta)


def _given(f: Function | Problem, x: Tensor | None) -> tuple[Function, Tensor]:
    if isinstance(f, Problem):
        return risk_function(f), (f.vector() if x is None else x).detach()
    if x is None:
        raise ValueError("x is None; give the point (p,) at which the function is looked at")
    return f, x.detach()


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} is {value}; give a number > 0")
