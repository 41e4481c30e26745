"""A start that depends on the data: every layer's pre-activations get the same spread, and means of a given size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.optimization.alternating.chain import Chain


def rescaled(problem: Problem, *, spread: float = 1.0, offset: float = 0.0, samples: int = 2048) -> Problem:
    """Return the problem with a network whose hidden layers are rescaled, from the first to the last.

    W_i is multiplied by spread / sigma_i, sigma_i^2 the variance of its pre-activations over samples, averaged over
    units, with the layers below already rescaled; b_i is set to minus the mean of W_i V_{i-1}, so that every unit has
    mean zero. The output layer stays. The directions of the weights are as they were: only sizes and offsets change.
    Layers without a bias are rescaled only; a layer whose pre-activations do not vary is left alone.

    offset: b_i is set so that the units' means are no zeros but m_u = offset (c_u - mean(c)) / sd(c), with c the means
    of W_i V_{i-1} over samples, mean and sd over units: means of root mean square `offset` in the start's own pattern.
    A sigmoid at zero is odd and all but linear; away from it, it is curved.
    samples: taken from the front of the training data. The user's model is not changed.
    Raises `InputError` when the model is no chain of linear layers and activations, and `ValueError` on a spread that
    is not positive. Computes in float64: at PyTorch's start the signal of ten sigmoid layers is below single precision.
    Source: Mishkin and Matas 2016, "All you need is a good init" (LSUV; recalled, not checked against the paper), of
    which this is the non-iterated form with the mean removed and without the orthonormal first step.

    >>> from whydeep.core.data import Data
    >>> from whydeep.networks import mlp
    >>> data = Data(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1]), classes=2)
    >>> found = rescaled(Problem(mlp((1, 1, 2), activation="tanh"), data), spread=3.0).model
    >>> [round(abs(u), 4) for u in found[1](data.x).flatten().tolist()]
    [3.0, 3.0]
    """
    if not spread > 0:
        raise ValueError(f"spread={spread}; give a positive number")
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset={offset}; give a number >= 0")
    model = problem.copy()
    chain = Chain.of(model, solver="rescaled")
    few = problem.train.take(torch.arange(min(samples, len(problem.train))))
    chain.load(rescaled_weights(chain, chain.rows(few), spread=spread, offset=offset))
    return problem.with_model(model)


def spreads(chain: Chain, x: Tensor) -> tuple[float, ...]:
    """Return each hidden layer's standard deviation of the pre-activations over the samples x (n, d), float64.

    It is the root of their variance averaged over units, sigma_i of `rescaled` with the layers below as they are.
    """
    states, found = x, []
    for layer, weight in zip(chain.layers[:-1], chain.weights()[:-1], strict=True):
        u = layer.preactivation(weight, states)
        found.append(float((u - u.mean(0)).square().mean().sqrt()))
        states, _ = layer.activation.value_and_slope(u)
    return tuple(found)


def rescaled_weights(chain: Chain, x: Tensor, *, spread: float, offset: float = 0.0) -> tuple[Tensor, ...]:
    """Return W_1..W_N of the rescaled network (outputs, inputs + 1), float64, for the samples x (n, d), float64."""
    states, weights = x, chain.weights()
    for layer, weight in zip(chain.layers[:-1], weights[:-1], strict=True):
        signal = states @ layer.without_bias(weight).T
        mean = signal.mean(0)
        size = float((signal - mean).square().mean().sqrt())
        factor = spread / size if size > 0 else 1.0
        weight *= factor
        if layer.bias:
            weight[:, -1] = offset * _standardised(mean) - factor * mean
        states, _ = layer.activation.value_and_slope(layer.preactivation(weight, states))
    return weights


def _standardised(means: Tensor) -> Tensor:
    """Return the units' means less their mean, over their standard deviation; zeros where they are all the same."""
    centred = means - means.mean()
    size = centred.square().mean().sqrt()
    return centred / size if float(size) > 0 else torch.zeros_like(centred)
