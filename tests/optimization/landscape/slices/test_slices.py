"""Slices and surfaces of the risk against quadratics known by hand, and against one evaluation after another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dense_hessian import dense
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import cnn, linear, mlp
from whydeep.optimization.landscape.slices import offsets as offsets_module
from whydeep.optimization.landscape.slices.line import line_slice, rise
from whydeep.optimization.landscape.slices.plane import (
    Plane,
    eigenvector_plane,
    filter_normalised,
    random_direction,
    random_plane,
    trajectory_plane,
)
from whydeep.optimization.landscape.slices.surface import Surface, curvature_map, surface
from whydeep.optimization.landscape.spectra.hessian import Hessian
from whydeep.optimization.landscape.spectra.spectrum import spectrum


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic() -> Problem:
    """R(w1, w2) = 1/2 mean over x = (1, 0), (0, 2) of (w x)^2 = (w1^2 + 4 w2^2) / 4, at w = (1, -1)."""
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    return Problem(model, Data(x, torch.zeros(2, 1, dtype=torch.float64)), loss="squared").at(
        torch.tensor([1.0, -1.0], dtype=torch.float64)
    )


def unit_plane(problem: Problem) -> Plane:
    one, two = torch.eye(2, dtype=torch.float64)
    return Plane(problem.vector(), one, two, ("w1", "w2"))


def test_a_small_step_rises_by_slope_and_curvature() -> None:
    problem = small_problem(dtype=torch.float64)
    v = torch.randn(len(problem.vector()), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit, step = v / v.norm(), 1e-3
    slope, curvature = float(problem.gradient() @ unit), float(unit @ Hessian(problem)(unit))
    both = [float(rise(problem, v, sign * step).mean()) for sign in (1, -1)]
    # Third derivatives leave errors of order step^3 in the odd and step^4 in the even part.
    assert (both[0] - both[1]) / 2 == pytest.approx(slope * step, rel=1e-5)
    assert (both[0] + both[1]) / 2 == pytest.approx(curvature * step**2 / 2, rel=1e-4)


def test_a_direction_of_length_zero_is_refused() -> None:
    problem = small_problem()
    with pytest.raises(ValueError, match="length 0"):
        rise(problem, torch.zeros(len(problem.vector())), 1.0)


def test_the_surface_of_a_quadratic_is_its_formula() -> None:
    problem = quadratic()
    seen = surface(problem, unit_plane(problem), extent=2.0, points=9)
    a, b = torch.meshgrid(seen.a, seen.b, indexing="ij")
    torch.testing.assert_close(seen.values, ((1 + a) ** 2 + 4 * (b - 1) ** 2) / 4)
    largest, smallest = curvature_map(problem, unit_plane(problem), points=3)
    torch.testing.assert_close(largest.values, torch.full((3, 3), 2.0, dtype=torch.float64))
    torch.testing.assert_close(smallest.values, torch.full((3, 3), 0.5, dtype=torch.float64))


def test_the_curvature_map_agrees_with_the_dense_hessian_off_the_centre() -> None:
    problem = small_problem(dtype=torch.float64)
    plane = random_plane(problem)
    largest, smallest = curvature_map(problem, plane, extent=0.5, points=2, steps=30)
    for i, a in enumerate(largest.a):
        for j, b in enumerate(largest.b):
            truth = torch.linalg.eigvalsh(dense(problem.at(plane.centre + a * plane.first + b * plane.second)))
            assert float(largest.values[i, j]) == pytest.approx(float(truth[-1]), rel=1e-8)
            assert float(smallest.values[i, j]) == pytest.approx(float(truth[0]), abs=1e-8)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_points_taken_together_are_those_taken_one_by_one(batch_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cnn((1, 8, 8), 10, channels=(3,), batch_norm=batch_norm).double()
    problem = Problem(model, digits(30, dtype=torch.float64)[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    direction = random_direction(problem)
    positions = torch.linspace(-1, 1, 21, dtype=torch.float64)
    together = line_slice(problem, direction, positions=positions).risk
    alone = [problem.at(problem.vector() + t * direction).risk() for t in positions]
    torch.testing.assert_close(together, torch.tensor(alone, dtype=torch.float64), rtol=1e-10, atol=0)
    monkeypatch.setattr(offsets_module, "AT_ONCE", 1)
    torch.testing.assert_close(line_slice(problem, direction, positions=positions).risk, together, rtol=1e-10, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


class Rounded(nn.Module):
    """Looks at its own numbers, which vmap cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (2.0 if float(self.layer.weight.sum()) > 1e9 else 1.0)


def test_layers_that_vmap_does_not_know_are_taken_one_by_one() -> None:
    problem = Problem(Rounded(), blobs(dtype=torch.float64))
    direction = random_direction(problem)
    seen = line_slice(problem, direction, positions=[0.0, 1.0])
    assert float(seen.risk[0]) == pytest.approx(problem.risk(), rel=1e-12)
    assert float(seen.risk[1]) == pytest.approx(problem.at(problem.vector() + direction).risk(), rel=1e-12)


def test_batch_norm_takes_its_statistics_anew_where_asked() -> None:
    # Without a bias before it, batch norm removes any scale of the layer before: w (1 + t) is the same function.
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-12), nn.Tanh(), nn.Linear(4, 3)).double()
    problem = Problem(model, blobs(dtype=torch.float64))
    direction = torch.zeros_like(problem.vector())
    direction[:16] = problem.vector()[:16]
    anew = line_slice(problem, direction, positions=[0.0, 1.0, 3.0], recompute_statistics=True).risk
    torch.testing.assert_close(anew, anew[:1].expand(3), rtol=1e-9, atol=0)
    frozen = line_slice(problem, direction, positions=[0.0, 1.0, 3.0]).risk
    assert abs(float(frozen[2] - frozen[0])) > 1e-3


def test_a_point_where_the_risk_is_not_finite_is_infinite() -> None:
    problem = quadratic()
    assert float(line_slice(problem, torch.tensor([1e200, 0.0], dtype=torch.float64), positions=[1e100]).risk) == float(
        "inf"
    )


def test_filters_get_the_length_of_the_networks_and_rescaling_changes_nothing() -> None:
    problem = small_problem(dtype=torch.float64)
    direction = random_direction(problem)
    assert float(direction[15:20].abs().max()) == 0, "the first bias"
    torch.testing.assert_close(direction[:15].view(5, 3).norm(dim=1), problem.vector()[:15].view(5, 3).norm(dim=1))
    # ReLU: 3 times the first layer and 1/3 of the next is the same function, and the same slice of it.
    relu = small_problem("relu", dtype=torch.float64)
    scaled = relu.vector()
    scaled[:20] *= 3
    scaled[20:40] /= 3
    other = relu.at(scaled)
    draw = normal(59, seed=4)
    first = line_slice(relu, filter_normalised(relu, draw), positions=[0.3, 0.7]).risk
    again = line_slice(other, filter_normalised(other, draw), positions=[0.3, 0.7]).risk
    torch.testing.assert_close(first, again, rtol=1e-10, atol=0)


def test_directions_that_lead_nowhere_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3))
    problem = Problem(model, Data(torch.rand(5, 3), torch.rand(5, 3)), loss="squared")
    with pytest.raises(InputError, match="no trainable weight has filters"):
        random_direction(problem)
    zero = Problem(linear(3, 3), blobs()).at(torch.zeros(12))
    with pytest.raises(InputError, match="length above 0"):
        random_direction(zero)


def test_the_plane_of_a_trajectory_holds_it() -> None:
    problem = quadratic()
    big = small_problem(dtype=torch.float64)
    one, two = normal(59, seed=1), normal(59, seed=2)
    weights = [big.vector() + a * one + b * two for a, b in ((3, 1), (2, -1), (1, 1), (0.5, 0.0), (0, 0))]
    plane = trajectory_plane(big, weights)
    assert plane.trajectory is not None
    assert plane.explained is not None
    assert sum(plane.explained) == pytest.approx(1, abs=1e-12)
    assert plane.explained[0] > plane.explained[1]
    torch.testing.assert_close(plane.centre + plane.trajectory @ plane.directions, torch.stack(weights))
    seen = surface(big, plane, points=5)
    assert float(seen.a[0]) < float(plane.trajectory[:, 0].min())
    assert float(seen.b[-1]) > float(plane.trajectory[:, 1].max())
    # A third dimension is left over: its part is one minus the two that are explained.
    outside = trajectory_plane(big, [*weights, big.vector() + 2 * normal(59, seed=3)])
    assert outside.explained is not None
    steps = torch.stack([*weights, big.vector() + 2 * normal(59, seed=3)]) - big.vector()
    lost = float((steps - steps @ outside.directions.T @ outside.directions).square().sum() / steps.square().sum())
    assert sum(outside.explained) == pytest.approx(1 - lost, abs=1e-10)
    with pytest.raises(InputError, match="do not span a plane"):
        trajectory_plane(problem, [problem.vector()])
    with pytest.raises(InputError, match="do not span a plane"):
        trajectory_plane(big, [])
    with pytest.raises(InputError, match=r"shape \(3,\) and the network 59"):
        trajectory_plane(big, [normal(3)])
    with pytest.raises(ValueError, match=r"shape \(3,\); the network has 59"):
        line_slice(big, normal(3))


def test_the_plane_of_eigenvectors_has_their_curvatures() -> None:
    problem = small_problem(dtype=torch.float64)
    seen = spectrum(problem)
    plane = eigenvector_plane(problem, seen)
    h = 1e-3
    values = surface(problem, plane, extent=h, points=3).values
    second = [values[2, 1] - 2 * values[1, 1] + values[0, 1], values[1, 2] - 2 * values[1, 1] + values[1, 0]]
    # Second differences: error of order h^2 and rounding 1e-16 / h^2, both below 1e-5.
    assert float(second[0]) / h**2 == pytest.approx(seen.largest, abs=1e-5)
    assert float(second[1]) / h**2 == pytest.approx(seen.smallest, abs=1e-5)


def test_a_surface_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = quadratic()
    plane, file = unit_plane(problem), tmp_path / "surface.npz"
    whole = surface(problem, plane, points=9)
    first = surface(problem, plane, points=9, store=file, callback=lambda progress: progress.done >= 40)
    missing = int(torch.isnan(first.values).sum())
    assert 0 < missing < 81 - 39
    passes = []
    original = offsets_module._together

    def counted(*arguments: object) -> Tensor:
        passes.append(len(arguments[3]))  # type: ignore[arg-type]
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(offsets_module, "_together", counted)
    again = surface(problem, plane, points=9, store=file)
    assert sum(passes) == missing
    torch.testing.assert_close(again.values, whole.values)
    with pytest.raises(InputError, match="another network"):
        surface(problem.at(problem.vector() + 1), plane, points=9, store=file)
    with pytest.raises(ValueError, match="at least 2 points"):
        surface(problem, plane, points=1)


def test_level_lines_lie_at_their_level() -> None:
    problem = quadratic().at(torch.zeros(2, dtype=torch.float64))
    seen = surface(problem, unit_plane(problem), extent=1.0, points=41)
    curve = seen.curve()
    level, line = seen.levels()[2], curve.lines[2]
    x, y = np.array(line.x), np.array(line.y)
    inside = np.isfinite(x)
    # Linear interpolation between points 0.05 apart: error of at most curvature 2 times .05^2 / 8.
    assert np.abs((x[inside] ** 2 + 4 * y[inside] ** 2) / 4 - level).max() < 1e-3
    assert curve.lines[-1].label == "solution"
    axes = seen.plot()
    assert axes.get_xlabel() == "w1"
    assert line_slice(problem, plane_first(problem)).plot().get_ylabel() == "risk"


def plane_first(problem: Problem) -> Tensor:
    return unit_plane(problem).first


def test_a_flat_surface_has_no_level_lines() -> None:
    problem = Problem(
        linear(2, 1).double(), Data(torch.zeros(3, 2).double(), torch.zeros(3, 1).double()), loss="squared"
    )
    plane = Plane(problem.vector(), normal(3) * 0, normal(3) * 0, ("a", "b"))
    seen = surface(problem, plane, points=3)
    assert [line.label for line in seen.curve().lines] == ["solution"]
    seen.plot()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_directions_and_positions_that_are_not_finite_are_refused(bad: float) -> None:
    problem = quadratic()
    fine, wrong = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, bad]).double()
    with pytest.raises(InputError, match="directions holds NaN or inf"):
        line_slice(problem, wrong)
    with pytest.raises(InputError, match="positions holds NaN or inf"):
        line_slice(problem, fine, positions=[0.0, bad])
    with pytest.raises(InputError, match="direction holds NaN or inf"):
        rise(problem, wrong, 1.0)
    with pytest.raises(InputError, match="step holds NaN or inf"):
        rise(problem, fine, bad)
    plane = Plane(problem.vector(), fine, wrong, ("a", "b"))
    for look in (surface, curvature_map):
        with pytest.raises(InputError, match="directions holds NaN or inf"):
            look(problem, plane, points=2)


def test_no_point_is_no_slice() -> None:
    problem = quadratic()
    with pytest.raises(ValueError, match="positions is empty"):
        line_slice(problem, torch.ones(2).double(), positions=[])
    plane = random_plane(problem)
    for look in (surface, curvature_map):
        for wrong in ({"points": 0}, {"points": 1}, {"extent": 0.0}, {"extent": float("inf")}):
            with pytest.raises(ValueError, match="at least 2 points and a finite extent above 0"):
                look(problem, plane, **wrong)  # type: ignore[arg-type]


def test_directions_are_unrelated_to_a_network_of_the_same_seed() -> None:
    # Drawn from one seed one after the other, weights and direction would be the same numbers in another scale.
    model = mlp((64, 100, 10), init="he", generator=torch.Generator().manual_seed(0))
    problem = Problem(model, digits(4)[0])
    weights = filter_normalised(problem, problem.vector())
    plane = random_plane(problem, generator=torch.Generator().manual_seed(0))
    for direction in (random_direction(problem), *plane.directions):
        cosine = float(weights @ direction / weights.norm() / direction.norm())
        # A random cosine has standard deviation 1/sqrt(7,400) = .012 (filters are weighted alike): 4.5 of them.
        assert abs(cosine) < 4.5 / 7400**0.5
    assert abs(float(plane.first @ plane.second / plane.first.norm() / plane.second.norm())) < 4.5 / 7400**0.5


def test_level_lines_of_curvature_lie_at_equal_distances() -> None:
    problem = quadratic()
    values = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    seen = Surface(unit_plane(problem), ends, ends, values, quantity="largest curvature")
    assert seen.levels(5) == [1, 2, 3, 4, 5]
    assert seen.plot().get_title(loc="left") == "Largest curvature around the solution"
    # Of the risk they are closer below, and end at the median, the lower of the two in the middle.
    risk = Surface(unit_plane(problem), ends, ends, values)
    assert risk.levels(2) == [0.25, 1.0]
