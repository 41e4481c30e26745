"""A Langevin run against the same steps written out, and what it promises of its path."""

from __future__ import annotations

import math

import pytest
import torch
from problems import small_problem

from whydeep.core import parameters
from whydeep.core.training import Status
from whydeep.optimization import SGLD
from whydeep.optimization.langevin.run import langevin_run


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_full_batches_are_the_gradient_of_all_samples() -> None:
    problem = small_problem(dtype=torch.float64)
    run = langevin_run(problem, lr=0.3, beta=math.inf, steps=6)
    w, path = problem.vector(), []
    for _ in range(6):
        w = w - 0.3 * problem.at(w).gradient()
        path.append(w)
    torch.testing.assert_close(problem.with_model(run.model).vector(), w, rtol=1e-10, atol=1e-13)
    mean = torch.stack(path[3:]).mean(0)
    torch.testing.assert_close(problem.with_model(run.average).vector(), mean, rtol=1e-10, atol=1e-13)
    risks = [problem.risk()] + [problem.at(v).risk() for v in path[:-1]]
    assert run.loss.tolist() == pytest.approx(risks, rel=1e-10)


def test_a_prior_does_not_change_the_path_and_follows_its_part() -> None:
    problem = small_problem(dtype=torch.float64)
    run = langevin_run(problem, lr=0.3, beta=40.0, steps=5, prior_samples=45, generator=seeded())
    assert run.prior_part is not None
    assert run.unseen is not None
    assert (len(run.prior_part), len(run.unseen)) == (45, 15)
    both = torch.cat([run.prior_part.x, run.unseen.x])
    assert sorted(both[:, 0].tolist()) == sorted(problem.train.x[:, 0].tolist())
    # One step from the same start: the divergences from the gradients themselves.
    one = langevin_run(problem, lr=0.3, beta=40.0, steps=1, prior_samples=45, generator=seeded())
    assert one.prior_part is not None
    full, part = problem.gradient(), problem.gradient(one.prior_part)
    path = one.optimizer.path
    assert path.prior is not None
    assert path.data_free.divergence == pytest.approx(40 * 0.3 / 4 * float(full.square().sum()), rel=1e-10)
    assert path.prior.divergence == pytest.approx(40 * 0.3 / 4 * float((full - part).square().sum()), rel=1e-10)


def test_batches_are_drawn_anew() -> None:
    problem = small_problem(dtype=torch.float64)
    run = langevin_run(problem, lr=1e-9, beta=math.inf, steps=40, batch_size=6, generator=seeded())
    assert len(set(run.loss.tolist())) == 40
    # The weights hardly move, so the batch risks average to the risk: four standard errors, without replacement.
    assert float(run.loss.mean()) == pytest.approx(problem.risk(), abs=4 * float(run.loss.std()) / math.sqrt(40))
    assert langevin_run(problem, lr=0.1, beta=9.0, steps=2, batch_size=10**6).optimizer.path.steps == 2


def test_same_seed_same_path_and_the_users_model_is_left_alone() -> None:
    problem = small_problem()
    before = problem.vector()
    state = torch.random.get_rng_state()
    one, two, other = (langevin_run(problem, lr=0.1, beta=100.0, steps=4, generator=seeded(s)) for s in (1, 1, 2))
    vectors = [parameters.flatten(parameters.named(run.model)) for run in (one, two, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert torch.equal(problem.vector(), before)
    assert all(value.grad is None for value in problem.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(one.optimizer, SGLD)


def test_divergence_is_an_outcome() -> None:
    problem = small_problem("relu")
    run = langevin_run(problem, lr=1e38, beta=math.inf, steps=10)
    assert run.outcome.status is Status.DIVERGED
    for model in (run.model, run.average):
        assert torch.equal(problem.with_model(model).vector(), problem.vector())
    assert langevin_run(small_problem(), lr=0.1, beta=1e3, steps=1).outcome.status is Status.BUDGET_SPENT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"prior_samples": 60}, "prior_samples=60 of 60"),
        ({"prior_samples": 10, "batch_size": 5}, "full batches"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        langevin_run(small_problem(), **{"lr": 0.1, "beta": 1.0, "steps": 1} | options)
