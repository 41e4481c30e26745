"""Certificates from a Langevin path: by hand, on real runs, and what they refuse."""

from __future__ import annotations

import math
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
    train, unseen = samples(400, 20), samples(100, 10)
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
    assert found.sentences[-1].startswith("held-out samples:")
    assert all("Largest term" in line for line in found.sentences[:2])


def test_stability_needs_a_lipschitz_constant() -> None:
    data = samples(400, 20)
    clipped = sgld_certificate(Sums(LogRatio(1.0), clip=2.0), classifier, data, batch_size=1).stability
    declared = sgld_certificate(Sums(LogRatio(1.0)), classifier, data, batch_size=1, lipschitz=2.0).stability
    assert clipped is not None
    assert clipped == declared
    assert clipped.lipschitz == 2.0
    assert any(
        "expected gap" in line for line in sgld_certificate(Sums(LogRatio(1.0), clip=2.0), classifier, data).sentences
    )
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


def test_bad_input_is_refused(real: LangevinRun) -> None:
    data = samples(50, 2)
    path = Sums(LogRatio(1.0))
    with pytest.raises(ValueError, match="delta=1"):
        sgld_certificate(path, classifier, data, delta=1.0)
    with pytest.raises(ValueError, match="candidates=0"):
        sgld_certificate(path, classifier, data, candidates=0)
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
    with pytest.raises(InputError, match="are among the training samples"):
        sgld_certificate(path, classifier, data, heldout=data)
    normed = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    with pytest.raises(InputError, match="keeps running statistics"):
        sgld_certificate(path, normed, data)
    with pytest.raises(InputError, match="no classes"):
        sgld_certificate(path, classifier, Data(data.x, data.x))
