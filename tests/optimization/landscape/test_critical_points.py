"""Searches for critical points: on known landscapes, and honest where there is none."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from problems import small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import mlp
from whydeep.optimization.landscape.climbing import climb
from whydeep.optimization.landscape.critical_points import WALKS, SearchEnd, find_critical_point
from whydeep.optimization.landscape.dense_hessian import dense_hessian
from whydeep.optimization.landscape.linear_model import LinearModel
from whydeep.optimization.landscape.solvable import linear_networks
from whydeep.optimization.landscape.spectra.hessian import Hessian


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Scalar(nn.Module):
    """A model whose output for every sample is a function of its weights alone: the risk is that function."""

    def __init__(self, function: str, start: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(start.clone())

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        value = {
            "cubic": lambda: w[0] ** 3 / 3 + w[0] + w[1] ** 2,
            "saddle": lambda: w[0] ** 2 - w[1] ** 2 + w[1] ** 4 / 4,
            "flat": lambda: w[0] ** 2 + 0 * w[1],
            "linear": lambda: w[0] + 2 * w[1],
            "quartic": lambda: w[0] ** 4 / 4 + w[1] ** 2,
            "tail": lambda: torch.exp(-w[0]) + w[1] ** 2,
        }[self.function]()
        return value.expand(len(x), 1)


def risk_is(function: str, *start: float) -> Problem:
    def output_itself(output: Tensor, _target: Tensor) -> Tensor:
        return output[:, 0]

    model = Scalar(function, torch.tensor(start, dtype=torch.float64))
    x = torch.zeros(3, 1, dtype=torch.float64)
    return Problem(model, Data(x, x), loss=output_itself)


@pytest.mark.parametrize("dense_limit", [1000, 0], ids=["dense", "krylov"])
def test_it_finds_every_saddle_of_a_linear_network_with_its_index(dense_limit: int) -> None:
    x = draw(30, 4, seed=1)
    y = x @ draw(4, 3, seed=2) + 0.3 * draw(30, 3, seed=3)
    for number, point in enumerate(linear_networks.critical_points(x, y, 2)):
        model = mlp((4, 2, 3), activation="identity", generator=torch.Generator().manual_seed(0)).double()
        for layer, weight in zip((model[1], model[3]), point.weights, strict=True):
            layer.bias = None
            layer.weight = nn.Parameter(weight + 0.01 * draw(*weight.shape, seed=number))
        found = find_critical_point(Problem(model, Data(x, y), loss="squared"), dense_limit=dense_limit)
        assert found.critical, found.sentence
        assert found.gradient_norm <= 1e-8
        assert found.energy == pytest.approx(point.risk, abs=1e-7)
        if dense_limit:
            assert found.index == pytest.approx(point.index / 14, abs=1e-12)
        else:
            assert found.index is None
            assert "was not computed" in found.sentence


def test_a_gradient_flat_point_is_not_called_critical() -> None:
    # R = a^3/3 + a + b^2: |g|^2 = (a^2 + 1)^2 + 4 b^2 is least, 1, at zero, where H = diag(0, 2) and H g = 0; there is
    # no critical point at all.
    found = find_critical_point(risk_is("cubic", 1.5, 0.5))
    assert found.kind == "gradient-flat"
    assert not found.critical
    assert found.index is None
    assert found.gradient_norm == pytest.approx(1, abs=1e-3)
    assert found.flatness < 1e-2
    assert "No critical point" in found.sentence


def test_a_gradient_that_vanishes_at_infinity_only_is_no_critical_point() -> None:
    # R = exp(-a) + b^2 has none; at a = 19 the gradient is below 1e-8, and Newton's step -H^-1 g has length 1 wherever.
    found = find_critical_point(risk_is("tail", 1.0, 0.5))
    assert found.gradient_norm <= 1e-8
    assert found.kind == "far"
    assert not found.critical
    assert found.index is None
    assert found.distance == pytest.approx(1, rel=1e-3)
    assert "ended far from a zero" in found.sentence
    assert "Newton's next step has length 1" in found.sentence


def test_a_zero_of_third_order_is_near_enough() -> None:
    # R = a^4/4 + b^2: g = a^3, so that a = 2e-3 where |g| = 1e-8, and Newton's step is a/3.
    found = find_critical_point(risk_is("quartic", 0.7, -0.5))
    assert found.critical
    assert found.index == 0
    assert found.distance == pytest.approx(abs(float(found.vector[0])) / 3, rel=1e-3)


def tiny(seed: int, activation: str = "tanh") -> Problem:
    """3-4-2 on 60 samples of pure noise: 26 weights for 120 residuals."""
    model = mlp((3, 4, 2), activation=activation, init="xavier", generator=torch.Generator().manual_seed(seed)).double()
    return Problem(model, Data(draw(60, 3, seed=1000 + seed), draw(60, 2, seed=2000 + seed)), loss="squared")


def check_critical(problem: Problem, found: SearchEnd) -> None:
    """By routes of their own: the gradient from one backward pass, the index from products with unit vectors."""
    here = problem.at(found.vector)
    assert float(here.gradient().norm()) <= 1e-8
    hessian = Hessian(here)
    values = torch.linalg.eigvalsh(torch.stack([hessian(unit) for unit in torch.eye(26, dtype=torch.float64)]))
    assert found.index == int((values < -1e-7 * float(values.abs().max())).sum()) / 26
    step = torch.linalg.lstsq(hessian(torch.eye(26, dtype=torch.float64)), -here.gradient()[:, None]).solution
    assert float(step.norm()) <= 1e-2 * float(problem.vector().norm()), "the zero is near"


def test_a_search_that_ends_gradient_flat_is_begun_anew() -> None:
    problem = tiny(1)
    alone = find_critical_point(problem, most=100, walks=0)
    assert not alone.critical
    assert alone.walks == 0
    found = find_critical_point(problem, most=100)
    assert found.critical, found.sentence
    assert 1 <= found.walks <= len(WALKS)
    assert f"A critical point on walk {found.walks} from the start" in found.sentence
    assert found.steps > alone.steps
    check_critical(problem, found)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_small_smooth_networks_reach_critical_points(activation: str) -> None:
    for seed in range(6):
        found = find_critical_point(tiny(seed, activation))
        assert found.critical, f"{seed}: {found.sentence}"
        check_critical(tiny(seed, activation), found)


def test_it_goes_to_the_saddle_and_counts_one_way_down() -> None:
    # R = a^2 - b^2 + b^4/4 near 0: eigenvalues 2 and -2; descent on R would leave for b = +-sqrt(2).
    found = find_critical_point(risk_is("saddle", 0.3, 0.1))
    assert found.critical
    assert found.index == 0.5
    assert found.energy == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(found.curvatures, torch.tensor([-2.0, 2.0], dtype=torch.float64))


def test_flat_directions_are_zero_and_not_negative() -> None:
    found = find_critical_point(risk_is("flat", 1.0, 2.0))
    assert found.index == 0
    assert "0 of 2 curvatures below zero, 1 zero" in found.sentence
    torch.testing.assert_close(found.vector, torch.tensor([0.0, 2.0], dtype=torch.float64), rtol=0, atol=1e-8)


def test_a_slope_without_curvature_ends_gradient_flat() -> None:
    found = find_critical_point(risk_is("linear", 1.0, 2.0))
    assert found.kind == "gradient-flat"
    assert found.gradient_norm == pytest.approx(5**0.5)
    assert find_critical_point(risk_is("linear", 1.0, 2.0), dense_limit=0).kind == "gradient-flat"


def test_an_unfinished_search_says_what_to_raise() -> None:
    problem = small_problem(dtype=torch.float64)
    short = find_critical_point(problem, most=1, walks=0)
    assert short.kind == "unfinished"
    assert "more steps (most) may end it" in short.sentence
    # A tolerance that lets this pass brings no zero nearer.
    loose = find_critical_point(problem, most=1, walks=0, tolerance=1.01 * short.gradient_norm)
    assert loose.kind == "far"
    assert "a smaller tolerance searches on" in loose.sentence


def test_a_start_that_is_critical_stays() -> None:
    found = find_critical_point(risk_is("saddle", 0.0, 0.0))
    assert found.critical
    assert found.steps == 0
    assert found.flatness == 0


def test_the_gradient_never_grows() -> None:
    problem = small_problem(dtype=torch.float64)
    lengths = [find_critical_point(problem, most=most, walks=0).gradient_norm for most in (1, 3, 10, 30)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] < float(problem.gradient().norm())


@pytest.mark.parametrize("batch_size", [10_000, 7])
def test_the_dense_hessian_is_that_of_the_products(batch_size: int) -> None:
    problem = small_problem(dtype=torch.float64)
    if batch_size == 10_000:  # 59 rows, 2^17/3600 = 36 at a time: two pieces
        x, y = problem.train.in_memory().x, problem.train.targets
        problem = dataclasses.replace(problem, train=Data(x.repeat(60, 1), y.repeat(60), classes=3))
    hessian = Hessian(problem)
    columns = torch.stack([hessian(unit) for unit in torch.eye(hessian.size, dtype=torch.float64)])
    torch.testing.assert_close(dense_hessian(problem, batch_size=batch_size), columns, rtol=1e-9, atol=1e-12)


class Attention(nn.Module):
    """A transformer layer and a linear one, with dropout that must stay off."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.encoder(x[:, 0]).mean(1))


@pytest.mark.parametrize("kind", ["attention", "convolution"])
def test_any_network_can_be_searched(kind: str) -> None:
    x = draw(10, 1, 4, 4).float()
    data = Data(x, torch.arange(10) % 3, classes=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        )
        problem = Problem(Attention() if kind == "attention" else convolution, data)
    found = find_critical_point(problem, most=2, walks=0)
    assert found.steps == 2
    assert found.gradient_norm < float(problem.gradient().norm())
    assert found.vector.shape == problem.vector().shape


@pytest.mark.parametrize("damping", [0.0, 1e-3, 1.0])
def test_the_krylov_step_is_the_dense_one_on_the_whole_space(damping: float) -> None:
    matrix = draw(12, 12)
    matrix = matrix + matrix.T
    gradient = draw(12, seed=5)
    one, left = LinearModel.dense(matrix, gradient).least(damping)
    two, also = LinearModel.krylov(lambda v: matrix @ v, gradient, 12).least(damping)
    # Normal equations solved directly: (H^2 + damping |H|^2) p = -H g.
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    direct = -torch.linalg.solve(
        matrix @ matrix + damping * norm**2 * torch.eye(12, dtype=torch.float64), matrix @ gradient
    )
    torch.testing.assert_close(one, direct, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(two, direct, rtol=1e-7, atol=1e-9)
    expected = float((matrix @ direct + gradient).norm())
    assert left == pytest.approx(expected, abs=1e-7)
    assert also == pytest.approx(expected, abs=1e-7)


def test_the_users_network_is_left_alone() -> None:
    problem = small_problem("tanh")  # float32: the search runs on a copy in float64
    before = copy.deepcopy(problem.model.state_dict())
    modes = [module.training for module in problem.model.modules()]
    state = torch.random.get_rng_state()
    found = find_critical_point(problem, most=3)
    assert found.vector.dtype == torch.float64
    torch.testing.assert_close(dict(problem.model.state_dict()), dict(before), rtol=0, atol=0)
    assert [module.training for module in problem.model.modules()] == modes
    assert all(value.grad is None for value in problem.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


DEPTHS = torch.tensor([1.0, 1.3, 1.7, 2.2, 3.0], dtype=torch.float64)  # all curvatures different


class Bowls(nn.Module):
    """R = sum_i c_i (w_i^4/4 - w_i^2/2): a saddle of index k has k entries 0 and the others +-1, each worth -c_i/4."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self, x: Tensor) -> Tensor:
        return (DEPTHS * (self.weight**4 / 4 - self.weight**2 / 2)).sum().expand(len(x), 1)


def bowls(start: Tensor) -> Problem:
    def output_itself(output: Tensor, _target: Tensor) -> Tensor:
        return output[:, 0]

    x = torch.zeros(2, 1, dtype=torch.float64)
    return Problem(Bowls(start), Data(x, x), loss=output_itself)


@pytest.mark.parametrize("index", range(6))
def test_the_index_asked_for_is_the_index_found(index: int) -> None:
    # Inside all wells: beyond a minimum, |w| > 1, uphill leads outwards, where no saddle lies.
    problem = bowls(torch.tensor([0.9, -0.8, 0.7, 0.85, -0.75], dtype=torch.float64))
    found = find_critical_point(problem, index=index)
    assert found.critical
    assert found.index == index / 5
    inside = found.vector.abs() < 1e-6
    assert int(inside.sum()) == index
    assert found.energy == pytest.approx(-float(DEPTHS[~inside].sum()) / 4, abs=1e-12)


def test_without_an_index_it_goes_to_the_near_point() -> None:
    # |g|^2 = sum c^2 (w^3 - w)^2 falls towards 0 where |w| < 1/sqrt(3), towards +-1 beyond.
    found = find_critical_point(bowls(torch.tensor([0.9, 0.2, -1.1, -0.1, 0.3], dtype=torch.float64)))
    torch.testing.assert_close(found.vector, torch.tensor([1.0, 0, -1, 0, 0], dtype=torch.float64), rtol=0, atol=1e-7)
    assert found.index == 3 / 5


def test_the_climb_brings_back_the_place_of_its_index() -> None:
    problem = bowls(0.8 + 0.3 * draw(5, seed=7))
    place, steps = climb(problem, 2, tolerance=1e-10, most=100)
    assert steps < 100
    assert float(place.gradient().norm()) <= 1e-10
    assert int((torch.linalg.eigvalsh(dense_hessian(place)) < 0).sum()) == 2
    short, steps = climb(problem, 2, tolerance=1e-10, most=3)
    assert steps == 3
    assert float((short.vector() - problem.vector()).norm()) <= 3 * 0.1 * float(problem.vector().norm()) * (1 + 1e-12)


def test_the_bend_of_a_step_is_the_second_derivative_of_the_gradient() -> None:
    # g = (w_1, w_2 - w_1^2): the valley g_2 = 0 is a parabola. H = J is not symmetric, but the model takes any images:
    # here H = I at zero, so p = -g and a = -g'' = -(0, -2 p_1^2), a/2 = (0, p_1^2).
    def gradient_at(step: Tensor) -> Tensor:
        w = torch.tensor([0.1, 0.0], dtype=torch.float64) + step
        return torch.stack([w[0], w[1] - (w[0] - 0.1) ** 2])

    model = LinearModel.dense(torch.eye(2, dtype=torch.float64), gradient_at(torch.zeros(2, dtype=torch.float64)))
    step, left = model.least(0.0)
    torch.testing.assert_close(step, torch.tensor([-0.1, 0.0], dtype=torch.float64))
    assert left == pytest.approx(0, abs=1e-12)
    bent = model.corrected(step, gradient_at, 0.0)
    torch.testing.assert_close(bent, torch.tensor([-0.1, 0.01], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert float(gradient_at(bent).norm()) < 1e-9 < float(gradient_at(step).norm())
    # A bend that is no correction is left out: ten times the step, 2 |a| = 4 p_1^2 > 3/4 |p_1|.
    long = model.corrected(10 * step, gradient_at, 0.0)
    assert torch.equal(long, 10 * step)


def test_an_index_out_of_range_or_of_too_many_parameters_is_refused() -> None:
    problem = bowls(torch.ones(5, dtype=torch.float64))
    for index in (-1, 6):
        with pytest.raises(ValueError, match="give a number of downhill directions from 0 to 5"):
            find_critical_point(problem, index=index)
    with pytest.raises(InputError, match="an index is asked of 5 parameters and the dense limit is 4"):
        find_critical_point(problem, index=1, dense_limit=4)


def test_wrong_arguments_and_infinite_gradients() -> None:
    with pytest.raises(TypeError, match="problem is str"):
        find_critical_point("network")  # type: ignore[arg-type]
    problem = risk_is("saddle", 1.0, 1.0)
    for wrong in ({"tolerance": 0.0}, {"most": 0}, {"krylov": 0}, {"walks": 7}, {"walks": -1}):
        with pytest.raises(ValueError, match="above zero, and 0 to 6 walks"):
            find_critical_point(problem, **wrong)  # type: ignore[arg-type]
    # A finite risk whose derivative is not: the square root at zero.

    def root(output: Tensor, _target: Tensor) -> Tensor:
        return output[:, 0].abs().sqrt()

    flat = Problem(Scalar("flat", torch.zeros(2).double()), problem.train, loss=root)
    with pytest.raises(InputError, match="the gradient of weight holds NaN or inf"):
        find_critical_point(flat)
