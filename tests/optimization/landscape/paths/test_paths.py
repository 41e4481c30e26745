"""Barriers of straight lines against barriers computed by hand."""

from __future__ import annotations

import pytest
import torch
from problems import blobs, small_problem
from torch import Tensor, nn

from whydeep.core import Data, Problem
from whydeep.networks import linear, mlp
from whydeep.optimization.landscape.paths.path import path, straight


class Product(nn.Module):
    """x -> a b x, two weights: the smallest network with a symmetry."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([a, b], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.prod() * x


def one(x: float = 1.0, y: float = 1.0) -> Data:
    return Data(torch.tensor([[x]]).double(), torch.tensor([[y]]).double())


def test_two_solutions_that_differ_by_a_sign_are_parted_by_a_barrier_of_one_half() -> None:
    # R(a, b) = 1/2 (a b - 1)^2 is zero at (1, 1) and (-1, -1). On the line a = b = 1 - 2t it is 1/2 ((1-2t)^2 - 1)^2,
    # with its maximum 1/2 at t = 1/2, where both weights vanish.
    profile = straight(Problem(Product(1, 1), one(), loss="squared"), Product(-1, -1))
    assert profile.barrier.value == pytest.approx(0.5, abs=1e-12)
    assert profile.summit == 0.5
    t = profile.positions
    torch.testing.assert_close(profile.risk, 0.5 * ((1 - 2 * t).square() - 1).square())
    assert profile.error is None


def test_the_maximum_is_refined_where_the_grid_misses_it() -> None:
    # From (1, 1) to (-2, -1/2): product f = (1 - 3t)(1 - 1.5t), both ends at 1. On [0, 1] (f - 1)^2 is largest where
    # f is smallest, at t = 1/2: f = -1/8, risk (9/8)^2 / 2 = 0.6328; five points hit it, four need the refinement.
    problem = Problem(Product(1, 1), one(), loss="squared")
    coarse = straight(problem, Product(-2, -0.5), points=4, refinements=0)
    fine = straight(problem, Product(-2, -0.5), points=4, refinements=8)
    assert coarse.barrier.value < 0.62
    assert fine.barrier.value == pytest.approx(81 / 128, abs=1e-4)  # flat at the top: error of order (1/768)^2
    assert fine.summit == pytest.approx(0.5, abs=2e-3)


def test_a_convex_risk_has_no_barrier_and_its_profile_is_the_parabola() -> None:
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(linear(2, 1).double(), Data(x, x.sum(1, keepdim=True)), loss="squared")
    a = problem.at(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    b = problem.at(torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    profile = straight(a, b.model)
    assert profile.barrier.value == profile.barrier.low == profile.barrier.high == 0
    residual = x @ torch.tensor([2.0, -2.0]).double() + 0.5  # at the far end, zero at the near one
    expected = 0.5 * residual.square().mean() * profile.positions.square()
    torch.testing.assert_close(profile.risk, expected, rtol=1e-10, atol=1e-14)


def test_a_permutation_of_hidden_units_has_the_same_risk_and_a_barrier() -> None:
    # relu(x) - relu(-x) = x. Units exchanged: half-way both units are 0 * x, the output is 0, the risk 1/2 mean x^2.
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    x = torch.tensor([[-2.0], [1.0]]).double()
    problem = Problem(model, Data(x, x), loss="squared")
    a = problem.at(torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64))
    b = problem.at(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    profile = straight(a, b.model)
    assert float(profile.risk[0]) == float(profile.risk[-1]) == 0
    assert profile.barrier.value == pytest.approx((4 + 1) / 4, abs=1e-12)
    # The interval is Student's over the two samples' excesses 2 and 1/2: t(0.975, 1) = 12.706, s/sqrt(2) = 0.75.
    assert profile.barrier.high == pytest.approx(1.25 + 12.706 * 0.75, rel=1e-4)


def test_the_ends_are_the_two_networks_and_neither_is_changed() -> None:
    problem = small_problem(dtype=torch.float64)
    other = mlp((3, 5, 4, 3), activation="tanh", init="he", generator=torch.Generator().manual_seed(9)).double()
    before = [value.clone() for value in (*problem.model.parameters(), *other.parameters())]
    profile = straight(problem, other, data=problem.test)
    assert float(profile.risk[0]) == pytest.approx(problem.risk(problem.test), rel=1e-12)
    assert float(profile.risk[-1]) == pytest.approx(problem.with_model(other).risk(problem.test), rel=1e-12)
    assert profile.error is not None
    assert profile.error.shape == profile.positions.shape
    after = (*problem.model.parameters(), *other.parameters())
    assert all(torch.equal(value, old) for value, old in zip(after, before, strict=True))


def test_batch_norm_gets_new_statistics_along_the_line() -> None:
    def net(scale: float) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(model[0].weight)
            nn.init.normal_(model[2].weight)
        with torch.no_grad():
            model[0].weight.mul_(scale)
            model[0].bias.zero_()
            model[2].bias.zero_()
        model(blobs(dtype=torch.float64).x)
        return model

    # Batch norm undoes the scale of the layer before it: with fresh statistics the line from scale 1 to scale -1/2
    # keeps the risk R(1) up to t = 2/3, where the layer vanishes, and beyond it has R(-1); eps = 1e-5 is negligible.
    problem = Problem(net(1.0), blobs(dtype=torch.float64))
    fresh = straight(problem, net(-0.5), refinements=0)
    assert float(fresh.risk[3]) == pytest.approx(float(fresh.risk[0]), rel=1e-3)
    assert float(fresh.risk[9]) == pytest.approx(float(fresh.risk[-1]), rel=1e-3)
    kept = straight(problem, net(-0.5), refinements=0, recompute_statistics=False)
    assert abs(float(kept.risk[3] / kept.risk[0]) - 1) > 0.01
    assert problem.model[1].momentum == 0.1
    assert problem.model.training


def test_networks_of_different_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"3.weight has shape \(4, 5\) in the first and \(4, 6\) in the second|1.weight has shape"
    ):
        straight(small_problem(), mlp((3, 6, 4, 3), activation="tanh"))
    with pytest.raises(ValueError, match="give at least 3"):
        straight(small_problem(), small_problem().model, points=2)


@pytest.mark.parametrize("points", [0, 1, 2])
@pytest.mark.parametrize("method", ["line", "permute", "bezier", "relu"])
def test_a_leg_is_looked_at_between_its_ends(method: str, points: int) -> None:
    model = mlp((3, 5, 3), activation="relu")
    options = {"steps": 1} if method == "bezier" else {}
    with pytest.raises(ValueError, match=f"points={points}; give at least 3"):
        path(Problem(model, blobs()), model, model, method=method, points=points, **options)  # type: ignore[arg-type]
