"""The loop of the alternating methods: a training that collapses is taken back to its best weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from whydeep.core import Data, Problem, Status
from whydeep.core.training import Training
from whydeep.networks import linear
from whydeep.optimization import ADMM, BCD, DLADMM, StochasticADMM, TaylorADMM
from whydeep.optimization.alternating.sweeps import COLLAPSE, RESTARTS, collapsed, train_in_sweeps


@dataclass(frozen=True)
class Settings:
    sweeps: int
    validation: float = 0.0
    tolerance: float = 0.0


class Scripted:
    """Weights (w, 0) that follow a script, over and over again after each restart; restarts are written down."""

    def __init__(self, path: Sequence[float], *, yields: bool = True) -> None:
        self.path, self.yields, self.at = path, yields, -1
        self.taken_back_to: list[float] = []

    def sweep(self) -> None:
        self.at += 1

    def weights(self) -> tuple[Tensor, ...]:
        value = 10.0 if self.at < 0 else self.path[min(self.at, len(self.path) - 1)]
        return (torch.tensor([[value, 0.0]], dtype=torch.float64),)

    def monitor(self) -> dict[str, float]:
        return {}

    def restart(self, weights: tuple[Tensor, ...]) -> bool:
        self.taken_back_to.append(float(weights[0][0, 0]))
        self.at = -1
        return self.yields


def run(script: Scripted, sweeps: int) -> Training:
    # One sample x = 1, y = 0: the risk is w^2/2, 50 at the start.
    data = Data(torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    problem = Problem(linear(1, 1).double(), data, loss="squared")
    return train_in_sweeps(Settings(sweeps), problem, lambda chain, train: script, name="scripted")


def test_a_collapse_is_taken_back_to_the_best_weights() -> None:
    script = Scripted([1.0, *[8.0] * COLLAPSE])  # .5, then 32 > .5 + 49.5/3
    training = run(script, 1 + COLLAPSE + 1)
    assert script.taken_back_to == [1.0]
    assert training.outcome.status is Status.BUDGET_SPENT
    assert "1 times taken back" in training.outcome.reason
    assert training.history["loss"].tolist() == [50.0, 0.5, *[32.0] * COLLAPSE, 0.5]


@pytest.mark.parametrize(
    "path",
    [
        [1.0, *[8.0] * (COLLAPSE - 1), 1.0] * 3,  # back in time
        [8.0, *[12.0] * 20],  # it has not halved the risk yet
        [1.0, *[3.0] * 20],  # 4.5: a third of the gain is 16.5
        [1e-9, *[1e-8] * 20],  # a hundredfold risk, and nothing lost
    ],
)
def test_what_is_no_collapse(path: list[float]) -> None:
    script = Scripted(path)
    assert "taken back" not in run(script, 15).outcome.reason
    assert script.taken_back_to == []


def test_after_a_restart_the_old_sweeps_do_not_count() -> None:
    assert collapsed([50.0, 0.5, *[32.0] * COLLAPSE])
    assert not collapsed([50.0, 0.5, *[32.0] * COLLAPSE, 32.0], fresh=2 + COLLAPSE)
    assert collapsed([50.0, 0.5, *[32.0] * (2 * COLLAPSE)], fresh=2 + COLLAPSE)


def test_collapses_alone_never_end_a_training() -> None:
    script = Scripted([1.0, *[8.0] * COLLAPSE])
    sweeps = (1 + COLLAPSE) * (RESTARTS + 3)
    training = run(script, sweeps)
    assert len(script.taken_back_to) == RESTARTS
    assert training.outcome.status is Status.BUDGET_SPENT
    assert len(training.history["loss"]) == 1 + sweeps
    # A method that cannot be more cautious goes on.
    assert run(Scripted([1.0, *[8.0] * COLLAPSE], yields=False), sweeps).outcome.status is Status.BUDGET_SPENT


@pytest.mark.parametrize("solver", [ADMM, BCD, DLADMM, StochasticADMM, TaylorADMM])
def test_states_are_kept_in_single_or_double_precision(solver: Callable[..., Any]) -> None:
    for dtype in (None, torch.float32, torch.float64):
        assert solver(dtype=dtype).dtype is dtype
    for dtype in (torch.float16, torch.int64, "float32", float):
        with pytest.raises(ValueError, match=r"^dtype=.*; give torch.float32, torch.float64 or None$"):
            solver(dtype=dtype)
