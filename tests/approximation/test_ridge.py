import pytest
import torch
from scipy.interpolate import BSpline

from whydeep.approximation.ridge import Profiles, ridge_sum
from whydeep.core import Data, Problem
from whydeep.optimization import Backprop

LBFGS = Backprop(
    torch.optim.LBFGS,
    lr=1.0,
    epochs=15,
    batch_size=None,
    options={"max_iter": 20, "line_search_fn": "strong_wolfe"},
)


def test_a_profile_is_a_line_plus_cubic_b_splines() -> None:
    profile = Profiles(1, 1, 9).double()
    weight = torch.randn(1, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        profile.weight.copy_(weight)
        profile.bias.fill_(0.5)
    t = torch.linspace(-6, 6, 301, dtype=torch.float64)
    h = 6 / 8
    expected = 0.5 + weight[0, 0] * t
    for j in range(9):  # SciPy's own B-spline on five equidistant knots around -3 + j h
        spline = BSpline.basis_element([-3 + (j + k) * h for k in (-2, -1, 0, 1, 2)], extrapolate=False)
        expected = expected + weight[0, 1 + j] * torch.from_numpy(spline(t.numpy())).nan_to_num(0.0)
    assert torch.allclose(profile(t[:, None])[:, 0], expected, atol=1e-12)  # rounding of (2 - s)^3


def product_data(n: int, seed: int) -> Data:
    """x1 x2 = ((x1 + x2)^2 - (x1 - x2)^2) / 4: a sum of two ridge functions, oblique to the axes."""
    x = torch.rand(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return Data(x, x[:, :1] * x[:, 1:2])


def test_two_ridges_are_a_product_and_one_is_not() -> None:
    train, test = product_data(600, 0), product_data(600, 1)
    assert test.targets.var() > 0.1  # 1/9 in expectation, so a risk of 1/18 explains nothing
    risks = []
    for ridges in (1, 2):
        model = ridge_sum(train, ridges=ridges, generator=torch.Generator().manual_seed(0))
        trained = LBFGS.train(Problem(model, train, test, loss="squared"))
        risks.append(Problem(trained.model, train, test, loss="squared").risk(test))
    # Two ridges can represent it up to the spline (quadratics exactly inside the knots); one can at best be constant
    # along a plane, and explains at most half of the variance of x1 x2.
    assert risks[1] < 0.002 < 0.02 < risks[0]


def test_projections_start_standardised_and_constant_inputs_do_no_harm() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    x[:, 2] = 7.0
    data = Data(x, torch.arange(50) % 3, classes=3)
    model = ridge_sum(data, ridges=5)
    projections = model[1](model[0](x))
    assert projections.mean(0).abs().max() < 1e-4  # single precision
    assert torch.allclose(projections.square().mean(0), torch.ones(5), atol=1e-4)
    assert sum(p.numel() for p in model.parameters()) == 5 * (4 + 1) + 3 * (5 * 10 + 1)
    one = ridge_sum(data.take(torch.tensor([0])))  # one sample: no spread at all
    assert torch.isfinite(one(x)).all()


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    data = Data(torch.rand(20, 3), torch.arange(20) % 2, classes=2)
    before = torch.get_rng_state()
    first, second = (ridge_sum(data, generator=torch.Generator().manual_seed(s))[1].weight for s in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, ridge_sum(data, generator=torch.Generator().manual_seed(2))[1].weight)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="at least 1 ridge"):
        ridge_sum(data, ridges=0)
