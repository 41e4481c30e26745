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
from whydeep.optimization.explosion import TIMES, exploded

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


def test_only_the_end_counts_and_only_a_training_that_ended_by_itself() -> None:
    problem = classes()
    assert exploded(SPENT, {"loss": [1.0, 1e9, 0.5]}, problem) is SPENT
    assert exploded(SPENT, {"loss": [1.0, 0.5, 1e9]}, problem).diverged
    for status in (Status.INTERRUPTED, Status.CONVERGED, Status.DIVERGED):
        outcome = Outcome(status, "as it was")
        assert exploded(outcome, {"loss": [1.0, 1e9]}, problem) is outcome


def test_a_better_iterate_on_the_validation_split_is_what_is_returned() -> None:
    problem, stopped = classes(), Outcome(Status.STOPPED_EARLY, "no better in 2 passes")
    assert exploded(stopped, {"loss": [1.0, 0.5, 1e9], "validation": [1.0, 0.5, 1e9]}, problem) is stopped
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
