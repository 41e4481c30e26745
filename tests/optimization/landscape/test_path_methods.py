"""Certified, trained and permuted paths: what each promises, looked at on grids finer than its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.networks import cnn, linear, mlp
from whydeep.optimization import Backprop
from whydeep.optimization.landscape import Path, path
from whydeep.optimization.landscape.paths.grassmann import joined, rotation_power
from whydeep.optimization.landscape.paths.leg import distance


def risk_at(problem: Problem, found: Path, position: float) -> float:
    return problem.with_model(found.network(problem.model, position)).risk()


def highest(problem: Problem, found: Path, count: int = 41) -> float:
    return max(risk_at(problem, found, k / (count - 1)) for k in range(count))


def linear_network(widths: tuple[int, ...], seed: int, *, bias: bool) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.utils.skip_init(nn.Linear, i, o, bias=bias).double() for i, o in pairwise(widths)]
    for layer in layers:
        for value in layer.parameters():
            nn.init.normal_(value, generator=generator)
    return nn.Sequential(*layers)


def regression(inputs: int, outputs: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, inputs, generator=generator, dtype=torch.float64)
    return Data(x, x[:, :1] + torch.randn(30, outputs, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(("bias", "seed"), [(False, 0), (True, 1)])
@pytest.mark.parametrize("widths", [(4, 6, 3), (3, 6, 5, 4), (3, 4, 4, 6), (2, 3, 2), (1, 2, 1), (5, 2), (4, 3, 2)])
def test_wide_linear_networks_are_joined_below_the_worse_end(widths: tuple[int, ...], bias: bool, seed: int) -> None:
    a, b = (linear_network(widths, 2 * seed + k, bias=bias) for k in (0, 1))
    problem = Problem(a, regression(widths[0], widths[-1]), loss="squared")
    found = path(problem, a, b, method="linear", points=3, refinements=0)
    worse = max(problem.risk(), problem.with_model(b).risk())
    assert found.certified is not None
    assert found.certified <= worse + 1e-10
    assert highest(problem, found) <= worse + 1e-10
    assert {leg.kind for leg in found.legs} <= {"constant", "convex"}
    assert risk_at(problem, found, 0.0) == pytest.approx(problem.risk(), rel=1e-12)
    last = found.network(a, 1.0).state_dict()
    assert all(torch.allclose(value, last[name], rtol=0, atol=1e-12) for name, value in b.state_dict().items())
    assert found.length >= 1 - 1e-12


def test_it_is_continuous() -> None:
    a, b = (linear_network((3, 5, 4, 4), seed, bias=True) for seed in (3, 4))
    problem = Problem(a, regression(3, 4), loss="squared")
    found = path(problem, a, b, method="linear", points=3, refinements=0)
    names = [name for name, _ in a.named_parameters()]
    whole = found.length * distance(a.state_dict(), b.state_dict(), names)
    steps = [distance(found.at(k / 500), found.at((k + 1) / 500), names) for k in range(500)]
    assert sum(steps) == pytest.approx(whole, rel=0.03)  # a polygon of 500 pieces against one of 32 a leg
    assert max(steps) < 20 * whole / 500  # no jump: what is walked in one step stays of the size of a step


def test_factors_without_full_rank_are_joined_too() -> None:
    a, b = (linear_network((3, 5, 4), seed, bias=False) for seed in (5, 6))
    with torch.no_grad():
        a[0].weight[:, 1:] = 0  # rank one
        b[1].weight.zero_()
        b[0].weight.zero_()
    problem = Problem(a, regression(3, 4), loss="squared")
    found = path(problem, a, b, method="linear", points=3, refinements=0)
    assert highest(problem, found) <= max(problem.risk(), problem.with_model(b).risk()) + 1e-10


def test_a_hidden_layer_as_wide_as_the_narrow_side_is_not_enough() -> None:
    # R = 1/2 (w2 w1 - 1)^2: from (1, 1) to (-1, -1) every path passes w1 = 0, where the risk is 1/2. The path found is
    # the best: it goes no higher. With two hidden units the same solutions are joined at risk zero.
    data = Data(torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    a, b = (linear_network((1, 1, 1), 0, bias=False) for _ in range(2))
    for model, value in ((a, 1.0), (b, -1.0)):
        for weight in model.parameters():
            nn.init.constant_(weight, value)
    problem = Problem(a, data, loss="squared")
    narrow = path(problem, a, b, method="linear", refinements=0)
    assert narrow.certified == pytest.approx(0.5, abs=1e-12)
    assert "no spare dimension" in narrow.remark
    wide = [linear_network((1, 2, 1), 0, bias=False) for _ in range(2)]
    for model, value in zip(wide, (1.0, -1.0), strict=True):
        for weight in model.parameters():
            nn.init.zeros_(weight)
        with torch.no_grad():
            model[0].weight[0, 0] = model[1].weight[0, 0] = value
    assert path(problem.with_model(wide[0]), *wide, method="linear", refinements=0).certified == pytest.approx(
        0, abs=1e-20
    )


def test_the_cross_entropy_is_convex_in_the_last_factor_too() -> None:
    a, b = (linear_network((3, 4, 3), seed, bias=True) for seed in (7, 8))
    problem = Problem(a, blobs(dtype=torch.float64))
    found = path(problem, a, b, method="linear", points=3, refinements=0)
    assert highest(problem, found) <= max(problem.risk(), problem.with_model(b).risk()) + 1e-10


def test_rotations_and_full_rank_matrices_move_as_they_promise() -> None:
    generator = torch.Generator().manual_seed(2)
    for size in (1, 2, 3, 5, 6):
        turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
        turn[:, 0] *= torch.linalg.det(turn).sign()
        power = rotation_power(turn)
        torch.testing.assert_close(power(1.0), turn, rtol=0, atol=1e-12)
        torch.testing.assert_close(power(0.5) @ power(0.5), turn, rtol=0, atol=1e-12)
    for rows, columns in ((3, 3), (4, 3), (7, 2), (3, 1)):
        for _ in range(6):
            first, second = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
            moving = joined(first, second)
            if rows == columns:
                assert (moving is None) == (float(torch.linalg.det(first) * torch.linalg.det(second)) < 0)
            if moving is None:
                continue
            torch.testing.assert_close(moving(0.0), first, rtol=0, atol=1e-12)
            torch.testing.assert_close(moving(1.0), second, rtol=0, atol=1e-11)
            smallest = min(float(torch.linalg.svdvals(moving(k / 50))[-1]) for k in range(51))
            assert smallest > 0.2 * min(float(torch.linalg.svdvals(each)[-1]) for each in (first, second))
    same = torch.eye(3, 2, dtype=torch.float64)
    mirrored = same * torch.tensor([1.0, -1.0])
    turned = joined(same, mirrored)  # the same span, the other orientation: through the spare dimension
    assert turned is not None
    torch.testing.assert_close(turned(1.0), mirrored, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_certificate_of_the_two_layer_path_holds_on_a_fine_grid(loss: str, activation: str) -> None:
    data = blobs(dtype=torch.float64)
    solver = Backprop(torch.optim.Adam, lr=2e-2, epochs=10)
    nets = [
        solver.train(
            Problem(
                mlp(
                    (3, 8, 3), activation=activation, init="he", generator=torch.Generator().manual_seed(seed)
                ).double(),
                data,
                None,
                loss,
            )
        ).model
        for seed in (0, 1)
    ]
    problem = Problem(nets[0], data, None, loss)
    found = path(problem, *nets, method="relu", points=3, refinements=0)
    assert found.certified is not None
    assert found.certified >= max(problem.with_model(net).risk() for net in nets) - 1e-12
    # 121 positions: on no leg does the risk exceed what its ends say.
    assert highest(problem, found, 121) <= found.certified * (1 + 1e-9)
    assert {leg.kind for leg in found.legs} == {"constant", "convex"}
    for leg in found.legs:
        risks = [_risk(problem, leg.at(s / 8)) for s in range(9)]
        if leg.kind == "constant":
            assert max(risks) - min(risks) < 1e-9 * max(risks)
        assert max(risks) <= max(risks[0], risks[-1]) * (1 + 1e-9)
    # Never worse than the trivial path through a network whose output does not depend on its input.
    assert found.certified <= max(found.profile.risk[0], found.profile.risk[-1], _constant(problem)) + 1e-12


def _risk(problem: Problem, state: object) -> float:
    model = problem.copy()
    model.load_state_dict(state)  # type: ignore[arg-type]
    return problem.with_model(model).risk()


def _constant(problem: Problem) -> float:
    model = problem.copy()
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    return problem.with_model(model).risk()


def test_a_network_of_one_unit_passes_the_best_constant() -> None:
    # One unit, y = relu(x) on x = +-1: from w = 1 to w = -1 the unit has to give up its output; the constant 1/2 has
    # risk 1/2 (1/2)^2 = 1/8.
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    problem = Problem(mlp((1, 1, 1)).double(), Data(x, torch.relu(x)), loss="squared")
    a = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)  # relu(x)
    b = torch.tensor([-1.0, 0.0, -1.0, 1.0], dtype=torch.float64)  # 1 - relu(-x), which fits as well
    found = path(problem, a, b, method="relu")
    assert found.certified == pytest.approx(1 / 8, abs=1e-12)


def test_more_units_lower_the_certified_path() -> None:
    x = torch.rand(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    data = Data(x, torch.sin(3 * x))
    highest_risk = []
    for width in (4, 64):
        nets = [mlp((1, width, 1), init="he", generator=torch.Generator().manual_seed(s)).double() for s in (1, 2)]
        for net in nets:
            with torch.no_grad():
                net[1].bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(width))
        problem = Problem(nets[0], data, loss="squared")
        for net in nets:
            with torch.no_grad():  # both ends have the best output weights
                units = torch.cat([torch.relu(net[1](x)), torch.ones_like(x)], 1)
                outer = torch.linalg.lstsq(units, data.targets, rcond=1e-6, driver="gelsd").solution.T
                net[3].weight.copy_(outer[:, :-1])
                net[3].bias.copy_(outer[:, -1])
        found = path(problem, *nets, method="relu")
        assert found.certified is not None
        highest_risk.append(found.certified)
    assert highest_risk[1] < 0.1 * highest_risk[0]


@pytest.fixture(scope="module")
def pair() -> tuple[Problem, nn.Module]:
    """Two networks trained on the digits from different starts."""
    train, test = digits(300)
    solver = Backprop(torch.optim.Adam, lr=5e-3, epochs=12)
    nets = []
    for seed in (0, 1):
        start = mlp((64, 24, 10), init="he", generator=torch.Generator().manual_seed(seed))
        nets.append(solver.train(Problem(start, train, test)).model)
    return Problem(nets[0], train, test), nets[1]


def test_permuting_lowers_the_barrier_and_bending_removes_it(pair: tuple[Problem, nn.Module]) -> None:
    problem, other = pair
    line = path(problem, problem.model, other)
    permuted = path(problem, problem.model, other, method="permute")
    bent = path(problem, problem.model, other, method="bezier", steps=200)
    assert line.length == pytest.approx(1)
    assert permuted.length < 0.9
    assert permuted.barrier.value < 0.5 * line.barrier.value
    assert bent.barrier.value < 0.05 * line.barrier.value
    assert bent.length > 1
    # The far end of the permuted line computes what the other network does.
    assert float(permuted.profile.risk[-1]) == pytest.approx(float(line.profile.risk[-1]), rel=1e-5)
    assert line.certified is None


def test_the_string_connects_and_says_when_it_does_not(pair: tuple[Problem, nn.Module]) -> None:
    problem, other = pair
    worse = max(problem.risk(), problem.with_model(other).risk())
    found = path(problem, problem.model, other, method="dynamic_string", level=2 * worse)
    assert found.connected
    assert found.profile.highest <= 2 * worse * 1.05  # between the positions it looked at it may be slightly higher
    assert len(found.beads) >= 3
    assert found.length > 1
    again = path(problem, problem.model, other, method="dynamic_string", level=2 * worse)
    assert torch.equal(again.profile.risk, found.profile.risk)
    stuck = path(problem, problem.model, other, method="dynamic_string", trainings=1, level=1.01 * worse)
    assert stuck.connected is False
    assert "stayed at" in stuck.remark or "beads were spent" in stuck.remark


def test_two_layers_with_batch_norm_are_bent_too() -> None:
    train, _ = digits(120)
    solver = Backprop(torch.optim.Adam, lr=1e-2, epochs=8)
    nets = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            start = cnn((1, 8, 8), 10, channels=(4, 4), batch_norm=True)
        nets.append(solver.train(Problem(start, train)).model)
    problem = Problem(nets[0], train)
    before = [value.clone() for net in nets for value in net.state_dict().values()]
    line = path(problem, *nets)
    bent = path(problem, *nets, method="bezier", steps=150, points=9, refinements=2)
    assert bent.barrier.value < 0.5 * line.barrier.value
    after = [value for net in nets for value in net.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_profile_is_drawn_with_beads_and_length(pair: tuple[Problem, nn.Module]) -> None:
    problem, other = pair
    found = path(problem, problem.model, other, method="relu", points=3, refinements=0)
    curve = found.curve()
    assert [line.label for line in curve.lines] == ["along the path", "beads", "no barrier", "certified maximum"]
    assert "straight line 1)" in curve.x_label
    assert found.plot().get_ylabel() == "risk"
    assert found.curve(what="error").y_label == "misclassified fraction"
    assert found.places[0] == 0
    assert found.places[-1] == 1


def test_a_path_from_a_network_to_itself_stands_still() -> None:
    problem = small_problem(dtype=torch.float64)
    for method in ("line", "permute"):
        found = path(problem, problem.vector(), problem.model, method=method)  # type: ignore[arg-type]
        assert found.barrier.value == 0
        assert found.length == 1


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("model", "method", "options", "message"),
    [
        (mlp((3, 4, 3)), "string", {}, "unknown method 'string'; give one of bezier"),
        (mlp((3, 4, 4, 3)), "relu", {}, "needs one hidden layer, and the network has 2"),
        (mlp((3, 4, 3)), "linear", {}, "has the activation relu after layer 1"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)),
            "linear",
            {},
            "narrower than inputs and outputs, and the loss",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3, bias=False)), "linear", {}, "give the output layer one"),
        (mlp((3, 4, 3)), "relu", {"oracle": [9]}, "give numbers of units from 0 to 4"),
        (mlp((3, 4, 3)), "bezier", {"bends": 0}, "give at least 1"),
        (mlp((3, 4, 3)), "bezier", {"lr": 1e30}, "give a smaller lr"),
        (mlp((3, 4, 3)), "dynamic_string", {"level": 1e-9}, "give a level above both"),
        (mlp((3, 4, 3)), "dynamic_string", {"alpha": 1.0}, "alpha is 1.0"),
        (mlp((3, 4, 3)), "line", {"points": 1}, "give a number"),
    ],
)
def test_what_does_not_fit_is_refused(model: nn.Module, method: str, options: dict[str, float], message: str) -> None:
    problem = Problem(model, blobs())
    if method == "line":
        with pytest.raises(ValueError, match=r"position is 2"):
            path(problem, model, model).at(2.0)
        return
    with pytest.raises(ValueError, match=message):
        path(problem, model, problem.copy(), method=method, **options)  # type: ignore[arg-type]


def test_other_losses_shapes_and_things_are_refused() -> None:
    def absolute(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().sum(1)

    data = regression(3, 2)
    for make, method in ((lambda: mlp((3, 4, 2)).double(), "relu"), (lambda: linear(3, 2).double(), "linear")):
        with pytest.raises(InputError, match="not known that the loss absolute is convex"):
            path(Problem(make(), data, loss=absolute), make(), make(), method=method)  # type: ignore[arg-type]
    problem = Problem(mlp((3, 4, 3)), blobs())
    with pytest.raises(InputError, match=r"1.weight has shape \(4, 3\) in the first and \(5, 3\) in the second"):
        path(problem, problem.model, mlp((3, 5, 3)))
    with pytest.raises(InputError, match=r"5\.weight has shape none in the first"):
        path(problem, problem.model, nn.Sequential(*mlp((3, 4, 3)), nn.ReLU(), nn.Linear(3, 3)))
    broken = problem.copy()
    nn.init.constant_(broken[1].bias, float("nan"))  # type: ignore[index]
    with pytest.raises(InputError, match=r"the weights 1.bias hold NaN"):
        path(problem, problem.model, broken)
    with pytest.raises(TypeError, match="an end of the path is str"):
        path(problem, "a", problem.model)  # type: ignore[arg-type]
