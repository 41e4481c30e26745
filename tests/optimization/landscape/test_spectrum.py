"""Eigenvalues and trace against dense linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import small_problem
from torch import Tensor
from torch.autograd.functional import hessian as dense_hessian

from whydeep.core import Data, Problem
from whydeep.networks import linear
from whydeep.optimization.landscape.spectrum import extremes, spectrum, trace


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(values: Tensor) -> Tensor:
    turn, _ = torch.linalg.qr(normal(len(values), len(values)))
    return turn * values @ turn.T


def test_a_known_spectrum_is_found_within_the_residuals() -> None:
    values = torch.cat([torch.tensor([-3.0, 7.0, 10.0]).double(), torch.linspace(-1, 1, 197).double()])
    a = rotated(values)
    ends = extremes(lambda v: a @ v, normal(200, seed=1), steps=60, tolerance=1e-6)
    for pair, truth in ((ends.largest, 10.0), (ends.smallest, -3.0)):
        assert abs(pair.value - truth) <= pair.residual + 1e-12
        assert pair.residual <= 1e-4
        assert float((a @ pair.vector - pair.value * pair.vector).norm()) == pytest.approx(pair.residual, abs=1e-12)
    assert len(ends.basis) < 60, "both ends are separated: it stops early"
    gram = ends.basis @ ends.basis.T
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-12)
    assert ends.captured == pytest.approx(float(torch.trace(ends.basis @ a @ ends.basis.T)), rel=1e-10)


def test_an_unfinished_run_says_so_by_its_residual_and_by_what_it_may_not_have_seen() -> None:
    values = torch.linspace(0, 1, 400, dtype=torch.float64)
    a = rotated(values)
    short = 0
    for seed in range(40):
        ends = extremes(lambda v: a @ v, normal(400, seed=seed + 1), steps=8)
        assert ends.largest.value <= 1 + 1e-12, "a Ritz value never exceeds the largest eigenvalue"
        assert float((values - ends.largest.value).abs().min()) <= ends.largest.residual
        short += ends.largest.value + ends.unseen < 1
    # The bound fails with probability at most 2.5 % a run; 6 or more of 40 would have probability below 0.1 %.
    assert short <= 5
    assert math.isinf(extremes(lambda v: a @ v, normal(400), steps=2).unseen)


@pytest.mark.parametrize("values", [[4.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [-1.0, 5.0]], ids=str)
def test_small_and_degenerate_matrices(values: list[float]) -> None:
    a = rotated(torch.tensor(values, dtype=torch.float64))
    ends = extremes(lambda v: a @ v, normal(len(values), seed=1))
    assert ends.largest.value == pytest.approx(max(values), abs=1e-12)
    assert ends.smallest.value == pytest.approx(min(values), abs=1e-12)


def test_the_start_must_not_be_zero() -> None:
    with pytest.raises(ValueError, match="give a start that is not zero"):
        extremes(lambda v: v, torch.zeros(3))


@pytest.mark.parametrize("deflated", [False, True])
def test_the_trace_is_unbiased_and_its_error_is_that_of_the_probes(deflated: bool) -> None:
    values = torch.cat([torch.tensor([50.0, 20.0]).double(), torch.linspace(-1, 1, 98).double()])
    a = rotated(values)
    rest = {}
    if deflated:
        ends = extremes(lambda v: a @ v, normal(100, seed=1), steps=10)
        rest = {"basis": ends.basis, "captured": ends.captured}
    runs = [
        trace(lambda v: a @ v, normal(100), probes=16, generator=torch.Generator().manual_seed(seed), **rest)
        for seed in range(100)
    ]
    centres = np.array([run.value for run in runs])
    truth = float(values.sum())
    assert abs(centres.mean() - truth) < 4 * centres.std(ddof=1) / 10, "a z-test over 100 runs"
    # One probe has variance 2 (|A|_F^2 - sum of squared diagonal entries); a run averages 16 of them.
    if not deflated:
        expected = math.sqrt(2 * float(a.square().sum() - a.diagonal().square().sum()) / 16)
        assert centres.std(ddof=1) == pytest.approx(expected, rel=0.3)  # 4 standard errors of a deviation over 100
    else:
        assert centres.std(ddof=1) < 3, "without the two large eigenvalues the deviation is below 2, with them 18"
    covered = sum(run.low <= truth <= run.high for run in runs)
    assert covered >= 87, "95 % intervals: 86 or fewer of 100 have probability below 0.1 %"


def test_the_trace_needs_two_probes() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        trace(lambda v: v, torch.ones(3), probes=1)


def _dense(problem: Problem) -> Tensor:
    shapes = [value.shape for value in problem.model.parameters()]
    names = [name for name, _ in problem.model.named_parameters()]

    def risk(vector: Tensor) -> Tensor:
        pieces = vector.split([shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        output = torch.func.functional_call(problem.model, weights, (problem.train.x,))
        return problem.per_sample(output, problem.train.targets).mean()

    return dense_hessian(risk, problem.vector())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_spectrum_of_a_network_agrees_with_its_dense_hessian(activation: str) -> None:
    problem = small_problem(activation, dtype=torch.float64)
    truth = torch.linalg.eigvalsh(_dense(problem))
    seen = spectrum(problem, steps=25, probes=30, tolerance=1e-6)
    # 1e-10: rounding of two routes to the same Hessian.
    assert seen.largest.low - 1e-10 <= float(truth[-1]) <= seen.largest.high + 1e-10
    assert seen.smallest.low - 1e-10 <= float(truth[0]) <= seen.smallest.high + 1e-10
    assert seen.trace.low <= float(truth.sum()) <= seen.trace.high
    assert seen.products <= 25 + 2 + 30
    assert float(truth[-1]) <= seen.largest.value + seen.unseen


def test_visiting_every_direction_gives_the_trace_without_error() -> None:
    x = normal(30, 2)
    problem = Problem(linear(2, 1).double(), Data(x, normal(30, 1, seed=1)), loss="squared")
    seen = spectrum(problem, tolerance=0.0)
    # Hessian [[mean x x^T, mean x], [., 1]]: its trace is the mean of |x|^2 plus one.
    assert seen.trace.low == seen.trace.high == pytest.approx(float(x.square().sum(1).mean()) + 1, rel=1e-12)
    assert seen.unseen == 0


def test_the_same_generator_gives_the_same_spectrum() -> None:
    first, second = (spectrum(small_problem(), generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.largest.value == second.largest.value
    assert first.trace.value == second.trace.value
