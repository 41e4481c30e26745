"""Certificates from a Langevin path: by hand, on real runs, and what they refuse."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
import torch
from problems import digits
from torch import nn

from whydeep.core import Data, InputError, Problem
from whydeep.data.corruption import random_labels
from whydeep.generalization.certificates.inversion import binary_kl, binomial_tail_inverse
from whydeep.generalization.certificates.sgld_certificate import ROUNDING, sgld_certificate
from whydeep.networks import mlp
from whydeep.optimization import SGLD
from whydeep.optimization.langevin.path import LogRatio
from whydeep.optimization.langevin.run import LangevinRun, langevin_run


@dataclass(frozen=True)
class Sums:
    """A path with given sums."""

    data_free: LogRatio
    prior: LogRatio | None = None
    steps: int = 10
    rates: tuple[tuple[float, float, int], ...] = ((0.01, 50.0, 10),)
    one_rate: bool = True
    clip: float | None = None
    strayed: bool = False
    shapes: tuple[tuple[int, ...], ...] = ()
    rounding: float = 0.0

    def place(self, weights: Iterable[torch.Tensor]) -> int | None:
        return None


def samples(n: int, wrong: int, *, shift: float = 0.0) -> Data:
    """x tells the class, but for the first `wrong` samples."""
    y = torch.arange(n) % 2
    x = torch.stack([y.float(), torch.arange(n) + shift], dim=1)
    x[:wrong, 0] = 1 - x[:wrong, 0]
    return Data(x, y, "samples", classes=2)


def classifier(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0].long()


def test_the_bound_solves_its_equation() -> None:
    path, delta, n = Sums(LogRatio(60.0, 10.0, 60.0)), 0.03, 400
    found = sgld_certificate(path, classifier, samples(n, 20), delta=delta, candidates=7)
    one, average = found.single_run, found.in_expectation
    assert one.error == 0.05
    assert one.errors == 20
    for certificate, nats in ((one, 50.0), (average, 60.0)):
        cost = nats + ROUNDING * 60 + math.log(2 * math.sqrt(n) * 7 / delta)
        assert binary_kl(0.05, certificate.bound) == pytest.approx(cost / n, rel=1e-9)
        assert sum(certificate.terms.values()) == pytest.approx(certificate.bound)
        assert certificate.dominant == "path's divergence"
        assert not certificate.vacuous
    assert len(one.union) == 1
    assert found.data_prior is None
    assert found.decayed is None
    assert found.stability is None
    assert "average run" in average.sentence


def test_a_likelier_path_costs_nothing_and_an_impossible_one_everything() -> None:
    data = samples(100, 0)
    free = sgld_certificate(Sums(LogRatio(1.0, 500.0)), classifier, data).single_run
    assert free.bound == 0.0
    never = sgld_certificate(Sums(LogRatio(math.inf)), classifier, data).single_run
    assert never.bound == 1.0
    assert never.vacuous


def test_the_decayed_form_is_labelled_conditional() -> None:
    found = sgld_certificate(Sums(LogRatio(60.0, 0.0, 20.0)), classifier, samples(400, 20))
    assert found.decayed is not None
    assert found.decayed.bound < found.in_expectation.bound
    assert "conditional" in found.decayed.notes[0]
    assert any("Sobolev" in line for line in found.decayed.assumptions)


def test_the_data_prior_counts_only_the_unseen() -> None:
    path = Sums(LogRatio(60.0), LogRatio(5.0, 1.0))
    train = samples(400, 20)
    unseen = train.take(torch.arange(10, 110))
    found = sgld_certificate(path, classifier, train, unseen=unseen).data_prior
    assert found is not None
    assert found.n == 100
    assert found.errors == 10
    cost = 4.0 + ROUNDING * 5 + math.log(2 * 10 / 0.05)
    assert binary_kl(0.1, found.bound) == pytest.approx(cost / 100, rel=1e-9)
    assert any("other 300 samples" in line for line in found.assumptions)


def test_the_plain_bound_is_printed_beside() -> None:
    heldout = samples(50, 2, shift=1000.0)
    found = sgld_certificate(Sums(LogRatio(60.0)), classifier, samples(400, 20), heldout=heldout, candidates=9)
    assert found.single_run.baseline is not None
    assert found.single_run.baseline.bound == binomial_tail_inverse(2, 50, 0.05)
    assert found.sentences[-2].startswith("held-out samples:")
    assert (
        found.sentences[-1] == "Note: that the classifier (classifier) is made of points of the path alone is on trust."
    )
    assert all("Largest term" in line for line in found.sentences[:2])


def test_stability_needs_a_lipschitz_constant() -> None:
    data = samples(400, 20)
    clipped = sgld_certificate(Sums(LogRatio(1.0), clip=2.0), classifier, data, batch_size=1).stability
    declared = sgld_certificate(Sums(LogRatio(1.0)), classifier, data, batch_size=1, lipschitz=2.0).stability
    assert clipped is not None
    assert clipped == declared
    assert clipped.lipschitz == 2.0
    lines = sgld_certificate(Sums(LogRatio(1.0), clip=2.0), classifier, data).sentences
    # Without a batch size all samples are meant, and the sentence says so.
    condition = (
        "stability: if every step used 400 of 400 samples and no sample's gradient was longer than 2, the expected"
    )
    assert any(line.startswith(condition) for line in lines)
    with pytest.raises(InputError, match="different step sizes"):
        sgld_certificate(Sums(LogRatio(1.0), clip=2.0, one_rate=False), classifier, data)


@pytest.fixture(scope="module")
def real() -> LangevinRun:
    train, _ = digits()
    model = mlp((64, 64, 10), init="xavier", generator=torch.Generator().manual_seed(0))
    return langevin_run(
        Problem(model, train),
        lr=0.1,
        beta=len(train) / 4,
        steps=120,
        prior_samples=1000,
        generator=torch.Generator().manual_seed(0),
    )


def test_on_digits_both_priors_certify_and_bound_the_test_error(real: LangevinRun) -> None:
    train, test = digits()
    found = sgld_certificate(real.optimizer, real.model, train, unseen=real.unseen, heldout=test, candidates=10)
    assert found.data_prior is not None
    assert found.single_run.bound < 0.52
    assert found.data_prior.bound < 0.3
    assert found.single_run.baseline is not None
    tested = found.single_run.baseline.error
    assert tested < found.data_prior.bound < found.single_run.bound
    # ln dQ/dP is the divergence up to a few times sqrt(2 KL).
    sums = real.optimizer.path.data_free
    assert abs(sums.value - sums.divergence) < 4 * math.sqrt(2 * sums.divergence)


def test_random_labels_are_not_certified() -> None:
    train, _ = digits()
    generator = torch.Generator().manual_seed(0)
    train = random_labels(train, generator=generator)
    model = mlp((64, 64, 10), init="xavier", generator=generator)
    run = langevin_run(Problem(model, train), lr=0.1, beta=len(train) / 4, steps=60, generator=generator)
    found = sgld_certificate(run.optimizer, run.model, train).single_run
    assert found.bound > 0.9
    assert found.vacuous


def learner(*, hidden: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))


def steps(model: nn.Module, data: Data, *optimizers: torch.optim.Optimizer, count: int = 3) -> None:
    assert isinstance(data.x, torch.Tensor)
    for _ in range(count):
        model.zero_grad()
        nn.functional.cross_entropy(model(data.x / 100), data.targets).backward()
        for optimizer in optimizers:
            optimizer.step()


def test_only_what_the_path_pays_for_is_certified() -> None:
    data, model = samples(50, 2), learner()
    optimizer = SGLD(model.parameters(), 0.1, beta=10.0, accumulate=True)
    steps(model, data, optimizer)
    early = copy.deepcopy(model)
    steps(model, data, optimizer)
    for one in (model, copy.deepcopy(model).requires_grad_(False)):
        assert sgld_certificate(optimizer, one, data).single_run.notes == ()
    picked = ("the network is that of step 3 of 6: that it was not picked by its errors is on trust",)
    assert sgld_certificate(optimizer, early, data).single_run.notes == picked
    # A mean of points is a function of the path, which the path cannot tell.
    mean = copy.deepcopy(model)
    with torch.no_grad():
        for value, other in zip(mean.parameters(), early.parameters(), strict=True):
            value.lerp_(other, 0.5)
    found = sgld_certificate(optimizer, mean, data)
    assert all("made of such points alone is on trust" in certificate.notes[-1] for certificate in found)
    assert found.sentences[-1].startswith("Note: the network is at no point of the path")
    # Two networks of one shape cannot be told from one that has a trained layer more; as a function they can vote.
    with pytest.raises(InputError, match="that the path does not have"):
        sgld_certificate(optimizer, Vote(early, model), data)
    sgld_certificate(optimizer, Vote(early, model).__call__, data)

    steps(model, data, torch.optim.Adam(model.parameters(), 1e-2))
    for one in (model, copy.deepcopy(model), mean):
        with pytest.raises(InputError, match="something else than the path's steps moved its weights"):
            sgld_certificate(optimizer, one, data)
    assert sgld_certificate(optimizer, early, data).single_run.notes == picked


class Vote(nn.Module):
    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(model(x).softmax(1) for model in self.models)


@pytest.mark.parametrize("hidden", [2, 5])
def test_trained_weights_that_are_not_on_the_path_are_refused(hidden: int) -> None:
    # With two hidden units both layers have the same shapes.
    data, model = samples(50, 2), learner(hidden=hidden)
    optimizer = SGLD(model[2].parameters(), 0.1, beta=10.0, accumulate=True)
    steps(model, data, optimizer, torch.optim.Adam(model[0].parameters(), 1e-2))
    for one in (model, copy.deepcopy(model)):
        with pytest.raises(InputError, match="that the path does not have"):
            sgld_certificate(optimizer, one, data)
    with pytest.raises(InputError, match="lacks weights that are on the path"):
        sgld_certificate(optimizer, nn.Linear(2, 3), data)


def test_a_frozen_body_is_certified_on_trust() -> None:
    data, model = samples(50, 2), learner(hidden=5)
    model[0].requires_grad_(False)
    optimizer = SGLD(model[2].parameters(), 0.1, beta=10.0, accumulate=True)
    steps(model, data, optimizer)
    (note,) = sgld_certificate(optimizer, model, data).single_run.notes
    assert note.startswith("15 numbers of it are not on the path")


def test_buffers_and_rates_that_changed_are_on_trust() -> None:
    data, model = samples(50, 2), learner()
    model.register_buffer("centre", torch.zeros(7))
    optimizer = SGLD(model.parameters(), 0.1, beta=10.0, accumulate=True)
    steps(model, data, optimizer, count=1)
    optimizer.param_groups[0]["lr"] = 0.05
    steps(model, data, optimizer, count=1)
    rates, buffers = sgld_certificate(optimizer, model, data).single_run.notes
    assert rates == "step size or temperature changed on the path: that the samples did not say when is on trust"
    assert buffers.startswith("7 numbers of it are not on the path")


def test_drifts_that_round_in_the_weights_are_paid_for() -> None:
    path, n = Sums(LogRatio(60.0, 10.0, 60.0), rounding=0.5), 400
    one = sgld_certificate(path, classifier, samples(n, 20)).single_run
    # (sqrt(60) + sqrt(.5))^2 - 60, and five standard deviations of sqrt(2 * .5).
    extra = ROUNDING * 60 + (math.sqrt(60) + math.sqrt(0.5)) ** 2 - 60 + 5
    assert one.details["rounding"] == pytest.approx(extra, rel=1e-12)
    assert binary_kl(0.05, one.bound) == pytest.approx((50 + extra + math.log(40 / 0.05)) / n, rel=1e-9)


@pytest.mark.parametrize(("kind", "beta"), [(torch.float64, 1e300), (torch.float32, 1e16), (torch.bfloat16, 1e6)])
def test_noise_below_the_last_digit_of_the_weights_certifies_nothing(kind: torch.dtype, beta: float) -> None:
    # Such noise is lost where it is added, and the weights go where the data say.
    data, model = samples(50, 2), learner().to(kind)
    assert isinstance(data.x, torch.Tensor)
    optimizer = SGLD(model.parameters(), 1e-3, beta=beta, accumulate=True)
    for value in model.parameters():  # so small a push that the sums alone would certify
        value.grad = torch.full_like(value, math.sqrt(0.1 / (1e-3 * beta)))
    optimizer.step()
    assert optimizer.path.data_free.divergence < 1
    found = sgld_certificate(optimizer, lambda x: model(x.to(kind)).float(), data).single_run
    assert found.bound > 0.9


def test_ordinary_rounding_costs_nothing_that_shows(real: LangevinRun) -> None:
    train, _ = digits()
    details = sgld_certificate(real.optimizer, real.model, train).single_run.details
    assert details["rounding"] < 0.01 * details["divergence"]
    assert real.optimizer.path.rounding < 1e-6


def test_a_step_that_broke_down_is_refused_and_the_path_before_it_is_not() -> None:
    data, model = samples(50, 2), learner()
    optimizer = SGLD(model.parameters(), 0.1, beta=10.0, accumulate=True)
    steps(model, data, optimizer)
    good, path = copy.deepcopy(model), optimizer.path
    bound = sgld_certificate(optimizer, good, data).single_run.bound
    next(model.parameters()).grad.fill_(math.nan)
    optimizer.step()
    for one in (good, model, classifier):
        with pytest.raises(InputError, match="a gradient was not finite in one of its steps"):
            sgld_certificate(optimizer, one, data)
    assert sgld_certificate(path, good, data).single_run.bound == bound
    with pytest.raises(InputError, match="not finite"):
        sgld_certificate(Sums(LogRatio(1.0), prior=LogRatio(math.nan)), classifier, data)


def test_copies_of_the_training_samples_make_the_sentence_conditional() -> None:
    once = samples(50, 2)
    again = once.take(torch.arange(50).repeat(20))
    found = sgld_certificate(Sums(LogRatio(5.0, 0.0, 2.0)), classifier, again)
    assert found.single_run.sentence.startswith("If the 950 samples that repeat others are draws of their own and no")
    assert found.decayed is not None
    for certificate in (found.in_expectation, found.decayed):
        assert "this run is an average one and the 950 samples that repeat" in certificate.sentence
        assert "950 of the 1,000 samples repeat another one exactly" in certificate.notes


def test_bad_input_is_refused(real: LangevinRun) -> None:
    data = samples(50, 2)
    path = Sums(LogRatio(1.0))
    with pytest.raises(ValueError, match="delta=1"):
        sgld_certificate(path, classifier, data, delta=1.0)
    with pytest.raises(ValueError, match="candidates=0"):
        sgld_certificate(path, classifier, data, candidates=0)
    for candidates in (math.nan, math.inf, 1.5):
        with pytest.raises(ValueError, match=f"candidates={candidates}"):
            sgld_certificate(path, classifier, data, candidates=candidates)
    weight = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(InputError, match="accumulate=True"):
        sgld_certificate(SGLD(weight, 0.1, beta=1.0), classifier, data)
    with pytest.raises(InputError, match="accumulate=True"):
        sgld_certificate(torch.optim.SGD(weight, 0.1), classifier, data)
    with pytest.raises(InputError, match="no steps"):
        sgld_certificate(SGLD(weight, 0.1, beta=1.0, accumulate=True), classifier, data)
    with pytest.raises(InputError, match="no prior followed"):
        sgld_certificate(path, classifier, data, unseen=samples(10, 1))
    with pytest.raises(InputError, match="leave the prior none"):
        sgld_certificate(replace(path, prior=LogRatio()), classifier, data, unseen=data)
    for strange, count in ((samples(10, 1, shift=1000.0), 10), (data.take(torch.arange(10).repeat(3)), 20)):
        with pytest.raises(InputError, match=f"{count} of the {len(strange)} samples .* are not among the training"):
            sgld_certificate(replace(path, prior=LogRatio()), classifier, data, unseen=strange)
    with pytest.raises(InputError, match="are among the training samples"):
        sgld_certificate(path, classifier, data, heldout=data)
    normed = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    with pytest.raises(InputError, match="keeps running statistics"):
        sgld_certificate(path, normed, data)
    with pytest.raises(InputError, match="no classes"):
        sgld_certificate(path, classifier, Data(data.x, data.x))


def test_rounding_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="c=nan"):
        sgld_certificate(Sums(LogRatio(1.0), rounding=math.nan), classifier, samples(50, 2))
