import math

import pytest
import torch
from problems import blobs, small_problem
from threaded_group import together

from whydeep.core import Problem
from whydeep.optimization.alternating.admm.admm import ADMM
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.admm.refit import refitted
from whydeep.optimization.alternating.chain import Chain


def squared(activation="sigmoid"):
    return Problem(small_problem(activation, dtype=torch.float64).model, blobs(dtype=torch.float64), loss="squared")


def iteration(solver):
    problem = squared()
    return ADMMIteration(solver, problem, Chain.of(problem.model), problem.train)


@pytest.mark.parametrize("refit", [False, True])
def test_the_mean_of_the_iterates_is_offered_and_the_iterates_are_the_same(refit):
    model, plain = iteration(ADMM(average=0.7, refit=refit)), iteration(ADMM(refit=refit))
    start = model.state.weights
    assert model.averaged() is None
    iterates = []
    for _ in range(4):
        model.sweep(), plain.sweep()
        iterates.append(model.state.weights)
        for one, other in zip(model.weights(), plain.weights(), strict=True):
            assert torch.equal(one, other)
    # Written out: 0.7^4 W_0 + 0.3 (0.7^3 W_1 + 0.7^2 W_2 + 0.7 W_3 + W_4).
    shares = [0.7**4, *(0.3 * 0.7 ** (3 - k) for k in range(4))]
    mean = tuple(
        sum(share * weight for share, weight in zip(shares, each, strict=True))
        for each in zip(start, *iterates, strict=True)
    )
    expected = refitted(model.lagrangian, model._parts, mean, model.options) if refit else mean
    # The refit solves with a ridge of 6e-4 under sums of 60: a condition number of 1e5.
    torch.testing.assert_close(model.averaged(), expected, rtol=1e-9, atol=1e-9)
    assert plain.averaged() is None


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_the_better_one_is_watched_and_returned(validation):
    name = "validation" if validation else "loss"
    solvers = [ADMM(sweeps=12, beta=0.1, validation=validation, average=average) for average in (0.0, 0.8)]
    plain, both = (
        solver.train(squared("tanh"), generator=torch.Generator().manual_seed(0)).history for solver in solvers
    )
    assert torch.equal(plain["kkt"], both["kkt"])  # the iterate goes on as it is
    assert plain[name][0] == both[name][0]
    assert bool((both[name] <= plain[name]).all())
    assert bool((both[name] < plain[name]).any())
    assert bool((both[name] == plain[name])[1:].any())  # and where the iterate is the better one it is that


def test_the_history_ends_at_the_returned_network():
    problem = squared("tanh")
    training = ADMM(sweeps=12, beta=0.1, average=0.8).train(problem)
    assert float(training.history["loss"][-1]) == pytest.approx(problem.with_model(training.model).risk(), rel=1e-12)


def test_the_mean_begins_anew_where_the_method_does():
    model = iteration(ADMM(average=0.9))
    start = model.state.weights
    model.sweep()
    model.restart(start)
    assert model.averaged() is None
    model.sweep()
    expected = tuple(torch.lerp(new, old, 0.9) for new, old in zip(model.state.weights, start, strict=True))
    torch.testing.assert_close(model.averaged(), expected, rtol=1e-12, atol=1e-12)


def test_two_holders_of_samples_watch_what_one_does():
    def train(group):
        return ADMM(sweeps=6, beta=0.1, validation=0.2, average=0.8, refit=True, group=group).train(squared("tanh"))

    first, second = together(2, train)
    alone = ADMM(sweeps=6, beta=0.1, validation=0.2, average=0.8, refit=True).train(squared("tanh"))
    for training in (first, second):
        for name in ("loss", "validation", "kkt"):
            torch.testing.assert_close(training.history[name], alone.history[name], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(training.model.state_dict(), alone.model.state_dict(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("average", [-0.1, 1.0, math.nan])
def test_what_is_kept_of_a_mean_is_a_part_of_it(average):
    with pytest.raises(ValueError, match=rf"average={average}; give a number in \[0, 1\)"):
        ADMM(average=average)
