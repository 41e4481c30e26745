import math

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, Problem
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.lagrangian.compliance import Rung, ladder, smallest_convergent
from whydeep.optimization.lagrangian.conditions import theorem_conditions


def problem(loss="squared"):
    model = nn.Sequential(
        nn.Linear(2, 4, bias=False),
        nn.Sigmoid(),
        nn.Linear(4, 3, bias=False),
        nn.Sigmoid(),
        nn.Linear(3, 1, bias=False),
    ).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 2, generator=generator)
    x = torch.randn(20, 2, dtype=torch.float64, generator=generator)
    return Problem(model, Data(x, x[:, :1] * x[:, 1:]), loss=loss)


def test_compliance_converges_and_switches_the_network_off():
    given = problem()
    low, middle, high = ladder(given, shares=(1.0, 0.0, 0.5), sweeps=60)
    assert [rung.share for rung in (low, middle, high)] == [0.0, 0.5, 1.0]
    betas, ridge = theorem_conditions(given).compliant()
    assert low.beta == (1.0, 1.0, 1.0)
    assert low.ridge == pytest.approx(1e-2)
    assert middle.beta == pytest.approx([math.sqrt(beta) for beta in betas])
    assert middle.ridge == pytest.approx(math.sqrt(1e-2 * ridge))
    assert (high.beta, high.ridge) == (betas, ridge)
    assert theorem_conditions(given, high.beta, high.ridge).hold
    assert high.converged
    # Outputs of at most cap ||Y|| leave a loss of at least (1 - cap)^2 of that of outputs zero.
    for rung in (middle, high):
        assert rung.converged
        assert (1 - rung.cap) ** 2 <= rung.fit <= 1 + 1e-9
    assert high.cap < 1e-6
    assert not low.converged
    assert smallest_convergent((low, middle, high)) == middle


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_rung_keeps_the_path_and_the_end_of_the_solver_with_its_parameters(share):
    given = problem()
    (rung,) = ladder(given, shares=(share,), sweeps=12)
    training = ADMM(sweeps=12, beta=rung.beta, ridge=rung.ridge, tolerance=0.0).train(given)
    # Two ways of writing the same sweeps and residuals; the solver divides by the norm of [X, 1, Y].
    x, y = given.train.x, given.train.targets
    ratio = math.sqrt(1 + len(x) / float(x.square().sum() + y.square().sum()))
    assert rung.path == pytest.approx((training.history["kkt"] * ratio).tolist(), rel=1e-9)
    assert rung.kkt == rung.path[-1]
    for one, other in zip(rung.weights, Chain.of(training.model).weights(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    loss = float(training.history["loss"][-1]) * len(x)  # 1/2 of the squares, as a mean
    assert rung.fit == pytest.approx(2 * loss / float(y.square().sum()), rel=1e-9)


def rung(share, converged):
    return Rung(share, (1.0,), 1.0, 0.0, 1.0, None, converged, (0.0,), ())


def test_the_smallest_convergent_is_the_foot_of_the_unbroken_part():
    rungs = [rung(0.0, True), rung(0.5, False), rung(0.75, True), rung(1.0, True)]
    assert smallest_convergent(rungs).share == 0.75
    assert smallest_convergent(rungs[:2]) is None
    assert smallest_convergent([]) is None


def test_bad_input():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 3)).double()
    with pytest.raises(ValueError, match="give a network with two hidden layers"):
        ladder(Problem(model, blobs(dtype=torch.float64), loss="squared"))
    with pytest.raises(ValueError, match="the loss is cross_entropy"):
        ladder(Problem(model, blobs(dtype=torch.float64)))
