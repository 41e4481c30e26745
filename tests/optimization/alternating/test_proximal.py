import numpy as np
import pytest
import torch
from problems import blobs
from scipy import optimize

from whydeep.core import Data, InputError, Problem
from whydeep.core.loss import cross_entropy as library_cross_entropy
from whydeep.networks import linear
from whydeep.optimization.alternating.proximal import (
    CROSS_ENTROPY,
    LOSSES,
    cross_entropy_proximal,
    output_loss,
    squared_proximal,
    target_rows,
)


def random_case(n=6, k=4, scale=2.0):
    generator = torch.Generator().manual_seed(3)
    centre = scale * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return centre, target_rows(torch.arange(n) % k, k)


@pytest.mark.parametrize("beta", [1e-2, 1.0, 30.0])
def test_cross_entropy_step_agrees_with_scipy(beta):
    centre, target = random_case()
    found = cross_entropy_proximal(centre, target, beta)
    for row, c, y in zip(found.numpy(), centre.numpy(), target.numpy(), strict=True):

        def value(v, c=c, y=y):
            top = v.max()
            return top + np.log(np.exp(v - top).sum()) - y @ v + beta / 2 * ((v - c) ** 2).sum()

        def gradient(v, c=c, y=y):
            p = np.exp(v - v.max())
            return p / p.sum() - y + beta * (v - c)

        best = optimize.minimize(value, c, jac=gradient, method="BFGS", options={"gtol": 1e-9}).x
        # Both gradients vanish to about 1e-9, and the objective is beta-strongly convex.
        np.testing.assert_allclose(row, best, atol=1e-8 / min(beta, 1))


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_cross_entropy_step_solves_its_equation_to_the_tolerance(beta, scale):
    centre, target = random_case(scale=scale)
    v = cross_entropy_proximal(centre, target, beta)
    residual = (torch.softmax(v, 1) - target + beta * (v - centre)).abs().amax(1)
    assert bool((residual <= 1e-10 * (1 + beta * centre.abs().amax(1))).all())


def test_cross_entropy_step_treats_each_sample_alone():
    centre, target = random_case(scale=20.0)
    together = cross_entropy_proximal(centre, target, 0.1)
    for index in range(len(centre)):
        alone = cross_entropy_proximal(centre[index : index + 1], target[index : index + 1], 0.1)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-12, atol=1e-12)  # rounding


def test_cross_entropy_step_of_one_class_stays_at_its_centre():
    centre = torch.tensor([[2.0]], dtype=torch.float64)  # softmax = 1 = y: the loss is flat
    torch.testing.assert_close(cross_entropy_proximal(centre, torch.ones_like(centre), 1.0), centre)


def test_cross_entropy_step_says_when_it_cannot():
    centre, target = random_case()
    with pytest.raises(ArithmeticError, match="did not converge in 1 Newton"):
        cross_entropy_proximal(centre, target, 1e-3, iterations=1)
    with pytest.raises(ArithmeticError, match="not finite"):
        cross_entropy_proximal(centre * torch.inf, target, 1.0)


def test_squared_step_minimises():
    centre, target = random_case()
    v = squared_proximal(centre, target, 3.0).requires_grad_()
    value = (v - target).square().sum() / 2 + 3.0 / 2 * (v - centre).square().sum()
    (gradient,) = torch.autograd.grad(value, v)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_total_is_the_library_loss_and_gradient_its_derivative(name):
    data = blobs(7, dtype=torch.float64)
    problem = Problem(linear(3, 3).double(), data, loss=name)
    loss = output_loss(problem)
    v = random_case(7, 3)[0].requires_grad_()
    target = target_rows(data.targets, 3)
    torch.testing.assert_close(loss.total(v, target), problem.per_sample(v, data.targets).sum())
    (gradient,) = torch.autograd.grad(problem.per_sample(v, data.targets).sum(), v)
    torch.testing.assert_close(loss.gradient(v.detach(), target), gradient)


def test_other_losses_are_refused():
    def absolute(output, target):
        return (output - torch.nn.functional.one_hot(target, 3)).abs().sum(1)

    with pytest.raises(InputError, match="BCD has no proximal map of the loss absolute"):
        output_loss(Problem(linear(3, 3), blobs(), loss=absolute), solver="BCD")

    def cross_entropy(output, target):
        return 2 * library_cross_entropy(output, target)

    with pytest.raises(InputError, match="no proximal map of the loss cross_entropy"):
        output_loss(Problem(linear(3, 3), blobs(), loss=cross_entropy))
    soft = Data(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.full((5, 3), 1 / 3))
    with pytest.raises(InputError, match="needs class labels"):
        output_loss(Problem(linear(3, 3), soft, loss="cross_entropy"))
    assert output_loss(Problem(linear(3, 3), blobs(), loss="cross_entropy")) is CROSS_ENTROPY
