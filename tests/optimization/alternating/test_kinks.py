import numpy as np
import pytest
import torch
from scipy import optimize

from whydeep.optimization.alternating.activation import IDENTITY, SIGMOID, SILU, SOFTPLUS, TANH, rectifier
from whydeep.optimization.alternating.activation_proximal import activation_proximal
from whydeep.optimization.alternating.kinks import hinge_proximal, rectifier_proximal, same_side_proximal

SMOOTH = [SIGMOID, TANH, SOFTPLUS, SILU]


def pairs(n=200, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(3))


def misfit(activation, u, a, b, g):
    s, _ = activation.value_and_slope(u)
    return (s - a).square() / 2 + g / 2 * (u - b).square()


def least_on_a_grid(activation, a, b, g):
    """The least value over a fine grid around everything that matters: u* lies between b and where s(u) = a."""
    grid = torch.linspace(-40, 40, 20_001, dtype=torch.float64)
    return misfit(activation, grid[:, None], a, b, g).amin(0)


@pytest.mark.parametrize("left", [0.0, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("weight", [0.01, 0.5, 2.0, 30.0])
def test_rectifier_step_is_the_global_minimum(weight, left):
    a, b, _ = pairs()
    activation = rectifier(left)
    u = rectifier_proximal(a, b.clone(), weight, left=left)
    # The grid's spacing of 4e-3 overshoots the minimum by at most (1 + g)/2 (2e-3)^2.
    least, slack = least_on_a_grid(activation, a, b, weight), (1 + weight) / 2 * 4e-6
    found = misfit(activation, u, a, b, weight)
    assert bool((found <= least + 1e-12).all())
    assert bool((found >= least - slack - 1e-12).all())


@pytest.mark.parametrize("left", [0.0, 0.3])
@pytest.mark.parametrize("weight", [0.01, 0.5, 30.0])
def test_the_step_on_its_own_side_is_the_minimum_there(weight, left):
    a, b, start = pairs()
    start[:20] = 0  # the kink itself belongs to the left side
    activation = rectifier(left)
    u = same_side_proximal(a, b.clone(), weight, left=left, start=start)
    on_the_right = start > 0
    assert bool((torch.where(on_the_right, u, -u) >= 0).all())
    found = misfit(activation, u, a, b, weight)
    grid = torch.linspace(0, 40, 10_001, dtype=torch.float64)
    slack = (1 + weight) / 2 * 4e-6  # as above
    for side, points in ((on_the_right, grid), (~on_the_right, -grid)):
        least = misfit(activation, points[:, None], a[side], b[side], weight).amin(0)
        assert bool((found[side] <= least + 1e-12).all())
        assert bool((found[side] >= least - slack - 1e-12).all())
    assert bool((found <= misfit(activation, start, a, b, weight) + 1e-12).all())


def published_cases(a, b, g):
    """ReLU by the three cases of the authors' code, for one entry."""
    root = g - np.sqrt(g * (g + 1))
    if a + g * b < 0:
        return min(b, 0.0)
    if b >= 0 or a * root <= g * b:
        return (a + g * b) / (1 + g)
    return b


def test_rectifier_step_is_the_published_one():
    a, b, _ = pairs()
    for g in (0.3, 1.0, 6.0):
        expected = [published_cases(float(p), float(q), g) for p, q in zip(a, b, strict=True)]
        found = rectifier_proximal(a, b.clone(), g)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("a", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("b", [-1.0, 0.0, 1.0])
def test_rectifier_step_at_its_corners(a, b):
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (a, b))
    for activation, left in ((rectifier(), 0.0), (rectifier(0.2), 0.2)):
        u = rectifier_proximal(a, b.clone(), 1.0, left=left)
        least = least_on_a_grid(activation, a, b, 1.0)
        torch.testing.assert_close(misfit(activation, u, a, b, 1.0), least, rtol=0, atol=4e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0, 7.0])
def test_hinge_step_agrees_with_scipy(beta):
    centre, _, _ = pairs(40)
    target = (torch.arange(40) % 2).double()
    found = hinge_proximal(centre, target, beta)
    for v, c, y in zip(found, centre, target, strict=True):
        s = 2 * float(y) - 1

        def value(u, s=s, c=float(c)):
            return max(0.0, 1 - s * u) + beta / 2 * (u - c) ** 2

        best = optimize.minimize_scalar(value, bounds=(-30, 30), method="bounded", options={"xatol": 1e-9})
        # A function value is known to 1e-16, its place by the square root of that.
        assert float(v) == pytest.approx(best.x, abs=1e-6)


@pytest.mark.parametrize("activation", SMOOTH, ids=lambda a: a.name)
@pytest.mark.parametrize("weight", [0.05, 1.0, 6.0])
def test_smooth_step_is_stationary_and_never_higher_than_its_start(activation, weight):
    a, b, start = pairs()
    u = activation_proximal(activation, a, centre=b.clone(), weight=weight, start=start.clone())
    before, after = misfit(activation, start, a, b, weight), misfit(activation, u, a, b, weight)
    assert bool((after <= before * (1 + 1e-13)).all())
    s, slope = activation.value_and_slope(u)
    gradient = ((s - a) * slope + weight * (u - b)).abs()
    # Where the function bends down steps may be short: an entry or two may want more than 24 of them.
    assert float((gradient <= 1e-9).double().mean()) >= 0.98


@pytest.mark.parametrize("activation", [SIGMOID, TANH], ids=lambda a: a.name)
def test_smooth_step_is_the_minimum_where_the_function_is_convex(activation):
    # sigmoid: -(s - a) s'' <= 0.0963 (1 + 6); tanh: 0.77 (1 + 6) = 5.4: below 6 for every |a| <= 6.
    a, b, start = pairs()
    a = a.clamp(-6, 6)
    u = activation_proximal(activation, a, centre=b.clone(), weight=6.0, start=start.clone())
    found, least = misfit(activation, u, a, b, 6.0), least_on_a_grid(activation, a, b, 6.0)
    assert bool((found <= least + 1e-12).all())
    assert bool((found >= least - 12 / 2 * 4e-6).all())


def test_the_identity_has_a_closed_form():
    a, b, start = pairs()
    u = activation_proximal(IDENTITY, a, centre=b.clone(), weight=2.0, start=start)
    torch.testing.assert_close(u, (a + 2 * b) / 3, rtol=1e-14, atol=1e-14)


def test_a_state_that_is_not_finite_is_an_arithmetic_error():
    a = torch.tensor([torch.inf])
    with pytest.raises(ArithmeticError, match="not finite"):
        activation_proximal(TANH, a, centre=torch.zeros(1), weight=1.0, start=torch.zeros(1))
