import math
from itertools import pairwise

import pytest
import torch
from problems import blobs, digits, small_problem
from torch import nn

from whydeep.core import Data, InputError, Problem, Status
from whydeep.networks import linear, mlp
from whydeep.optimization import StochasticBCD
from whydeep.optimization.alternating.bcd import stochastic
from whydeep.optimization.alternating.bcd.stochastic import BCDPasses
from whydeep.optimization.alternating.bcd.three import ThreeSplitting
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import LOSSES, SQUARED, target_rows


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(activation="relu", n=40, loss="squared"):
    model = mlp((3, 6, 5, 3), activation=activation, init="he", generator=seeded(2)).double()
    return Problem(model, blobs(n, dtype=torch.float64), loss=loss)


def passes(solver, given, seed=0):
    chain, train = Chain.of(given.copy()), given.train
    targets = target_rows(train.targets, 3)
    return BCDPasses(solver, chain, SQUARED, x=train.x, targets=targets, generator=seeded(seed))


def splitting(given, **options):
    chain, train = Chain.of(given.copy()), given.train
    return ThreeSplitting(
        chain, SQUARED, x=train.x, targets=target_rows(train.targets, 3), weights=chain.weights(), **options
    )


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_one_minibatch_of_all_samples_is_a_sweep_from_the_forward_pass(activation):
    given, constants = problem(activation), {"gamma": 0.2, "rho": 0.05, "grading": 0.1, "damping": 0.5}
    model = passes(StochasticBCD(batch_size=40, **constants), given)
    model.sweep()
    expected = splitting(given, alpha=0.0, same_side=True, **constants)
    before = expected.misfit()
    expected.sweep()
    assert model.objective == pytest.approx(before / 40, rel=1e-12)
    # The samples come in another order: sums differ by rounding.
    torch.testing.assert_close(model.weights(), expected.weights(), rtol=1e-9, atol=1e-9)


def test_the_share_falls_with_the_cosine_and_every_minibatch_is_taken_once(monkeypatch):
    shares, seen = [], []

    def update(self, x, targets, share):
        shares.append(share)
        seen.append(len(x))
        return float(x.sum())

    monkeypatch.setattr(BCDPasses, "_update", update)
    given = problem()
    model = passes(StochasticBCD(epochs=2, batch_size=15), given)
    model.sweep()
    assert model.objective == pytest.approx(float(given.train.x.sum()) / 40)
    model.sweep()
    assert sorted(seen) == [13, 13, 13, 13, 14, 14]  # 40 samples in three parts, twice
    assert shares == pytest.approx([(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)])


class Far(ThreeSplitting):
    """Weights thirty times as far from those of the start as a sweep takes them."""

    def start(self, weights):
        super().start(weights)
        self.begun = weights

    def weights(self):
        pairs = zip(self.begun, super().weights(), strict=True)
        return tuple(torch.lerp(old, new, 30.0) for old, new in pairs)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_loss_of_a_minibatch_never_rises(loss, monkeypatch):
    given = problem(loss=loss)
    chain, train = Chain.of(given.copy()), given.train
    targets = target_rows(train.targets, 3)
    solver = StochasticBCD(batch_size=5, damping=0.01)
    model = BCDPasses(solver, chain, LOSSES[loss], x=train.x, targets=targets, generator=seeded())
    monkeypatch.setattr(stochastic, "ThreeSplitting", Far)
    for first in range(0, 40, 5):
        x, wanted, old = train.x[first : first + 5], targets[first : first + 5], model.weights()
        before = model._loss(old, x, wanted)
        assert model._update(x, wanted, 1.0) == pytest.approx(before, rel=1e-9)
        assert model._loss(model.weights(), x, wanted) <= before
    moved = [not torch.equal(one, other) for one, other in zip(model.weights(), chain.weights(), strict=True)]
    assert all(moved)


def test_on_their_side_preactivations_keep_their_signs_and_the_objective_falls():
    model = splitting(problem(), gamma=0.8, rho=0.3, alpha=0.1, grading=0.5, same_side=True)
    signs = [u > 0 for u in model.preactivations[:-1]]
    values = [model.monitor()["objective"]]
    for _ in range(5):
        model.sweep()
        values.append(model.monitor()["objective"])
        for u, sign in zip(model.preactivations[:-1], signs, strict=True):
            assert bool((u[~sign] <= 0).all())
            assert bool((u[sign] >= 0).all())
    assert all(later <= earlier for earlier, later in pairwise(values))
    free = splitting(problem(), gamma=0.8, rho=0.3, alpha=0.1, grading=0.5)
    for _ in range(5):
        free.sweep()
    assert any(bool(((u > 0) != sign).any()) for u, sign in zip(free.preactivations, signs, strict=False))


def test_from_the_forward_pass_the_step_across_the_kink_gets_stuck_and_the_one_on_its_side_does_not():
    train, _ = digits(400, dtype=torch.float64)
    x, targets = train.x.flatten(1), target_rows(train.targets, 10)
    reached = []
    for same_side in (False, True):
        chain = Chain.of(mlp((64, 30, 10), init="he", generator=seeded()).double())
        weights = chain.weights()
        for _ in range(20):
            model = ThreeSplitting(
                chain, SQUARED, x=x, targets=targets, weights=weights,
                gamma=0.1, rho=0.003, alpha=0.0, grading=1e-4, damping=0.1, same_side=same_side,
            )  # fmt: skip
            model.sweep()
            weights = model.weights()
        reached.append(float(SQUARED.total(chain.outputs(weights, x), targets)) / len(x))
    assert reached[1] < 0.7 * reached[0]


def test_it_learns_digits_through_ten_layers():
    train, test = digits()
    model = mlp((64, *[60] * 10, 10), init="he", generator=seeded())
    with torch.no_grad():
        for layer in [module for module in model if isinstance(module, nn.Linear)][1:-1]:
            nn.init.eye_(layer.weight)
    solver = StochasticBCD(epochs=4, batch_size=100)
    training = solver.train(Problem(model, train, test, loss="squared"), generator=seeded())
    assert training.outcome.status is Status.BUDGET_SPENT
    # A linear classifier errs on .05 of the training digits, the ten layers before on .9.
    assert float(training.history["error"][-1]) < 0.04


def test_a_pass_that_breaks_down_is_repeated_with_more_damping():
    model = passes(StochasticBCD(batch_size=10, damping=0.3), problem())
    start = model.weights()
    model._weights = tuple(weight * math.nan for weight in start)
    with pytest.raises(ArithmeticError, match="not finite"):
        model.sweep()
    assert model.restart(start)
    assert model.damping == pytest.approx(3.0)
    model.sweep()
    assert all(bool(torch.isfinite(weight).all()) for weight in model.weights())


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_minibatches_of_any_size(batch_size):
    training = StochasticBCD(epochs=2, batch_size=batch_size).train(problem(n=7))
    assert training.history["loss"][-1] <= training.history["loss"][0]


def test_a_linear_network_and_one_sample():
    data = Data(torch.ones(1, 2, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64))
    training = StochasticBCD(epochs=40, batch_size=1, damping=0.1).train(
        Problem(linear(2, 1).double(), data, loss="squared")
    )
    assert float(training.history["loss"][-1]) < 1e-6 < float(training.history["loss"][0])


@pytest.mark.parametrize("name", ["gamma", "rho", "grading", "damping"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        StochasticBCD(**{name: value})


def test_other_losses_and_networks_are_refused():
    with pytest.raises(InputError, match="StochasticBCD"):
        StochasticBCD().train(Problem(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 3)), blobs()))
    with pytest.raises(InputError, match="StochasticBCD"):
        StochasticBCD().train(
            Problem(small_problem("tanh").model, blobs(), loss=lambda output, target: output.abs().sum(1))
        )
