"""Trainings that make all their passes and end far above their start."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from problems import small_problem
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.training import Outcome, Solver, Status
from whydeep.networks import linear, mlp
from whydeep.optimization import EMSA, MSA, Backprop, StochasticADMM
from whydeep.optimization.explosion import ROWS, TIMES, exploded

SPENT = Outcome(Status.BUDGET_SPENT, "3 steps done")


def classes(loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy") -> Problem:
    return Problem(linear(2, 4), Data(torch.eye(4, 2), torch.arange(4), classes=4), loss=loss)


def numbers(scale: float) -> Problem:
    return Problem(linear(1, 1), Data(torch.ones(4, 1), torch.full((4, 1), scale)), loss="squared")


@pytest.mark.parametrize(
    ("problem", "zero"),
    [
        (classes(), math.log(4)),  # outputs zero give every class the same probability
        (classes("hinge"), 4.0),  # max(0, 1 - 0) for each of the four outputs
        (classes("squared"), 0.5),
        (numbers(3.0), 4.5),
        (numbers(1e-4), 5e-9),
    ],
)
def test_the_bound_is_ten_times_the_start_or_outputs_zero(problem: Problem, zero: float) -> None:
    for start in (zero / 100, zero, 100 * zero):
        bound = TIMES * max(start, zero)
        # Single precision: the risk of outputs zero is right to some 1e-7.
        assert exploded(SPENT, {"loss": [start, bound * (1 - 1e-6)]}, problem) is SPENT
        found = exploded(SPENT, {"loss": [start, bound * (1 + 1e-6)]}, problem)
        assert found.diverged
        assert found.reason.startswith("3 steps done, and the risk rose from ")


@pytest.mark.parametrize(
    ("targets", "scale"),
    [
        (2000 + torch.tensor([[-5.0], [5.0]]), 12.5),  # years: half their variance about the mean, not 2e6
        (torch.tensor([[-1.0], [3.0]]), 2.0),
        (torch.full((3, 1), 7.1), 7.1**2 / 2),  # about the mean there is nothing but rounding
        (torch.zeros(3, 1), 0.0),
    ],
)
def test_the_scale_of_regression_is_that_of_the_best_constant(targets: Tensor, scale: float) -> None:
    for dtype in (torch.float32, torch.float64):
        data = Data(torch.ones(len(targets), 1, dtype=dtype), targets.to(dtype))
        problem = Problem(linear(1, 1).to(dtype), data, loss="squared")
        good = 1e-12  # a start that knows nearly everything
        bound = TIMES * max(good, scale)
        assert not exploded(SPENT, {"loss": [good, bound * (1 - 1e-6)]}, problem).diverged
        assert exploded(SPENT, {"loss": [good, bound * (1 + 1e-6)]}, problem).diverged


def test_the_scale_is_that_of_all_targets_however_they_are_sorted() -> None:
    n = 4 * ROWS
    values = torch.arange(n, dtype=torch.float64)[:, None] / n  # mean 1/2, variance 1/12 to 1/n
    problem = Problem(linear(1, 1).double(), Data(torch.ones_like(values), values), loss="squared")
    assert not exploded(SPENT, {"loss": [0.0, TIMES / 24 * (1 - 1e-3)]}, problem).diverged
    assert exploded(SPENT, {"loss": [0.0, TIMES / 24 * (1 + 1e-3)]}, problem).diverged


def test_a_loss_below_zero_is_compared_by_its_magnitude() -> None:
    def density(output: Tensor, target: Tensor) -> Tensor:
        return 50 * (output - target).square().sum(1) - 1.4  # -log of a normal density with deviation 0.1

    problem = Problem(linear(1, 1), Data(torch.ones(4, 1), torch.zeros(4, 1)), loss=density)
    for end in (-1.4, -1.3, 0.5, 13.0):
        assert exploded(SPENT, {"loss": [-1.3, end]}, problem) is SPENT
    assert exploded(SPENT, {"loss": [-1.3, 15.0]}, problem).diverged


def test_a_loss_that_refuses_a_constant_does_not_lose_the_training() -> None:
    def poisson(output: Tensor, target: Tensor) -> Tensor:
        return -torch.distributions.Poisson(output).log_prob(target).sum(1)  # raises ValueError at a rate <= 0

    model = nn.Sequential(nn.Linear(1, 1), nn.Softplus())
    counts = Data(torch.ones(4, 1), torch.tensor([[1.0], [2.0], [0.0], [1.0]]))
    problem = Problem(model, counts, loss=poisson)
    assert exploded(SPENT, {"loss": [1.0, 2.0]}, problem) is SPENT
    # The constant is their mean then: rate 1 costs 1 + (0 + log 2! + 0 + 0)/4 nats.
    scale = 1 + math.log(2) / 4
    assert exploded(SPENT, {"loss": [0.1, TIMES * scale * (1 - 1e-5)]}, problem) is SPENT
    assert exploded(SPENT, {"loss": [0.1, TIMES * scale * (1 + 1e-5)]}, problem).diverged
    training = Backprop(torch.optim.SGD, lr=0.1, epochs=2, batch_size=2).train(problem)
    assert training.outcome.status is Status.BUDGET_SPENT


def test_only_the_end_counts_and_only_a_training_that_ended_by_itself() -> None:
    problem = classes()
    assert exploded(SPENT, {"loss": [1.0, 1e9, 0.5]}, problem) is SPENT
    assert exploded(SPENT, {"loss": [1.0, 0.5, 1e9]}, problem).diverged
    for status in (Status.INTERRUPTED, Status.CONVERGED, Status.DIVERGED):
        outcome = Outcome(status, "as it was")
        assert exploded(outcome, {"loss": [1.0, 1e9]}, problem) is outcome


def test_a_better_iterate_on_the_validation_split_is_what_is_returned() -> None:
    problem, stopped = classes(), Outcome(Status.STOPPED_EARLY, "no better in 2 passes")
    found = exploded(stopped, {"loss": [1.0, 0.5, 1e9], "validation": [1.0, 0.5, 1e9]}, problem)
    assert found.status is Status.STOPPED_EARLY
    assert (
        found.reason
        == "no better in 2 passes, and the risk rose from 1 to 1e+09; an iterate of before that is returned"
    )
    assert exploded(stopped, {"loss": [1.0, 1e8, 1e9], "validation": [1.0, 1e8, 1e9]}, problem).diverged


def test_a_loss_that_zero_outputs_have_not_leaves_the_start_as_the_scale() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return -output.exp().sum(1).sub(4).log()  # log of 0 for outputs zero

    model = nn.Sequential(nn.Linear(2, 4))
    nn.init.ones_(model[0].bias)
    nn.init.zeros_(model[0].weight)
    problem = Problem(model, Data(torch.eye(4, 2), torch.arange(4), classes=4), loss=loss)
    assert exploded(SPENT, {"loss": [1.0, 9.0]}, problem) is SPENT
    assert exploded(SPENT, {"loss": [1.0, 11.0]}, problem).diverged


@pytest.mark.parametrize(
    "solver",
    [
        MSA(epochs=5),
        StochasticADMM(epochs=3, batch_size=16, tau=1e9),
        Backprop(torch.optim.SGD, lr=1e6, epochs=3, batch_size=16),
        Backprop(torch.optim.SGD, lr=1e6, epochs=30, batch_size=16, validation=0.2, patience=2),
    ],
)
def test_a_training_that_blew_up_is_diverged_and_returns_the_best_it_had(solver: Solver) -> None:
    # Saturated units: everything stays finite, however far the weights are.
    problem = small_problem("tanh", dtype=torch.float64)
    training = solver.train(problem, generator=torch.Generator().manual_seed(0))
    assert training.outcome.diverged
    assert "the risk rose from" in training.outcome.reason
    assert bool(torch.isfinite(training.history["loss"]).all())
    risks = training.history.get("validation", training.history["loss"])
    assert int(risks.argmin()) == 0  # in all four no pass improved, so that it is the start
    torch.testing.assert_close(training.model.state_dict(), problem.model.state_dict(), rtol=0, atol=0)


def test_the_best_pass_is_returned_when_the_end_is_far_above_it() -> None:
    # Steps that grow tenfold: the first ones learn, the last ones leave. w <- (1 - lr) w on w^2 / 2, as x = 1, y = 0.
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.ones_(model[0].weight)
    one = torch.ones(1, 1, dtype=torch.float64)
    problem = Problem(model, Data(one, 0 * one), loss="squared")

    def growing(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 10.0**step)

    training = Backprop(torch.optim.SGD, lr=0.5, epochs=4, schedule=growing).train(problem)
    # lr 0.5, 5, 50, 500: w = 1, 1/2, -2, 98, -48902; the risk is half the square.
    assert training.history["loss"].tolist() == pytest.approx([0.5, 0.125, 2.0, 4802.0, 48902.0**2 / 2])
    assert training.outcome.diverged
    assert training.model[0].weight.item() == 0.5


def test_a_hard_start_that_learns_is_not_diverged() -> None:
    network = mlp((3, 8, 3), activation="sigmoid", init="xavier", gain=4.0, generator=torch.Generator().manual_seed(0))
    problem = small_problem("sigmoid", dtype=torch.float64)
    for solver in (EMSA(epochs=3), StochasticADMM(epochs=3, batch_size=16)):
        training = solver.train(problem.with_model(network.double()), generator=torch.Generator().manual_seed(0))
        assert training.outcome.status is Status.BUDGET_SPENT


def test_a_risk_on_the_validation_split_that_is_not_finite_ends_a_training() -> None:
    # Weights fit all samples but one, x = 1e30, whose square overflows in single precision as soon as they move.
    x = torch.cat([torch.ones(9, 1), torch.full((1, 1), 1e30)])
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.zeros_(model[0].weight)
    problem = Problem(model, Data(x, torch.ones(10, 1)), loss="squared")
    solver = Backprop(torch.optim.SGD, lr=0.1, epochs=3, validation=0.1)
    trainings = (solver.train(problem, generator=torch.Generator().manual_seed(seed)) for seed in range(100))
    training = next(one for one in trainings if "validation" in one.outcome.reason)  # that sample is held back
    assert training.outcome.diverged
    assert training.outcome.reason == "the risk on the validation split is not finite after pass 1"
    assert training.history["validation"].tolist() == [0.5]
    assert training.model[0].weight.item() == 0
