"""Linear networks with a bottleneck or a ridge: certificates that hold, and heights that no path can undercut."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from whydeep.core import Data, InputError, Problem
from whydeep.optimization.landscape import Path, path
from whydeep.optimization.landscape.paths.leg import distance
from whydeep.optimization.landscape.paths.profile import squares
from whydeep.optimization.landscape.solvable.linear_networks import explained, least_risk


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regression(inputs: int, outputs: int) -> Data:
    x = draw(40, inputs)
    return Data(x, x @ draw(inputs, outputs, seed=1) + 0.3 * draw(40, outputs, seed=2) + 1.0)


def network(widths: tuple[int, ...], seed: int, *, bias: bool = False) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.utils.skip_init(nn.Linear, i, o, bias=bias).double() for i, o in pairwise(widths)]
    for layer in layers:
        for value in layer.parameters():
            nn.init.normal_(value, generator=generator)
    return nn.Sequential(*layers)


def fitted(widths: tuple[int, ...], seed: int, data: Data, *, bias: bool = False) -> nn.Sequential:
    """A network whose last layer has least squares: near the bottom, where a path has little room."""
    model = network(widths, seed, bias=bias)
    with torch.no_grad():
        hidden = model[:-1](data.x)
        if bias:
            hidden = torch.cat([hidden, torch.ones(len(hidden), 1, dtype=torch.float64)], 1)
        outer = torch.linalg.lstsq(hidden, data.targets, driver="gelsd").solution.T
        model[-1].weight.copy_(outer[:, : widths[-2]])
        if bias:
            model[-1].bias.copy_(outer[:, -1])
    return model


def check(problem: Problem, found: Path, other: nn.Module, ridge: float = 0.0) -> None:
    """Both ends are met, legs join, and no position of a fine grid lies above the certificate."""
    names = [name for name, _ in problem.model.named_parameters()]
    for one, next_ in pairwise(found.legs):
        assert distance(one.at(1.0), next_.at(0.0), names) < 1e-8
    assert distance(found.at(0.0), problem.model.state_dict(), names) < 1e-10
    assert distance(found.at(1.0), other.state_dict(), names) < 1e-10
    assert found.certified is not None
    for leg in found.legs:
        values = []
        for k in range(9):
            model = problem.copy()
            model.load_state_dict(leg.at(k / 8))
            values.append(problem.with_model(model).risk() + ridge * squares(model))
        room = 1e-9 * max(values)
        assert max(values) <= max(values[0], values[-1], found.certified) + room
        if leg.kind == "constant":
            assert max(values) - min(values) <= room
        if leg.kind == "monotone":
            steps = [after - before for before, after in pairwise(values)]
            assert all(step <= room for step in steps) or all(step >= -room for step in steps)
        if leg.kind == "convex":
            assert all(b <= (a + c) / 2 + room for a, b, c in zip(values[:-2], values[1:-1], values[2:], strict=True))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(4, 1, 3), (5, 2, 4), (3, 2, 6), (5, 4, 2, 3, 4), (6, 3, 5, 7)])
def test_a_bottleneck_is_passed_below_the_worse_end_or_over_the_pass(widths: tuple[int, ...], bias: bool) -> None:
    data = regression(widths[0], widths[-1])
    for seed in range(2):
        a, b = (fitted(widths, 2 * seed + k, data, bias=bias) for k in (0, 1))
        problem = Problem(a, data, loss="squared")
        found = path(problem, a, b, method="linear", points=3, refinements=0)
        check(problem, found, b)
        x, y = (value - bias * value.mean(0) for value in (data.x, data.targets))  # type: ignore[arg-type]
        rank = min(widths)
        values, _ = explained(x, y)
        over = least_risk(x, y, rank) + 0.5 * float(values[rank - 1] - values[rank])
        worse = max(problem.risk(), problem.with_model(b).risk())
        allowed = max(worse, over) if "opposite orientation" in found.remark else worse
        assert found.certified == pytest.approx(allowed, rel=1e-9)


def test_the_pass_between_mirror_images_is_as_low_as_it_can_be() -> None:
    # Two inputs and outputs, one hidden unit: W_1 is a direction t in the plane. With y = diag(3, 1) x, E xx^T = I the
    # least risk at t is 1/2 (10 - 9 cos^2 t - sin^2 t); from t = 0 to pi every path passes t = pi/2, where it is 9/2.
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    data = Data(x, x * torch.tensor([3.0, 1.0]))
    a, b = network((2, 1, 2), 0), network((2, 1, 2), 0)
    for model, sign in ((a, 1.0), (b, -1.0)):
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[sign, 0.0]]))
            model[1].weight.copy_(torch.tensor([[3.0 * sign], [0.0]]))
    problem = Problem(a, data, loss="squared")
    assert problem.risk() == pytest.approx(0.5)
    found = path(problem, a, b, method="linear")
    check(problem, found, b)
    assert found.certified == pytest.approx(4.5, abs=1e-12)  # 1/2 + (9 - 1)/2
    assert "over a pass 4 above the global minimum" in found.remark
    # The straight line passes the zero network: 1/2 (9 + 1).
    assert path(problem, a, b).profile.highest == pytest.approx(5.0, abs=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_a_bottleneck_without_full_rank_and_inputs_that_no_sample_shows(bias: bool) -> None:
    x = draw(30, 5)
    x[:, 4] = x[:, 0]  # rank 4
    data = Data(x, x @ draw(5, 4, seed=1))
    a, b = network((5, 2, 4), 0, bias=bias), fitted((5, 2, 4), 1, data, bias=bias)
    with torch.no_grad():
        a[0].weight[1] = -a[0].weight[0]
        a[1].weight[:, 1] = 0
    problem = Problem(a, data, loss="squared")
    found = path(problem, a, b, method="linear", points=3, refinements=0)
    check(problem, found, b)
    assert found.certified == pytest.approx(max(problem.risk(), problem.with_model(b).risk()), rel=1e-9)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(2, 4, 3), (3, 4, 2), (3, 7, 5), (1, 2, 1)])
def test_with_a_ridge_the_penalised_risk_stays_below_the_worse_end(widths: tuple[int, ...], bias: bool) -> None:
    data = regression(widths[0], widths[-1])
    a, b = (fitted(widths, k, data, bias=bias) for k in (0, 1))
    problem = Problem(a, data, loss="squared")
    found = path(problem, a, b, method="linear", ridge=0.05, points=3, refinements=0)
    check(problem, found, b, ridge=0.05)
    worse = max(problem.with_model(end).risk() + 0.05 * squares(end) for end in (a, b))
    assert found.certified == pytest.approx(worse, rel=1e-9)
    assert found.profile.highest <= worse * (1 + 1e-9)


def test_mirror_images_are_joined_at_their_own_height_where_the_line_climbs() -> None:
    data = regression(3, 2)
    a = fitted((3, 4, 2), 0, data)
    b = network((3, 4, 2), 1)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=5))
    with torch.no_grad():  # the same function and squares, the hidden units turned
        b[0].weight.copy_(turn @ a[0].weight)
        b[1].weight.copy_(a[1].weight @ turn.T)
    problem = Problem(a, data, loss="squared")
    height = problem.risk() + 0.05 * squares(a)
    assert path(problem, a, b, method="linear", ridge=0.05).certified == pytest.approx(height, rel=1e-9)
    assert path(problem, a, b, ridge=0.05).profile.highest > 1.05 * height


def test_a_ridge_and_the_cross_entropy() -> None:
    labels = torch.arange(40) % 3
    data = Data(draw(40, 2), labels, classes=3)
    a, b = network((2, 3, 3), 0, bias=True), network((2, 3, 3), 1, bias=True)
    with torch.no_grad():
        b[0].weight.zero_()  # rank zero
    problem = Problem(a, data)
    found = path(problem, a, b, method="linear", ridge=0.1, points=3, refinements=0)
    check(problem, found, b, ridge=0.1)
    assert found.certified == pytest.approx(
        max(problem.with_model(end).risk() + 0.1 * squares(end) for end in (a, b)), rel=1e-9
    )


def test_the_line_counts_the_ridge_too() -> None:
    # R = 0 on the data x = 0, y = 0: what is left is 1/2 (w^2 + v^2), 2 at the ends (2, 0), (0, 2) and 1 at (1, 1).
    data = Data(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64))
    problem = Problem(network((1, 1, 1), 0), data, loss="squared")
    ends = (torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64))
    found = path(problem, *ends, ridge=0.5, points=3, refinements=0)
    torch.testing.assert_close(found.profile.risk, torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ((3, 3, 4), {"ridge": 0.1}, "for two layers with more than 3 hidden units"),
        ((3, 4, 4, 4), {"ridge": 0.1}, "for two layers with more than 3 hidden units"),
        ((3, 4, 4), {"ridge": -0.1}, "ridge=-0.1; give a number >= 0"),
        ((6, 3, 4), {}, "the samples span 3 dimensions and the narrowest layer has 3 units"),
    ],
)
def test_what_has_no_path_is_refused(widths: tuple[int, ...], options: dict[str, float], message: str) -> None:
    x = draw(12, 3) @ torch.eye(3, widths[0], dtype=torch.float64)
    a, b = network(widths, 0), network(widths, 1)
    problem = Problem(a, Data(x, draw(12, widths[-1], seed=3)), loss="squared")
    with pytest.raises(ValueError, match=message):
        path(problem, a, b, method="linear", **options)
    assert issubclass(InputError, ValueError)
