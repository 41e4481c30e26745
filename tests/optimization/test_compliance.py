import math
from itertools import pairwise

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, Problem
from whydeep.networks import mlp
from whydeep.optimization import ADMM, compliance
from whydeep.optimization.compliance import Ladder, Rung, climb, explained, smallest_convergent
from whydeep.optimization.conditions import theorem_conditions
from whydeep.optimization.lagrangian import lagrangian_of


def slide_network(widths=(3, 4, 4, 3)):
    """Two sigmoid layers without biases, as on the slide."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(a, b, bias=False, dtype=torch.float64) for a, b in pairwise(widths)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, gain=4.0, generator=generator)
    return nn.Sequential(layers[0], nn.Sigmoid(), layers[1], nn.Sigmoid(), layers[2])


def slide_problem():
    return Problem(slide_network(), blobs(20, dtype=torch.float64), loss="squared")


def test_a_run_has_the_residuals_of_admm():
    # ADMM's own loop updates samples in parts and in place; its settings are the same.
    problem = Problem(mlp((3, 5, 4, 3), activation="tanh").double(), blobs(30, dtype=torch.float64), loss="squared")
    run = climb(problem, 0.0, betas=(1.0, 0.7, 2.0), ridge=0.1, sweeps=6, tolerance=0.0)
    history = ADMM(sweeps=6, beta=(1.0, 0.7, 2.0), ridge=0.1).train(problem).history
    # Sums over samples in another order, amplified by six sweeps.
    assert list(run.kkt) == pytest.approx(history["kkt"].tolist(), rel=1e-8)
    scale = math.sqrt(float(problem.train.x.square().sum()) + 30 + 30)
    assert math.hypot(*(norm for norms in run.by_layer for norm in norms)) / scale == pytest.approx(run.kkt[-1])


def test_explained_is_zero_for_nought_and_one_for_the_targets():
    line = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    lagrangian = lagrangian_of(Problem(line, Data(x, 3 * x), loss="squared"))

    def share(slope):
        return explained(lagrangian, (torch.tensor([[slope]], dtype=torch.float64),), x)

    assert share(0.0) == 0
    assert share(3.0) == 1
    assert share(2.0) == pytest.approx(1 - 1 / 9)  # errors of x, against targets of 3 x
    assert share(-3.0) == pytest.approx(-3)


def test_a_compliant_run_converges_to_a_network_that_explains_no_more_than_its_cap():
    problem = slide_problem()
    betas, ridge = theorem_conditions(problem).compliant()
    run = climb(problem, 1.0, betas=betas, ridge=ridge, sweeps=200, tolerance=1e-6)
    assert run.converged
    cap = theorem_conditions(problem, betas, ridge).cap
    assert 0 < run.explained <= 1 - (1 - cap) ** 2 < 0.01
    free = climb(problem, 0.0, betas=(1.0, 1.0, 1.0), ridge=1e-2, sweeps=200, tolerance=1e-6)
    assert free.explained > 0.5
    assert not free.converged


def test_the_ladder_goes_by_equal_factors_from_compliant_to_useful():
    ladder = smallest_convergent(slide_problem(), useful_beta=2.0, useful_ridge=0.5, rungs=3, sweeps=2)
    top, middle, bottom = ladder.rungs
    assert [rung.position for rung in ladder.rungs] == [1, 0.5, 0]
    assert (top.betas, top.ridge) == theorem_conditions(slide_problem()).compliant()
    assert theorem_conditions(slide_problem(), top.betas, top.ridge).hold
    assert (bottom.betas, bottom.ridge) == ((2.0, 2.0, 2.0), 0.5)
    assert middle.ridge == pytest.approx(math.sqrt(top.ridge * bottom.ridge))
    assert list(middle.betas) == pytest.approx([math.sqrt(2 * beta) for beta in top.betas])
    assert {len(rung.kkt) for rung in ladder.rungs} == {3}


def rung(position, converged):
    return Rung(position, (1.0,), 1.0, (1.0,), (), 0.0, converged)


def test_the_smallest_is_the_lowest_that_converged():
    rungs = [rung(1.0, True), rung(0.5, True), rung(0.25, False), rung(0.0, False)]
    assert Ladder(tuple(rungs), 10, 1e-6).smallest is rungs[1]
    assert Ladder((rung(1.0, False), rung(0.0, False)), 10, 1e-6).smallest is None


def test_a_step_that_breaks_down_ends_the_run_and_is_named(monkeypatch):
    done, real = [], compliance.sweep

    def breaking(*given):
        done.append(1)
        if len(done) == 3:
            raise ArithmeticError("a pivot is negative")
        return real(*given)

    monkeypatch.setattr(compliance, "sweep", breaking)
    run = climb(slide_problem(), 0.0, betas=(1.0, 1.0, 1.0), ridge=0.1, sweeps=9, tolerance=math.inf)
    assert run.fault == "a pivot is negative in sweep 3"
    assert len(run.kkt) == 3
    assert not run.converged


def test_what_cannot_be_climbed():
    with pytest.raises(ValueError, match="at least 2"):
        smallest_convergent(slide_problem(), rungs=1)
    shallow = Problem(mlp((3, 4, 3), activation="sigmoid"), blobs(), loss="squared")
    with pytest.raises(ValueError, match="two hidden layers"):
        smallest_convergent(shallow)
