from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError, Problem, global_seed
from whydeep.generalization.experiments.learning_curve import LearningCurve, Overtraining, gap_by_samples, overtrain
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop


def fresh(generator: torch.Generator) -> nn.Module:
    with global_seed(generator):
        return mlp((3, 8, 3))


def test_an_exact_power_is_found_and_a_negative_gap_has_none() -> None:
    sizes = (10, 40, 160)
    gaps = [5 / n for n in sizes]
    found = LearningCurve(sizes, [[0.1] * 3] * 2, [[0.1 + gap for gap in gaps]] * 2, 100)
    assert found.exponent == pytest.approx(-1)
    assert np.allclose(found.gaps, [gaps, gaps])
    assert LearningCurve(sizes, [[0.2, 0.2, 0.2]], [[0.3, 0.1, 0.25]], 100).exponent is None
    assert LearningCurve((5,), [[0.0]], [[0.1]], 100).exponent is None


def test_the_exponent_has_the_interval_of_its_jackknife() -> None:
    sizes = (10, 40)
    # Gaps that fall by a factor 4 and by 2 for a factor 4 of samples: slopes -1 and -1/2 of the seeds alone. Both
    # together fall from 0.3 to 0.1, slope -ln 3 / ln 4; with two seeds a pseudo-value is twice that minus the other's.
    found = LearningCurve(sizes, [[0.0, 0.0]] * 2, [[0.2, 0.05], [0.1, 0.05]], 100)
    whole = -np.log(3) / np.log(4)
    assert found.exponent == pytest.approx(whole)
    assert found.exponents == pytest.approx([2 * whole + 0.5, 2 * whole + 1])
    # The same gaps at every seed: no spread. A power that one seed alone carries is none.
    assert LearningCurve(sizes, [[0.0, 0.0]] * 3, [[0.2, 0.1]] * 3, 100).exponents == pytest.approx([-0.5] * 3)
    assert LearningCurve(sizes, [[0.0, 0.0]] * 2, [[0.2, 0.1], [0.1, -0.01]], 100).exponents is None
    assert LearningCurve(sizes, [[0.0, 0.0]], [[0.2, 0.1]], 100).exponents is None


def test_parts_are_nested_and_errors_are_of_the_part() -> None:
    seen: list[Data] = []

    class Spy:
        def train(self, problem: Problem, **rest: object) -> object:
            seen.append(problem.train)
            return Backprop(epochs=1).train(problem)

    found = gap_by_samples(blobs(30), blobs(20), Spy(), fresh=fresh, sizes=(5, 30), seeds=2)  # type: ignore[arg-type]
    assert [len(part) for part in seen] == [5, 30, 5, 30]
    assert torch.equal(seen[0].x, seen[1].x[:5])
    assert not torch.equal(seen[0].x, seen[2].x)
    assert np.asarray(found.train_error).shape == (2, 2)


def test_a_longer_training_passes_through_the_shorter_ones() -> None:
    """One solver of four passes records the training risks; the ones found must be those of passes 1, 2 and 4."""
    problem = Problem(fresh(torch.Generator().manual_seed(0)), blobs(30), blobs(20))
    found = overtrain(
        problem,
        lambda passes: Backprop(torch.optim.SGD, lr=0.1, epochs=passes, batch_size=10),
        passes=(1, 2, 4),
        generator=torch.Generator().manual_seed(3),
    )
    whole = Backprop(torch.optim.SGD, lr=0.1, epochs=4, batch_size=10).train(
        problem, generator=torch.Generator().manual_seed(3)
    )
    assert found.train_risk == pytest.approx(whole.history["loss"][[1, 2, 4]].tolist(), rel=1e-5)
    assert found.train_error == pytest.approx(whole.history["error"][[1, 2, 4]].tolist())


def test_rises_are_measured_from_the_least_test_risk() -> None:
    found = Overtraining((1, 2, 4), (1.0, 0.5, 0.1), (0.8, 0.4, 1.0), (0.3, 0.1, 0.0), (0.3, 0.2, 0.25))
    assert found.risk_rise == pytest.approx(2.5)
    assert found.error_rise == pytest.approx(0.05)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="sizes"):
        gap_by_samples(blobs(30), blobs(20), Backprop(epochs=1), fresh=fresh, sizes=(31,))
    with pytest.raises(InputError, match="no classes"):
        gap_by_samples(
            Data(torch.zeros(4, 3), torch.zeros(4, 3)), blobs(20), Backprop(epochs=1), fresh=fresh, sizes=(2,)
        )
    problem = Problem(mlp((3, 3)), blobs(30))
    with pytest.raises(InputError, match="no test data"):
        overtrain(problem, lambda passes: Backprop(epochs=passes), passes=(1,))
    with pytest.raises(ValueError, match="passes"):
        overtrain(Problem(mlp((3, 3)), blobs(30), blobs(9)), lambda p: Backprop(epochs=p), passes=())
