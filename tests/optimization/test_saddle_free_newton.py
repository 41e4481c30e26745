"""Saddle-free Newton: its step by hand, near saddles, and as a solver of the family."""

from __future__ import annotations

import copy

import pytest
import torch
from problems import small_problem
from torch import Tensor, nn

from whydeep.core import Data, Problem, Progress, Solver, Status
from whydeep.networks import linear, mlp
from whydeep.optimization import by_name
from whydeep.optimization.landscape.climbing import saddle_free_step
from whydeep.optimization.landscape.solvable import linear_networks
from whydeep.optimization.saddle_free_newton import SaddleFreeNewton, ritz_pairs


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_saddle(chosen: int, *, noise: float = 1e-3) -> tuple[Problem, float]:
    """A linear network 4-2-3 beside its critical point number `chosen`, and the least risk."""
    x = draw(40, 4, seed=1)
    y = x @ draw(4, 3, seed=2) + 0.3 * draw(40, 3, seed=3)
    points = linear_networks.critical_points(x, y, 2)
    model = mlp((4, 2, 3), activation="identity", generator=torch.Generator().manual_seed(0)).double()
    for number, (layer, weight) in enumerate(zip((model[1], model[3]), points[chosen].weights, strict=True)):
        layer.bias = None
        layer.weight = nn.Parameter(weight + noise * draw(*weight.shape, seed=number))
    return Problem(model, Data(x, y), loss="squared"), points[0].risk


def test_on_a_convex_quadratic_without_damping_it_is_newtons_method() -> None:
    root = draw(5, 5)
    matrix, gradient = root @ root.T + torch.eye(5, dtype=torch.float64), draw(5, seed=1)
    values, vectors = torch.linalg.eigh(matrix)
    step = saddle_free_step(values, vectors.T, gradient, damping=0.0)
    torch.testing.assert_close(step, -torch.linalg.solve(matrix, gradient), rtol=1e-9, atol=1e-12)


def test_it_descends_where_newton_climbs() -> None:
    matrix, gradient = torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([0.0, 1.0])
    newton = -torch.linalg.solve(matrix, gradient)
    values, vectors = torch.linalg.eigh(matrix)
    step = saddle_free_step(values, vectors.T, gradient, damping=0.0)
    assert float(newton @ gradient) > 0 > float(step @ gradient)
    torch.testing.assert_close(step, -newton)


def test_the_matrix_is_the_square_root_of_the_squared_hessian() -> None:
    matrix, gradient = draw(6, 6), draw(6, seed=1)
    matrix = matrix + matrix.T
    values, vectors = torch.linalg.eigh(matrix)
    step = saddle_free_step(values, vectors.T, gradient, damping=0.1)
    left, squared, _ = torch.linalg.svd(matrix @ matrix)
    absolute = (left * squared.sqrt()) @ left.T
    shifted = absolute + 0.1 * float(torch.linalg.matrix_norm(matrix, 2)) * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(step, -torch.linalg.solve(shifted, gradient), rtol=1e-7, atol=1e-9)


def test_no_curvature_at_all_is_steepest_descent() -> None:
    step = saddle_free_step(torch.zeros(2), torch.eye(2), torch.tensor([1.0, 2.0]), damping=0.5)
    torch.testing.assert_close(step, torch.tensor([-2.0, -4.0]))


def test_ritz_pairs_of_the_whole_space_are_eigenpairs() -> None:
    matrix = draw(7, 7)
    matrix = matrix + matrix.T
    values, vectors = ritz_pairs(lambda v: matrix @ v, draw(7, seed=2), 20)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(vectors @ matrix, values[:, None] * vectors, rtol=0, atol=1e-8)
    closed, _ = ritz_pairs(lambda v: 3 * v, draw(7, seed=2), 20)
    torch.testing.assert_close(closed, torch.tensor([3.0], dtype=torch.float64))


@pytest.mark.parametrize("dense_limit", [600, 0], ids=["dense", "krylov"])
@pytest.mark.parametrize("chosen", [1, 3, 6])
def test_it_leaves_every_saddle_of_a_linear_network(chosen: int, dense_limit: int) -> None:
    problem, least = near_saddle(chosen)
    assert problem.risk() > least + 0.01
    training = SaddleFreeNewton(steps=100, dense_limit=dense_limit).train(problem)
    assert float(training.history["loss"][-1]) == pytest.approx(least, rel=1e-6)
    assert training.outcome.converged, training.outcome


def test_one_step_solves_least_squares() -> None:
    x = draw(20, 3)
    problem = Problem(linear(3, 2).double(), Data(x, draw(20, 2, seed=1)), loss="squared")
    training = SaddleFreeNewton(steps=30, damping=1e-10, tolerance=1e-9).train(problem)
    assert training.outcome.converged
    # Damping of 1e-10 of the largest curvature leaves 1e-10 times the condition number after the first step.
    assert float(training.history["loss"][1]) == pytest.approx(float(training.history["loss"][-1]), rel=1e-9)


def test_the_risk_never_rises_and_it_is_a_solver_of_the_family() -> None:
    problem = small_problem("tanh", dtype=torch.float64)
    problem.model[1].eval()  # type: ignore[index]
    before = copy.deepcopy(problem.model.state_dict())
    modes = [module.training for module in problem.model.modules()]
    state = torch.random.get_rng_state()
    solver = SaddleFreeNewton(steps=5)
    assert isinstance(solver, Solver)
    first, second = solver.train(problem), solver.train(problem, generator=torch.Generator().manual_seed(3))
    loss = first.history["loss"]
    assert bool((loss.diff() < 0).all())
    assert {len(values) for values in first.history.values()} == {6}
    assert set(first.history) == {"loss", "seconds", "error"}
    assert loss[0] == pytest.approx(problem.risk(), rel=1e-12)
    assert loss[-1] == pytest.approx(problem.with_model(first.model).risk(), rel=1e-12)
    torch.testing.assert_close(dict(first.model.state_dict()), dict(second.model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(dict(problem.model.state_dict()), dict(before), rtol=0, atol=0)
    assert [module.training for module in first.model.modules()] == modes
    assert all(value.grad is None for value in (*problem.model.parameters(), *first.model.parameters()))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_callback_stops_it() -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return True

    training = SaddleFreeNewton(steps=5).train(small_problem(), callback=stop)
    assert training.outcome.status is Status.INTERRUPTED
    assert [progress.done for progress in seen] == [1]


def test_at_a_critical_point_it_stays_and_says_so() -> None:
    problem, _ = near_saddle(3, noise=0.0)
    training = SaddleFreeNewton(steps=5).train(problem)
    assert training.outcome.converged
    assert len(training.history["loss"]) == 1


def test_wrong_settings() -> None:
    for wrong in ({"steps": 0}, {"krylov": 0}, {"tolerance": 0.0}, {"damping": -1.0}):
        with pytest.raises(ValueError, match="give"):
            SaddleFreeNewton(**wrong)  # type: ignore[arg-type]


def test_it_has_a_name_and_takes_its_number_of_steps() -> None:
    assert by_name("saddle_free_newton?steps=7&damping=0.1", samples=10) == SaddleFreeNewton(steps=7, damping=0.1)
