"""The moments that a running Gram matrix follows, against the definition on stacked samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from whydeep.optimization.alternating.stochastic_admm.running_gram import RunningGram, Whitening, moments


def rows(m: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return x @ torch.randn(d, d, generator=generator, dtype=torch.float64) + 3


@pytest.mark.parametrize("centred", [True, False])
def test_two_updates_are_the_moments_of_the_weighted_mixture(centred: bool) -> None:
    first, second, decay = rows(50, 4), rows(30, 4, seed=1) - 5, 0.7
    gram = RunningGram(damping=0.5, floor=0.1, decay=decay, centred=centred)
    gram.update(first)
    gram.update(second)
    # Weight 0.7/50 on each sample of the first, 0.3/30 on each of the second: definition of mean and covariance.
    weight = torch.tensor([decay / 50] * 50 + [(1 - decay) / 30] * 30, dtype=torch.float64)
    both = torch.cat([first, second])
    mean = weight @ both if centred else torch.zeros(4, dtype=torch.float64)
    covariance = (both - mean).T @ (weight[:, None] * (both - mean))
    shift = 0.5 * covariance.diagonal().mean() + 0.1 * second.square().mean()
    torch.testing.assert_close(gram.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gram.covariance, covariance, rtol=1e-12, atol=1e-12)
    identity = torch.eye(4, dtype=torch.float64)
    # The residual of the equation solved; the condition of the damped matrix is below 100.
    torch.testing.assert_close(gram.inverse @ (covariance + shift * identity), identity, rtol=0, atol=1e-12)


def test_single_precision_rows_of_a_saturated_layer_are_inverted() -> None:
    # Two hundred almost equal columns near one: in float32 a Cholesky factorisation of A'A fails without help.
    x = 1 - 1e-4 * torch.rand(500, 200, generator=torch.Generator().manual_seed(0))
    gram = RunningGram(damping=1e-3, floor=0.0)
    gram.update(x)
    assert gram.inverse.dtype == torch.float32
    assert torch.isfinite(gram.inverse).all()
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(x.T @ x + 1e-9 * torch.eye(200))


@pytest.mark.parametrize("x", [torch.full((5, 3), 2.0), torch.zeros(5, 3), torch.tensor([[1.0, 2.0, 3.0]])])
def test_inputs_that_do_not_vary_have_an_inverse(x: Tensor) -> None:
    gram = RunningGram(damping=0.3, floor=0.1)
    gram.update(x.double())
    size = float(x.double().square().mean())
    expected = torch.eye(3, dtype=torch.float64) / ((0.1 * size) or 1.0)
    torch.testing.assert_close(gram.inverse, expected, rtol=1e-12, atol=0)


def test_what_is_not_finite_is_an_arithmetic_error() -> None:
    gram = RunningGram(damping=0.3, floor=0.1)
    with pytest.raises(ArithmeticError, match="more damping"):
        gram.update(torch.full((3, 2), math.nan))
    with pytest.raises(ArithmeticError, match="more damping"):
        Whitening.of(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), damping=0.0)


@pytest.mark.parametrize("centred", [True, False])
def test_whitening_keeps_the_preactivations_and_makes_the_damped_moments_the_identity(centred: bool) -> None:
    x = rows(60, 5)
    weight, bias = torch.randn(3, 5, generator=torch.Generator().manual_seed(2)).double(), torch.ones(3).double()
    whitening = Whitening.of(x, damping=0.2, centred=centred)
    moved, offset = whitening.into(weight, bias)
    assert offset is not None
    torch.testing.assert_close(whitening.samples(x) @ moved.T + offset, x @ weight.T + bias, rtol=1e-11, atol=1e-11)
    again = whitening.back(moved, offset)
    torch.testing.assert_close(again, (weight, bias), rtol=1e-11, atol=1e-11)
    mean, covariance = moments(x, centred=centred)
    inverse = torch.linalg.inv(covariance + 0.2 * covariance.diagonal().mean() * torch.eye(5).double())
    # A plain step in W L is the preconditioned step in W: (g L^-T) L^-1 = g (C + delta I)^-1, for g (1, 5).
    gradient = torch.arange(5.0).double()[None]
    step = whitening.back(gradient @ whitening.inverse.T, None)[0]
    torch.testing.assert_close(step, gradient @ inverse, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mean, x.mean(0) if centred else torch.zeros(5).double())
