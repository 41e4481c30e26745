"""Back-propagation against a hand-written loop, its ways to end, and what it leaves alone."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from problems import blobs, small_problem
from torch import Tensor, nn

from whydeep.core import Data, Problem, Status, global_seed
from whydeep.core.training import Progress
from whydeep.networks import linear, mlp
from whydeep.optimization import Backprop


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(problem: Problem, make: Any, batch: int, steps: int, schedule: Any = None) -> tuple[nn.Module, list[float]]:
    """The loop that anybody would write; returns the model and the risk at the start and after each pass."""
    generator = seeded()
    model = copy.deepcopy(problem.model).train()
    x, y = problem.train.x, problem.train.targets
    assert isinstance(x, Tensor)

    def risk() -> float:
        with torch.no_grad():
            return float(problem.per_sample(copy.deepcopy(model).eval()(x), y).double().mean())

    losses = [risk()]
    with global_seed(generator):
        optimizer = make(model.parameters())
        scheduler = schedule(optimizer) if schedule else None
        done = 0
        while done < steps:
            order = torch.randperm(len(x), generator=generator)
            for first in range(0, len(x), batch):
                chosen = order[first : first + batch]
                optimizer.zero_grad()
                loss = problem.per_sample(model(x[chosen]), y[chosen]).mean()
                loss.backward()
                optimizer.step()
                if scheduler:
                    scheduler.step()
                done += 1
                if done == steps:
                    break
            losses.append(risk())
    return model, losses


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def dropped(n: int = 60) -> Problem:
    """Batch norm and dropout: statistics of batches, and the global generator."""
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (model[0], model[4]):
            layer.reset_parameters()
    return Problem(model, blobs(n))


@pytest.mark.parametrize("make_problem", [small_problem, dropped])
@pytest.mark.parametrize("batch", [16, 60, 1000])
def test_equals_the_loop_written_by_hand_bit_for_bit(make_problem: Any, batch: int) -> None:
    problem = make_problem()
    per_pass = math.ceil(len(problem.train) / batch)
    training = Backprop(torch.optim.Adam, lr=0.01, epochs=3, batch_size=batch).train(problem, generator=seeded())
    model, losses = by_hand(problem, lambda p: torch.optim.Adam(p, lr=0.01), batch, 3 * per_pass)
    assert same(training.model, model)
    # The weights agree to the last bit; the risk of single precision depends on where in memory the samples lie.
    torch.testing.assert_close(training.history["loss"], torch.tensor(losses).double(), rtol=1e-6, atol=0)
    assert training.outcome.status is Status.BUDGET_SPENT


@pytest.mark.parametrize("steps", [1, 4, 6, 8])  # 60 samples in batches of 16: 4 steps a pass
def test_steps_may_end_inside_a_pass(steps: int) -> None:
    problem = small_problem()
    training = Backprop(torch.optim.SGD, lr=0.1, steps=steps, batch_size=16).train(problem, generator=seeded())
    model, losses = by_hand(problem, lambda p: torch.optim.SGD(p, lr=0.1), 16, steps)
    assert same(training.model, model)
    assert len(training.history["loss"]) == 1 + math.ceil(steps / 4) == len(losses)
    assert training.outcome.reason == f"{steps} steps done"


def test_epochs_and_steps_that_are_equal_give_the_same() -> None:
    problem = small_problem()
    by_epochs = Backprop(epochs=2, batch_size=16).train(problem)
    by_steps = Backprop(steps=8, batch_size=16).train(problem)
    assert same(by_epochs.model, by_steps.model)


def test_options_reach_the_optimizer() -> None:
    problem = small_problem()
    solver = Backprop(torch.optim.SGD, lr=0.1, epochs=2, options={"momentum": 0.9, "weight_decay": 0.1})
    model, _ = by_hand(problem, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), 60, 2)
    assert same(solver.train(problem, generator=seeded()).model, model)


def test_the_cosine_schedule_and_one_of_ones_own() -> None:
    problem = small_problem()
    own = lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(  # noqa: E731
        optimizer, lambda k: (1 + math.cos(math.pi * k / steps)) / 2
    )
    rates = [0.1 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    taken: list[float] = []

    class Noting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            taken.append(float(self.param_groups[0]["lr"]))
            return super().step(closure)

    first = Backprop(Noting, lr=0.1, epochs=2, batch_size=16, schedule="cosine").train(problem)
    assert taken == pytest.approx(rates, rel=1e-12)
    second = Backprop(torch.optim.SGD, lr=0.1, epochs=2, batch_size=16, schedule=own).train(problem)
    torch.testing.assert_close(first.history["loss"], second.history["loss"], rtol=1e-6, atol=0)


def test_validation_keeps_the_best_iterate() -> None:
    # A step size at which the risk jumps about.
    solver = Backprop(torch.optim.SGD, lr=8.0, epochs=15, batch_size=8, validation=0.25)
    problem = small_problem()
    training = solver.train(problem, generator=seeded())
    curve = training.history["validation"]
    assert len(curve) == len(training.history["loss"]) == 16
    best = int(curve.argmin())
    assert best < 15  # otherwise the test would say nothing
    generator = seeded()
    with global_seed(generator):
        held, _ = problem.train.split(15, generator)
    assert problem.with_model(training.model).risk(held) == pytest.approx(float(curve[best]), rel=1e-5)


def test_held_back_samples_are_not_trained_on() -> None:
    x = torch.randn(40, 3, generator=seeded())
    seen: list[Tensor] = []

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled():
                seen.append(x.detach().clone())
            return super().forward(x)

    problem = Problem(Noting(3, 2), Data(x, torch.arange(40) % 2, classes=2))
    seen.clear()
    Backprop(epochs=2, batch_size=7, validation=0.25).train(problem, generator=seeded())
    generator = seeded()
    with global_seed(generator):
        held, rest = problem.train.split(10, generator)
    trained = {tuple(row.tolist()) for batch in seen for row in batch}
    assert trained == {tuple(row.tolist()) for row in rest.x[torch.arange(30)]}
    assert not trained & {tuple(row.tolist()) for row in held.x[torch.arange(10)]}


def test_patience_stops_after_so_many_passes_without_a_better_one() -> None:
    solver = Backprop(torch.optim.SGD, lr=2.0, epochs=500, batch_size=8, validation=0.25, patience=4)
    training = solver.train(small_problem(), generator=seeded())
    curve = training.history["validation"]
    assert training.outcome.status is Status.STOPPED_EARLY
    assert len(curve) - 1 - int(curve.argmin()) == 4 < len(curve) - 1  # it had learnt before


def test_the_goal_is_convergence() -> None:
    training = Backprop(lr=0.05, epochs=200, goal=0.3).train(small_problem())
    loss = training.history["loss"]
    assert training.outcome.converged
    assert loss[-1] <= 0.3 < loss[-2]


@pytest.mark.parametrize("goal", [math.nan, math.inf, -math.inf])
def test_a_goal_is_a_finite_number(goal: float) -> None:
    with pytest.raises(ValueError, match=f"goal={goal}; give a finite number"):
        Backprop(epochs=1, goal=goal)


def test_the_goal_counts_in_the_last_pass_too() -> None:
    problem = small_problem()
    needed = len(Backprop(lr=0.05, epochs=200, goal=0.3).train(problem).history["loss"]) - 1
    assert Backprop(lr=0.05, epochs=needed, goal=0.3).train(problem).outcome.converged
    short = Backprop(lr=0.05, epochs=needed - 1, goal=0.3).train(problem)
    assert short.outcome.status is Status.BUDGET_SPENT


@pytest.mark.parametrize("rate", [1e5, 1e30, 1e300])
def test_divergence_is_an_outcome_with_finite_weights(rate: float) -> None:
    data = blobs(dtype=torch.float64)
    model = mlp((3, 5, 3), activation="relu", init="he", generator=seeded()).double()
    training = Backprop(torch.optim.SGD, lr=rate, epochs=60, batch_size=16).train(Problem(model, data, loss="squared"))
    assert training.outcome.diverged
    assert "not finite" in training.outcome.reason or "step" in training.outcome.reason
    assert all(torch.isfinite(value).all() for value in training.model.state_dict().values())
    assert all(torch.isfinite(values).all() for values in training.history.values())
    # The model is the best one that the training had.
    risk = Problem(training.model, data, loss="squared").risk()
    assert risk == pytest.approx(float(training.history["loss"].min()), rel=1e-9)


def test_a_callback_is_told_and_may_stop() -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return progress.done == 6

    problem = small_problem()
    training = Backprop(torch.optim.SGD, lr=0.1, epochs=5, batch_size=16).train(
        problem, generator=seeded(), callback=stop
    )
    assert training.outcome.status is Status.INTERRUPTED
    assert [progress.done for progress in seen] == [1, 2, 3, 4, 5, 6]
    assert {progress.total for progress in seen} == {20}
    assert all(progress.loss is not None and math.isfinite(progress.loss) for progress in seen)
    model, _ = by_hand(problem, lambda p: torch.optim.SGD(p, lr=0.1), 16, 6)
    assert same(training.model, model)
    assert len(training.history["loss"]) == 3


def test_a_callback_changes_nothing_unless_it_stops() -> None:
    problem = small_problem()
    quiet = Backprop(epochs=2).train(problem, generator=seeded())
    told = Backprop(epochs=2).train(problem, generator=seeded(), callback=lambda _: None)
    assert same(quiet.model, told.model)


def test_lbfgs_solves_least_squares() -> None:
    x = torch.randn(30, 4, generator=seeded(), dtype=torch.float64)
    y = torch.randn(30, 2, generator=seeded(4), dtype=torch.float64)
    problem = Problem(linear(4, 2).double(), Data(x, y), loss="squared")
    options = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-10, "tolerance_change": 1e-16}
    solver = Backprop(torch.optim.LBFGS, lr=1.0, epochs=20, batch_size=None, options=options)
    model = solver.train(problem).model
    design = torch.cat([x, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    exact = torch.linalg.lstsq(design, y).solution
    layer = model[1]  # type: ignore[index]
    # The risk is flat at its minimum: weights are found to the square root of the rounding.
    torch.testing.assert_close(torch.cat([layer.weight.T, layer.bias[None]]).detach(), exact, rtol=0, atol=1e-6)


def test_dropout_is_reproducible_and_follows_the_generator() -> None:
    problem = dropped()
    solver = Backprop(epochs=2, batch_size=None)
    torch.manual_seed(1)
    first = solver.train(problem, generator=seeded(1))
    torch.manual_seed(2)
    assert same(first.model, solver.train(problem, generator=seeded(1)).model)
    assert not same(first.model, solver.train(problem, generator=seeded(2)).model)


def test_the_users_model_hooks_and_generator_are_untouched() -> None:
    problem = dropped()
    problem.model[1].eval()  # type: ignore[index]
    problem.model[0].weight.requires_grad_(False)  # type: ignore[index]
    for value in problem.model.parameters():
        value.grad = torch.ones_like(value)
    hook = problem.model[0].register_forward_hook(lambda *_: None)  # type: ignore[index]
    before = copy.deepcopy(problem.model.state_dict())
    modes = [module.training for module in problem.model.modules()]
    random = torch.random.get_rng_state()
    training = Backprop(epochs=2, batch_size=None).train(problem)
    assert all(torch.equal(value, before[name]) for name, value in problem.model.state_dict().items())
    assert [module.training for module in problem.model.modules()] == modes
    assert all(torch.equal(value.grad, torch.ones_like(value)) for value in problem.model.parameters())  # type: ignore[arg-type]
    assert hook.id in problem.model[0]._forward_hooks  # type: ignore[index]
    assert torch.equal(random, torch.random.get_rng_state())
    # What was frozen is not trained, and the copy has the modes it came with.
    assert torch.equal(training.model[0].weight, before["0.weight"])  # type: ignore[index]
    assert [module.training for module in training.model.modules()] == modes


def test_the_history_of_regression_has_no_error_and_monitors_the_same_samples() -> None:
    x = torch.randn(50, 2, generator=seeded())
    problem = Problem(linear(2, 1), Data(x, x[:, :1]), loss="squared")
    history = Backprop(epochs=3, monitor=10).train(problem).history
    assert set(history) == {"loss", "seconds"}
    assert {len(values) for values in history.values()} == {4}
    # With a step size of zero the monitored risk stays, as the samples do.
    still = Backprop(torch.optim.SGD, lr=0.0, epochs=3, monitor=10).train(problem).history["loss"]
    assert len(set(still.tolist())) == 1
    assert still[0] != pytest.approx(problem.risk(), rel=1e-6)


def test_the_error_is_the_misclassified_fraction() -> None:
    problem = small_problem()
    training = Backprop(epochs=3).train(problem)
    x = problem.train.x
    assert isinstance(x, Tensor)
    wrong = (training.model(x).argmax(1) != problem.train.targets).double().mean()
    assert float(training.history["error"][-1]) == pytest.approx(float(wrong), abs=1e-12)


def test_one_sample() -> None:
    problem = Problem(linear(1, 2), Data(torch.ones(1, 1), torch.tensor([1]), classes=2))
    training = Backprop(torch.optim.SGD, lr=1.0, epochs=20).train(problem)
    assert training.history["error"][-1] == 0


def test_a_last_batch_of_one_sample_does_not_break_batch_norm() -> None:
    # 61 samples in batches of 20 leave one; batch norm has no variance of one sample and raises.
    training = Backprop(epochs=1, batch_size=20).train(dropped(61))
    assert training.outcome.status is Status.BUDGET_SPENT


def test_a_risk_that_is_not_finite_at_the_start_has_a_history() -> None:
    # The third sample is out of the range of single precision once it is squared; the first two are not.
    x = torch.tensor([[0.0], [1.0], [1e30]])
    model = linear(1, 1)
    nn.init.ones_(model[1].weight)
    training = Backprop(epochs=1).train(Problem(model, Data(x, torch.zeros(3, 1)), loss="squared"))
    assert training.outcome.diverged
    assert set(training.history) == {"loss", "seconds"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"epochs": 1, "steps": 1}, "exactly one"),
        ({"epochs": 0}, "at least 1"),
        ({"steps": -3}, "at least 1"),
        ({"epochs": 1, "batch_size": 0}, "batch_size=0"),
        ({"epochs": 1, "schedule": "linear"}, "give one of constant, cosine"),
        ({"epochs": 1, "validation": 1.0}, r"fraction in \[0, 1\)"),
        ({"epochs": 1, "patience": 2}, "needs a validation split"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backprop(**options)
