from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from problems import blobs, digits
from scipy import stats
from torch import nn

from whydeep.core import Data, InputError, Problem
from whydeep.generalization import certify, kl_inverse
from whydeep.generalization.certificates.certificate import Certificate
from whydeep.generalization.certificates.disintegrated import disintegrated_certificate
from whydeep.generalization.certificates.gaussian_posterior import Gaussian, around, divergence, log_ratio
from whydeep.generalization.certificates.learnt_prior import learnt_prior
from whydeep.generalization.certificates.pac_bayes import (
    confidence_nats,
    draw_errors,
    kl_moment,
    monte_carlo_share,
    pac_bayes_certificate,
)
from whydeep.generalization.certificates.posterior_training import OBJECTIVES, PosteriorTraining, train_posterior
from whydeep.networks import mlp
from whydeep.optimization import Backprop

SOLVER = Backprop(torch.optim.Adam, lr=1e-2, epochs=15, batch_size=32)


def coin(mean: float, scale: float, n: int = 50) -> tuple[Gaussian, Data]:
    """A network that says class 0 for every sample when w_0 >= w_1: its error is 0 or 1."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[mean], [0.0]]))
    data = Data(torch.ones(n, 1, dtype=torch.float64), torch.zeros(n, dtype=torch.int64), classes=2)
    return around(model, scale), data


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_draw_errors_average_to_the_gibbs_error() -> None:
    gaussian, data = coin(0.5, 0.7)
    # w_0 - w_1 ~ N(0.5, 2 0.7^2): wrong below 0.
    error = stats.norm.cdf(-0.5 / (0.7 * math.sqrt(2)))
    found = draw_errors(gaussian, data, draws=2000, samples=10, generator=random())
    assert found.samples == 10
    assert set(found.errors.tolist()) == {0.0, 1.0}
    assert abs(float(found.errors.mean()) - error) <= 4 * math.sqrt(error * (1 - error) / 2000)


def test_errors_on_fewer_samples_have_the_same_mean() -> None:
    train, test = digits(200)
    model = learnt_prior(mlp((64, 20, 10), init="he", generator=random()), train, SOLVER, generator=random())
    wide = replace(model, scale=4 * model.scale)
    few = draw_errors(wide, test, draws=200, samples=20, generator=random()).errors
    every = draw_errors(wide, test, draws=100, samples=360, generator=random()).errors
    error = math.sqrt(float(few.var()) / 200 + float(every.var()) / 100)
    assert abs(float(few.mean() - every.mean())) <= 4 * error
    assert error < 0.01


def test_kl_moment_is_the_expectation_for_every_p() -> None:
    for n, p in [(1, 0.3), (5, 0.5), (12, 0.07)]:
        slow = 0.0
        for k in range(n + 1):
            q = k / n
            kl = (q * math.log(q / p) if q else 0.0) + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)
            slow += math.comb(n, k) * p**k * (1 - p) ** (n - k) * math.exp(n * kl)
        assert kl_moment(n) == pytest.approx(slow, rel=1e-8)
    for n in (8, 100, 10**6):
        assert math.sqrt(n) <= kl_moment(n) <= 2 * math.sqrt(n)  # Maurer 2004, Theorem 1
        assert kl_moment(n) == pytest.approx(math.sqrt(math.pi * n / 2), rel=1 / math.sqrt(n))


def test_certificate_is_the_formula_with_every_part_in_it() -> None:
    prior, data = coin(3.0, 0.5, n=200)
    posterior = replace(prior, mean=prior.mean + torch.tensor([0.7, 0.0], dtype=torch.float64))
    found = pac_bayes_certificate(posterior, prior, data, draws=300, union=math.log(7), generator=random())
    # Neither errs in 300 draws, so moving cannot pay, and what is certified is the prior.
    assert found.error == 0.0
    assert found.classifier is prior
    assert found.notes == ("moving away from the prior did not pay (0.98 nats), so the prior itself is certified",)
    sure = found.terms["Monte Carlo"]
    # 300 draws without an error: about ln(1/d) / (0.99 300), the first bets being smaller.
    share = monte_carlo_share(200, 300)
    cost = -math.log(0.05 * share) / 300
    assert cost <= sure <= 1.5 * cost
    nats = math.log(kl_moment(200) / (0.05 * (1 - share))) + math.log(7)
    assert found.bound == pytest.approx(kl_inverse(sure, nats / 200), rel=1e-9)
    assert sum(found.terms.values()) == pytest.approx(found.bound, rel=1e-12)
    assert found.dominant == "confidence, ln(xi(n)/delta)"
    assert found.details["gain over KL = 0"] == 0.0
    assert not found.vacuous or found.trivial == 0.0


def test_moving_pays_where_the_prior_errs() -> None:
    prior, data = coin(0.0, 0.5, n=400)  # errs half the time
    posterior = replace(prior, mean=prior.mean + torch.tensor([2.0, 0.0], dtype=torch.float64))
    found = pac_bayes_certificate(posterior, prior, data, generator=random())
    assert found.classifier is posterior
    assert found.details["KL, nats"] == pytest.approx(8.0)
    assert found.details["gain over KL = 0"] > 0.4
    assert found.terms["KL"] > 0
    assert found.notes == ()


def test_a_collapsed_posterior_is_said() -> None:
    prior, data = coin(1.0, 0.5)
    found = pac_bayes_certificate(prior, prior, data, generator=random())
    assert "collapsed onto its prior" in found.notes[0]
    assert "collapsed onto its prior" in disintegrated_certificate(prior, prior, data, generator=random()).notes[0]


def test_disintegrated_is_the_formula_at_its_own_draw() -> None:
    prior, data = coin(0.0, 0.5, n=400)
    posterior = replace(prior, mean=prior.mean + torch.tensor([2.0, 0.0], dtype=torch.float64))
    found = disintegrated_certificate(posterior, prior, data, generator=random())
    weights = posterior.draw(random())
    assert torch.equal(found.classifier.weight.reshape(-1), weights)
    cost = log_ratio(posterior, prior, weights) + confidence_nats(400, 0.05)
    assert found.errors == 0
    assert found.bound == pytest.approx(kl_inverse(0.0, cost / 400), rel=1e-12)
    several = disintegrated_certificate(posterior, prior, data, draws=50, generator=random())
    # 50 log-ratios around the KL of 8 with standard deviation |shift|/scale = 4: 4 standard errors are 2.3.
    assert abs(several.details["log-ratio, nats"] - 8) <= 2.3
    assert len(several.classifier) == 50


def test_a_log_ratio_below_zero_goes_no_lower_than_the_error() -> None:
    prior, _ = coin(1.0, 0.01, n=1)
    far = replace(prior, mean=prior.mean + 3.0)
    # Drawn from the prior, judged as if it came from `far`: the ratio is about -9e4.
    weights = prior.draw(random())
    assert log_ratio(far, prior, weights) < -1e4
    assert kl_inverse(0.3, max(0.0, -5.0)) == 0.3


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_objectives_are_bounds_and_their_gradients_those_of_differences(name: str) -> None:
    objective = OBJECTIVES[name]
    risk = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    cost = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    value = objective(risk, cost)
    assert float(value.detach()) >= kl_inverse(0.07, 0.02) * (1 - 1e-9)
    gradients = torch.autograd.grad(value, [risk, cost])
    h = 1e-6
    for index, gradient in enumerate(gradients):
        ends = []
        for sign in (1, -1):
            point = [0.07, 0.02]
            point[index] += sign * h
            ends.append(float(objective(*(torch.tensor(v, dtype=torch.float64) for v in point))))
        # lambda holds its l fixed; at the best l that changes the derivative by nothing.
        assert float(gradient) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)


def test_lambda_at_its_best_is_never_above_other_lambdas() -> None:
    risk, cost = 0.07, 0.02
    best = float(OBJECTIVES["lambda"](torch.tensor(risk, dtype=torch.float64), torch.tensor(cost, dtype=torch.float64)))
    grid = [risk / (1 - v / 2) + cost / (v * (1 - v / 2)) for v in torch.linspace(0.01, 1.9, 500).tolist()]
    assert best <= min(grid) * (1 + 1e-9)
    assert best == pytest.approx(min(grid), rel=1e-4)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_training_leaves_a_bad_prior_and_lowers_the_bound(name: str, each: bool) -> None:
    prior, data = coin(0.0, 0.5, n=400)
    training = PosteriorTraining(steps=200, batch_size=20, step_size=0.05, each_weight=each, objective=name)
    trained = train_posterior(prior, data, nats=confidence_nats(400, 0.05), training=training, generator=random())
    assert divergence(trained, prior) > 1
    assert float((trained.mean - prior.mean)[0]) > 0.3  # towards class 0
    found = pac_bayes_certificate(trained, prior, data, generator=random())
    assert found.details["gain over KL = 0"] > 0.3


def test_training_on_the_chance_of_an_error_beats_its_surrogate() -> None:
    # One label in five is the other one, whatever the sample: cross-entropy wants scores that say so, the error only
    # the sign. 600 labels of two clouds; what is compared is the bound itself, at the same prior and steps.
    random_ = random()
    y = torch.arange(600) % 2
    x = (2.0 * y - 1)[:, None] + 0.5 * torch.randn(600, 4, generator=random_)
    noisy = torch.where(torch.rand(600, generator=random_) < 0.2, 1 - y, y)
    prior = around(mlp((4, 8, 2), init="he", generator=random_), 0.5)
    bounds = []
    for after in (0.5, 1.0):
        training = PosteriorTraining(400, 100, 0.03, True, "kl", 0.0, after)
        data = Data(x, noisy, classes=2)
        trained = train_posterior(prior, data, nats=confidence_nats(600, 0.05), training=training, generator=random())
        bounds.append(pac_bayes_certificate(trained, prior, data, draws=300, generator=random()).bound)
    assert bounds[0] < bounds[1] - 0.01


def test_a_training_that_diverges_returns_what_it_started_from() -> None:
    prior, data = coin(0.0, 0.5, n=40)
    for each in (True, False):
        training = PosteriorTraining(steps=20, step_size=1e200, each_weight=each, warm_up=0.0)
        trained = train_posterior(prior, data, nats=5.0, training=training, generator=random())
        assert trained is prior


def test_whole_vector_steps_keep_the_kl_small_whatever_the_number_of_weights() -> None:
    for width in (10, 1000):
        prior = around(mlp((3, width, 3), init="he", generator=random()), 0.05)
        training = PosteriorTraining(steps=20, step_size=0.02, warm_up=0.0)
        trained = train_posterior(prior, blobs(60), nats=5.0, training=training, generator=random())
        # At most |u| = 20 0.02 in the means; the momentum's first steps can exceed their length by half at most. The
        # scales' part is (r, r) to second order, the same length again.
        assert 0 < divergence(trained, prior) <= 0.5 * (1.5 * 0.4) ** 2 + (1.5 * 0.4) ** 2


def test_without_anything_to_learn_the_posterior_stays() -> None:
    prior, data = coin(10.0, 0.5, n=100)  # never errs
    trained = train_posterior(prior, data, nats=confidence_nats(100, 0.05), generator=random())
    assert divergence(trained, prior) < 0.01


def test_certify_trains_prior_and_posterior_of_any_network() -> None:
    train, heldout = blobs(90), blobs(260)
    heldout = Data(heldout.x[90:] + 0.01, heldout.y[90:], classes=3)
    model = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(),
                          nn.Dropout(), nn.Flatten(), nn.Linear(12, 3))  # fmt: skip
    before = [value.clone() for value in model.state_dict().values()]
    state = torch.random.get_rng_state()
    for method in ("pac-bayes-kl", "disintegrated"):  # the last one is repeated below
        found = certify(model, heldout, method=method, train=train, solver=SOLVER, generator=random())
        assert found.method == method
        assert found.n == 170
        assert found.error < found.bound < 0.35
        assert found.baseline is not None
        assert found.baseline.method == "binomial"
        assert found.baseline.n == 170
        assert found.assumptions
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    again = certify(model, heldout, method="disintegrated", train=train, solver=SOLVER, generator=random())
    assert again.bound == pytest.approx(found.bound, rel=1e-6)
    assert torch.equal(state, torch.random.get_rng_state())


def test_certify_says_what_a_method_that_trains_lacks() -> None:
    train, heldout = blobs(60), Data(torch.rand(30, 3), torch.zeros(30, dtype=torch.int64), classes=3)
    with pytest.raises(InputError, match="no train and solver"):
        certify(mlp((3, 3)), heldout, method="disintegrated")
    with pytest.raises(InputError, match="there is no solver"):
        certify(mlp((3, 3)), heldout, method="pac-bayes-kl", train=train)
    with pytest.raises(InputError, match=r"needs the weights.*function"):
        certify(lambda x: x, heldout, method="pac-bayes-kl", train=train, solver=SOLVER)
    wild = Backprop(torch.optim.SGD, lr=1e30, epochs=2)
    with pytest.raises(InputError, match="diverged"):
        certify(mlp((3, 5, 3)), heldout, method="pac-bayes-kl", train=train, solver=wild)


@pytest.mark.parametrize("method", ["disintegrated", "gibbs", "occam", "pac-bayes-kl"])
def test_methods_that_train_need_one_shape_and_one_set_of_classes(method: str) -> None:
    heldout = Data(torch.rand(30, 3), torch.zeros(30, dtype=torch.int64), classes=3)
    wider = Data(torch.rand(20, 4), torch.zeros(20, dtype=torch.int64), classes=3)
    with pytest.raises(InputError, match=r"samples of shape \(4,\), 3 classes; data: \(3,\), 3; give"):
        certify(mlp((3, 3)), heldout, method=method, train=wider, solver=SOLVER)
    targets = Data(torch.rand(20, 3), torch.rand(20, 1))
    with pytest.raises(InputError, match=r"\(3,\), no classes; data"):
        certify(mlp((3, 3)), heldout, method=method, train=targets, solver=SOLVER)


def test_the_prior_never_sees_the_samples_counted() -> None:
    train, heldout = blobs(90), Data(torch.rand(30, 3), torch.zeros(30, dtype=torch.int64), classes=3)
    seen: list[int] = []

    class Watching:
        def train(self, problem: Problem, **rest: object) -> object:
            seen.append(len(problem.train))
            return SOLVER.train(problem, **rest)

    certify(mlp((3, 5, 3)), heldout, method="disintegrated", train=train, solver=Watching())
    assert seen == [90]


@pytest.mark.parametrize("method", ["disintegrated", "pac-bayes-kl"])
def test_each_of_several_candidates_is_a_certificate_at_its_share_of_delta(method: str) -> None:
    # Of the draws' part of delta, too: the one picked of J has the luckiest draws.
    train, heldout = blobs(60), Data(blobs(50).x + 0.01, blobs(50).y, classes=3)
    model = mlp((3, 5, 3), generator=random())

    def found(delta: float, candidates: int) -> Certificate:
        return certify(model, heldout, method=method, train=train, solver=SOLVER, delta=delta,
                       candidates=candidates, generator=random())  # fmt: skip

    picked = found(0.05, 5)
    assert picked.bound == found(0.01, 1).bound
    assert (picked.delta, picked.candidates) == (0.05, 5)
    assert picked.union[0] == "delta / 5, for 5 networks compared on the same samples"
