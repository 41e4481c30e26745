from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError, Problem, global_seed
from whydeep.core.training import Callback, Outcome, Status, Training
from whydeep.generalization.experiments.random_labels import (
    CORRUPTIONS,
    compare_labels,
    fit_corrupted,
    half_random_labels,
)
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop

SOLVER = Backprop(torch.optim.Adam, lr=1e-2, epochs=40, batch_size=15)


def fresh(generator: torch.Generator) -> nn.Module:
    with global_seed(generator):
        return mlp((3, 200, 3))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_true_labels_are_fitted_sooner_than_random_ones() -> None:
    found = compare_labels(blobs(45), SOLVER, fresh=fresh, generator=seeded(0))
    assert found.true.passes is not None
    assert found.random.passes is None or found.random.passes > found.true.passes
    # Same start: before the first step only the labels differ, so both begin near the error of guessing, 2/3.
    assert len(found.true.error) == len(found.random.error) == 41
    assert float(found.random.error[10]) > float(found.true.error[10]) + 0.2


def test_as_many_weights_as_needed_memorise_a_few_samples() -> None:
    # Width 200 > 2 n + d for n = 8 samples (Zhang et al. 2017, finite-sample expressivity): it can, and it does.
    solver = Backprop(torch.optim.Adam, lr=1e-2, epochs=150, batch_size=None)
    found = compare_labels(blobs(8), solver, fresh=fresh, generator=seeded(1))
    assert found.random.passes is not None
    assert found.slowdown is not None
    assert float(found.random.error[found.random.passes]) == 0
    assert float(found.random.error[found.random.passes - 1]) > 0.01


def test_a_network_that_cannot_fit_is_not_said_to() -> None:
    """One-dimensional inputs that are all the same: no function of them fits two labels."""
    data = Data(torch.zeros(20, 1), torch.arange(20) % 2, classes=2)
    found = compare_labels(data, SOLVER, fresh=lambda g: mlp((1, 5, 2)), generator=seeded(0))
    assert found.random.passes is None
    assert found.slowdown is None
    assert float(found.random.error[-1]) == 0.5


def test_same_seed_same_curves() -> None:
    one, two = (compare_labels(blobs(30), SOLVER, fresh=fresh, generator=seeded(4)) for _ in range(2))
    assert torch.equal(one.true.error, two.true.error)
    assert torch.equal(one.random.error, two.random.error)


def test_the_global_generator_and_the_data_are_left_alone() -> None:
    data = blobs(30)
    before, labels = torch.random.get_rng_state(), data.targets.clone()
    compare_labels(data, SOLVER, fresh=fresh)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(labels, data.targets)


@dataclass(frozen=True)
class Silent:
    """A solver that records no error and returns a network that always says class 0."""

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        model = mlp((3, 3))
        nn.init.zeros_(model[1].weight)
        model[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
        return Training(model, {"loss": torch.zeros(8)}, Outcome(Status.BUDGET_SPENT), 0.0)


def test_solvers_that_record_no_error_are_measured_at_the_end() -> None:
    found = compare_labels(blobs(30), Silent(), fresh=fresh)
    assert found.true.error.tolist() == pytest.approx([2 / 3])
    assert found.true.passes is None
    assert found.true.budget == 7


def test_regression_is_refused() -> None:
    with pytest.raises(InputError, match="no classes"):
        compare_labels(Data(torch.zeros(3, 3), torch.zeros(3, 1)), SOLVER, fresh=fresh)


def test_each_corruption_is_fitted_from_the_same_start() -> None:
    seen: list[Problem] = []

    @dataclass(frozen=True)
    class Spy:
        def train(self, problem: Problem, **rest: object) -> Training:
            seen.append(problem)
            return Silent().train(problem)

    data = blobs(30)
    fits = fit_corrupted(data, Spy(), fresh=fresh)  # type: ignore[arg-type]
    assert list(fits) == list(CORRUPTIONS)
    starts = [problem.vector() for problem in seen]
    assert all(torch.equal(one, starts[0]) for one in starts)
    by_name = dict(zip(fits, seen, strict=True))
    for name, problem in by_name.items():
        assert torch.equal(problem.train.targets, data.targets) == ("random" not in name or "pixels" in name)
        assert torch.equal(problem.train.x, data.x) == ("pixels" not in name)


def test_half_random_labels_leave_as_many_right_as_drawing_half_anew_would() -> None:
    data = blobs(300)
    right = (half_random_labels(data).targets == data.targets).double().mean()
    assert float(right) == pytest.approx(1 / 2 + 1 / 2 / 3)


def test_an_unknown_corruption_is_named() -> None:
    with pytest.raises(ValueError, match="unknown corruption turned"):
        fit_corrupted(blobs(9), SOLVER, fresh=fresh, corruptions=("turned",))
