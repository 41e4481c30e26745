"""Envelopes of quadratics in closed form, and of other functions by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from problems import small_problem
from scipy import integrate
from torch import Tensor

from whydeep.optimization.landscape.local_entropy import (
    local_entropy,
    moreau_envelope,
    risk_function,
    softened,
    volume_term,
)


def quadratic() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return root @ root.T, torch.randn(4, generator=generator, dtype=torch.float64), torch.linalg.eigvalsh(root @ root.T)


@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_the_moreau_envelope_of_a_quadratic_is_exact(gamma: float) -> None:
    a, x, _ = quadratic()
    found = moreau_envelope(lambda y: 0.5 * (y @ a @ y), x, gamma=gamma)
    # The minimiser solves (A + gamma) y = gamma x; the envelope is x' A gamma (A + gamma)^-1 x / 2.
    nearest = torch.linalg.solve(a + gamma * torch.eye(4).double(), gamma * x)
    torch.testing.assert_close(found.proximal, nearest, rtol=0, atol=1e-8)
    assert found.value == pytest.approx(float(gamma / 2 * x @ a @ nearest / gamma), rel=1e-12)
    torch.testing.assert_close(found.gradient, gamma * (x - nearest), rtol=0, atol=1e-7)
    assert found.slope < 1e-7


def test_the_envelope_of_the_absolute_value_is_hubers_function() -> None:
    # min_y |y| + gamma/2 (x - y)^2: |x| - 1/(2 gamma) beyond 1/gamma. Smoothed within 1e-8 so that it has a slope.
    for x in (1.5, -2.0):
        found = moreau_envelope(
            lambda y: (y.square() + 1e-16).sqrt().sum(), torch.tensor([x], dtype=torch.float64), gamma=2.0
        )
        assert found.value == pytest.approx(abs(x) - 0.25, abs=1e-7)


@pytest.mark.parametrize(("gamma", "beta"), [(4.0, 1.0), (4.0, 0.4)])
def test_the_local_entropy_of_a_quadratic_lies_in_its_interval(gamma: float, beta: float) -> None:
    a, x, values = quadratic()
    exact = 0.5 * float(x @ a @ torch.linalg.solve(a + gamma * torch.eye(4).double(), gamma * x))
    exact += volume_term(values, gamma=gamma, beta=beta)
    hits, gradients = 0, []
    for seed in range(40):
        found = local_entropy(
            lambda y: 0.5 * ((y @ a) * y).sum(-1),
            x,
            gamma=gamma,
            beta=beta,
            samples=4000,
            generator=torch.Generator().manual_seed(seed),
        )
        hits += found.value.low <= exact <= found.value.high
        gradients.append(found.gradient)
        assert found.effective > 100
    # Binomial(40, .95): fewer than 33 hits has probability 4e-3 of a per cent.
    assert hits >= 33
    mean, spread = torch.stack(gradients).mean(0), torch.stack(gradients).std(0) / math.sqrt(40)
    wanted = gamma * (x - torch.linalg.solve(a + gamma * torch.eye(4).double(), gamma * x))
    # Self-normalised weights are biased by 1/effective, here below one standard error.
    assert float(((mean - wanted) / spread).abs().max()) < 5
    assert float(spread.max()) < 0.05 * float(wanted.abs().max())


def test_a_double_well_by_quadrature_in_both_limits() -> None:
    def f(y: Tensor) -> Tensor:
        return (y.square() - 1).square().sum(-1) + 0.3 * y.sum(-1)

    x, gamma, beta = 0.2, 1.5, 2.0

    def integrand(y: float) -> float:
        return math.exp(-beta * ((y * y - 1) ** 2 + 0.3 * y + gamma / 2 * (x - y) ** 2))

    mass = integrate.quad(integrand, -6, 6)[0] * math.sqrt(beta * gamma / (2 * math.pi))
    point = torch.tensor([x], dtype=torch.float64)
    found = local_entropy(f, point, gamma=gamma, beta=beta, samples=200_000)
    assert found.value.low <= -math.log(mass) / beta <= found.value.high
    assert found.value.high - found.value.low < 0.02
    # A narrow window is f itself; F exceeds it by about f''/(2 beta gamma).
    narrow = local_entropy(f, point, gamma=1e6, samples=2000)
    assert narrow.value.value == pytest.approx(float(f(point)), abs=1e-5)


def test_a_networks_risk_is_taken_at_its_parameters_and_left_alone() -> None:
    problem = small_problem(dtype=torch.float64)
    before = problem.vector()
    risk = risk_function(problem)
    assert float(risk(before)) == pytest.approx(problem.risk(), rel=1e-12)
    envelope = moreau_envelope(problem, gamma=50.0)
    assert envelope.value <= problem.risk()
    # The gradient of the envelope is that of the risk at the proximal point.
    torch.testing.assert_close(envelope.gradient, problem.at(envelope.proximal).gradient(), rtol=0, atol=1e-7)
    entropy = local_entropy(problem, gamma=1e4, samples=40)
    assert entropy.value.low < entropy.value.value < entropy.value.high
    assert torch.equal(problem.vector(), before)


def test_a_concave_direction_has_to_lie_in_the_window() -> None:
    assert float(softened(torch.tensor(-0.5), gamma=1.0)) == -1.0
    for function in (lambda a: softened(a, gamma=1.0), lambda a: volume_term(a, gamma=1.0, beta=1.0)):
        with pytest.raises(ValueError, match="does not contain it"):
            function(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="gamma is 0"):
        moreau_envelope(lambda y: y.sum(), torch.zeros(1), gamma=0.0)
    with pytest.raises(ValueError, match="give at least 4"):
        local_entropy(lambda y: y.sum(-1), torch.zeros(1), gamma=1.0, samples=2)
    with pytest.raises(ValueError, match="give the point"):
        moreau_envelope(lambda y: y.sum(), gamma=1.0)
