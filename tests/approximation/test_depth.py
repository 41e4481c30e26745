import math
from dataclasses import dataclass

import pytest
import torch
from problems import blobs
from scipy import stats
from torch import nn

from whydeep.approximation.depth import (
    Contender,
    average,
    compete,
    matching_width,
    rule_of_three,
    scores,
)
from whydeep.core import Data, Outcome, Problem, Training
from whydeep.core.training import Status
from whydeep.networks import linear, mlp


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 10), (784, 10), (3, 1)])
@pytest.mark.parametrize("hidden", [1, 2, 5])
def test_the_width_is_the_nearest_of_all(inputs: int, outputs: int, hidden: int) -> None:
    def count(width: int) -> int:
        widths = (inputs, *[width] * hidden, outputs)
        return sum(p.numel() for p in mlp(widths).parameters())

    for parameters in (1, 700, 2001, 5000):
        best = min(range(1, 60 if inputs < 100 else 12), key=lambda width: abs(count(width) - parameters))
        found = matching_width(parameters, inputs=inputs, outputs=outputs, hidden=hidden)
        if best < (59 if inputs < 100 else 11):  # the search by hand did not end at its edge
            assert abs(count(found) - parameters) == abs(count(best) - parameters)
    with pytest.raises(ValueError, match="at least one"):
        matching_width(100, inputs=1, outputs=1, hidden=0)


def test_the_interval_by_hand() -> None:
    values = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    # Means over samples 1/2, 3/4: variance 1/32, u = 1/64. Means over seeds 1/2, 1, 0, 1: variance 11/48, v = 11/192.
    u, v = 1 / 64, 11 / 192
    freedom = (u + v) ** 2 / (u**2 / 1 + v**2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(u + v)
    found = average("error", values, unit="fraction")
    assert math.isclose(found.value, 5 / 8)
    assert math.isclose(found.high - found.value, half, rel_tol=1e-12)


def test_the_interval_covers_when_seeds_samples_and_both_vary() -> None:
    # 95 % intervals around a true mean of 0 in a two-way layout, in three regimes. They may cover more (the interaction
    # is counted twice), and Satterthwaite's degrees of freedom are approximate with 4 seeds: at least 92 %, of 1,500
    # layouts, where the standard error is 0.6 points.
    generator = torch.Generator().manual_seed(0)
    for by_seed, by_sample, interaction in [(1.0, 0.1, 0.1), (0.1, 3.0, 0.1), (0.3, 1.0, 3.0)]:
        covered = 0
        for _ in range(1500):
            a, b, e = (
                torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 1), (1, 30), (4, 30))
            )
            found = average("mean", by_seed * a + by_sample * b + interaction * e, unit="")
            covered += found.low <= 0 <= found.high
        assert covered / 1500 > 0.92


def test_samples_alone_would_not_cover() -> None:
    # The reason for the seed term: without it, differences between trainings are taken for real ones.
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for _ in range(300):
        values = torch.randn(4, 1, generator=generator) + 0.1 * torch.randn(4, 100, generator=generator)
        per_sample = values.mean(0)
        missed += abs(float(values.mean())) > 1.96 * float(per_sample.std()) / 10
    assert missed / 300 > 0.5


def test_complete_agreement_still_leaves_the_rule_of_three() -> None:
    n = 50
    limit = rule_of_three(n)
    assert math.isclose((1 - limit) ** n, 0.05, rel_tol=1e-12)
    found = average("difference", torch.zeros(3, n), resolution=limit, unit="fraction")
    assert (found.low, found.value, found.high) == (-limit, 0.0, limit)
    with pytest.raises(ValueError, match="at least 2"):
        average("difference", torch.zeros(1, n), unit="")


@dataclass(frozen=True)
class Fixed:
    """A solver that returns the linear network of a given matrix, whatever the data."""

    scale: float

    def train(self, problem: Problem, *, generator=None, callback=None) -> Training:
        model = linear(3, 3)
        with torch.no_grad():
            model[1].weight.copy_(self.scale * torch.eye(3))
            model[1].bias.zero_()
        return Training(model, {}, Outcome(Status.BUDGET_SPENT), 0.0)


def test_the_setting_is_chosen_on_validation_and_tested_once() -> None:
    built = []

    def build(generator: torch.Generator) -> nn.Module:
        built.append(torch.rand(1, generator=generator))
        return linear(3, 3)

    problem = Problem(linear(3, 3), blobs(90), blobs(30))
    contender = Contender("any", build, {"wrong sign": Fixed(-1.0), "right": Fixed(5.0), "flat": Fixed(1.0)})
    (trial,) = compete(problem, (contender,), seeds=2)
    # Scale 5 and 1 classify alike; the tie goes to the lower cross-entropy. Blobs are at unit distance, sd 0.3.
    assert trial.setting == "right"
    assert trial.trainings == 6
    assert len(built) == 2  # one start a seed, shared by the settings
    assert built[0] != built[1]
    expected = scores(problem.with_model(Fixed(5.0).train(problem).model), problem.test)
    assert torch.equal(trial.test, torch.stack([expected, expected]))
    assert trial.parameters == 12


def test_regression_scores_are_losses_and_missing_test_data_are_refused() -> None:
    data = Data(torch.rand(20, 2), torch.rand(20, 1))
    problem = Problem(linear(2, 1), data, data, loss="squared")
    residual = (problem.model(data.x) - data.y).detach()
    assert torch.allclose(scores(problem, data), 0.5 * residual[:, 0].double() ** 2)
    with pytest.raises(ValueError, match="test data"):
        compete(Problem(linear(2, 1), data, loss="squared"), (), seeds=2)
    with pytest.raises(ValueError, match="at least 2"):
        compete(problem, (), seeds=1)
    with pytest.raises(ValueError, match="no settings"):
        compete(problem, (Contender("none", lambda g: linear(2, 1), {}),), seeds=2)
