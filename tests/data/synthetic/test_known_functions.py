"""The sets whose function is known: teacher and student, ridge sum, compositional, spirals."""

import math
import re

import pytest
import torch

from whydeep.data import compositional, ridge_sum, spirals, teacher_student
from whydeep.data.synthetic import tree_function


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def transcribed(x, leaves):
    """The slide's formula, one sample at a time."""

    def wave(a, b):
        return math.sin(2 * (a + b)) * math.cos(a - b)

    def saddle(a, b):
        return math.tanh(2 * a * b + a - b)

    x1, x2, x3, x4, x5, x6, x7, x8 = x
    sign = 1 if leaves == "shared" else -1
    return wave(wave(wave(x1, x2), saddle(x3, x4)), saddle(wave(x5, sign * x6), saddle(x7, sign * x8)))


@pytest.mark.parametrize("leaves", ["shared", "distinct"])
def test_the_tree_function_is_the_slides(leaves):
    x = 2 * torch.rand(50, 8, generator=generator(), dtype=torch.float64) - 1
    wanted = torch.tensor([transcribed(row, leaves) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(tree_function(x, leaves=leaves), wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("leaves", ["shared", "distinct"])
def test_every_variable_matters_and_pairs_are_nodes(leaves):
    x = (2 * torch.rand(4000, 8, generator=generator(), dtype=torch.float64) - 1).requires_grad_()
    value = tree_function(x, leaves=leaves)
    assert float(value.detach().std()) > 0.3  # the variance of the inputs (0.58) does not collapse through the tree
    slopes = torch.autograd.grad(value.sum(), x)[0]
    assert float(slopes.square().mean(0).sqrt().min()) > 0.05
    # In a pair the ratio of slopes depends on the pair alone: it is that of the leaf's own slopes.
    context = x.detach().clone()
    context[:, 2:] = 2 * torch.rand(4000, 6, generator=generator(1), dtype=torch.float64) - 1
    context.requires_grad_()
    others = torch.autograd.grad(tree_function(context, leaves=leaves).sum(), context)[0]
    cross = slopes[:, 0] * others[:, 1] - slopes[:, 1] * others[:, 0]
    assert float(cross.abs().max()) < 1e-12
    # Not so for a pair that is no node: x1 and x3.
    context = x.detach().clone()
    context[:, [1, 3, 4, 5, 6, 7]] = context[:, [1, 3, 4, 5, 6, 7]].flip(0)
    context.requires_grad_()
    others = torch.autograd.grad(tree_function(context, leaves=leaves).sum(), context)[0]
    assert float((slopes[:, 0] * others[:, 2] - slopes[:, 2] * others[:, 0]).abs().max()) > 0.1


def test_the_permutation_in_the_name_restores_the_tree():
    data = compositional(500, leaves="distinct", permuted=True, generator=generator(3))
    order = [int(digit) - 1 for digit in re.search(r"columns ([\d ]+)", data.name)[1].split()]
    assert sorted(order) == list(range(8))
    assert order != list(range(8))
    restored = torch.empty_like(data.x)
    restored[:, order] = data.x
    value = tree_function(restored, leaves="distinct")
    torch.testing.assert_close(data.y[:, 0], (value - value.mean()) / value.std(correction=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [compositional, ridge_sum, teacher_student])
def test_regression_targets_are_standardised_before_the_noise(make):
    clean = make(3000, generator=generator()).y
    assert clean.shape == (3000, 1)
    assert abs(float(clean.mean())) < 1e-5  # rounding in single precision
    assert float(clean.square().mean()) == pytest.approx(1, abs=1e-5)
    noise = make(3000, noise=0.5, generator=generator()).y - clean
    # sd of 3,000 numbers: 5 standard errors of 0.5 / sqrt(6,000).
    assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / math.sqrt(6000)


def test_one_ridge_varies_in_one_direction():
    data = ridge_sum(4000, d=3, ridges=1, frequency=2.0, generator=generator())
    # y = a cos(2 u'x + b) + c is linear in products of sines and cosines of 2 u'x; find u by scanning the sphere.
    x, y = data.x.double(), data.y.double()
    best = 1.0
    for theta in torch.linspace(0, math.pi, 60):
        for phi in torch.linspace(0, math.pi, 60):
            u = torch.tensor([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dtype=torch.float64)
            t = 2 * x[:300] @ u
            design = torch.stack([t.cos(), t.sin(), torch.ones_like(t)], 1)
            left = y[:300] - design @ torch.linalg.lstsq(design, y[:300]).solution
            best = min(best, float(left.square().mean() / y[:300].var()))
    # The grid is 0.053 wide, so u is off by 0.04 at most and 2 u'x by 0.08 times |x| <= 1.7: a relative error near 1 %.
    assert best < 0.02


def test_the_teacher_is_right_on_all_but_the_noise():
    clean = teacher_student(4000, classes=3, generator=generator())
    noisy = teacher_student(4000, classes=3, noise=0.3, generator=generator())
    assert torch.equal(clean.x, noisy.x)
    wrong = float((clean.y != noisy.y).double().mean())
    assert abs(wrong - 0.3) < 5 * math.sqrt(0.21 / 4000)
    assert torch.bincount(clean.y, minlength=3).min() > 400  # no class is empty


def test_the_teacher_is_no_linear_function():
    data = teacher_student(4000, d=4, depth=2, generator=generator())
    design = torch.cat([data.x, torch.ones(4000, 1)], 1).double()
    left = data.y.double() - design @ torch.linalg.lstsq(design, data.y.double()).solution
    assert 0.02 < float(left.square().mean()) < 1


def test_without_noise_the_arm_follows_from_radius_and_angle():
    data = spirals(999, arms=3, turns=1.25, noise=0.0, generator=generator())
    x = data.x.double()
    turn = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) - 1.25 * x.norm(dim=1)
    far = x.norm(dim=1) > 0.01  # at the origin the angle is lost to rounding
    assert torch.equal((3 * turn).round().long()[far] % 3, data.y[far])
    # Rounding in single precision, divided by the radius.
    assert float((3 * turn - (3 * turn).round())[far].abs().max()) < 1e-4
    assert torch.bincount(data.y).tolist() == [333, 333, 333]
    assert float(x.norm(dim=1).max()) <= 1 + 1e-6


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"give \(n, 8\)"):
        tree_function(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="width=0"):
        teacher_student(10, width=0)
    with pytest.raises(ValueError, match="a probability"):
        teacher_student(10, classes=3, noise=1.5)
    with pytest.raises(ValueError, match="ridges=0"):
        ridge_sum(10, ridges=0)
