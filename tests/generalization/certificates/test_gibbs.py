from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import blobs, digits
from scipy import stats
from torch import nn

from whydeep.core import Data
from whydeep.data.corruption import random_labels
from whydeep.generalization import certify
from whydeep.generalization.certificates.gaussian_posterior import Gaussian, around
from whydeep.generalization.certificates.gibbs import (
    CHAINS,
    CONDITION,
    Ladder,
    _at,
    _State,
    climb,
    gibbs_certificate,
    ladder_certificate,
    log_acceptance,
)
from whydeep.generalization.certificates.inversion import kl_inverse
from whydeep.generalization.certificates.pac_bayes import confidence_nats
from whydeep.generalization.fresh_weights import fresh_weights
from whydeep.networks import mlp


def coin() -> tuple[Gaussian, Data]:
    """Two scores w_0, w_1 ~ N(0, 1) for every sample; four labels in five are 0."""
    model = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    y = (torch.arange(50) % 5 == 0).long()
    return around(model, 1.0), Data(torch.ones(50, 1, dtype=torch.float64), y, classes=2)


def quadrature(t: float) -> tuple[float, float]:
    """E_t F and KL(G_t || prior) on a fine grid: F depends on d = w_0 - w_1 ~ N(0, 2) alone."""
    d = np.linspace(-12, 12, 4_001)
    loss = 0.8 * np.logaddexp(0, -d) + 0.2 * np.logaddexp(0, d)
    prior = np.exp(-d * d / 4)
    prior /= prior.sum()
    tilted = prior * np.exp(-t * loss)
    normal = tilted.sum()
    tilted /= normal
    mean = float((tilted * loss).sum())
    return mean, -t * mean - math.log(normal)


def exact_ladder(temperatures: np.ndarray) -> Ladder:
    """A ladder without any error: three chains that all saw the quadrature's means."""
    means = torch.tensor([[quadrature(t)[0]] * 3 for t in temperatures], dtype=torch.float64)
    zero = torch.zeros_like(means)
    return Ladder(torch.tensor(temperatures), means, zero, zero)


def test_the_integral_over_temperatures_is_the_kl_from_above_and_below() -> None:
    for beta in (1.0, 20.0, 100.0):
        truth = quadrature(beta)[1]
        coarse, fine = (exact_ladder(np.linspace(0, beta, k + 1)).nats(k) for k in (8, 512))
        for above, below in (coarse, fine):
            assert below <= truth <= above
        assert fine[0] - fine[1] < (coarse[0] - coarse[1]) / 20
        assert fine[0] == pytest.approx(truth, rel=0.05)


def test_a_spread_of_the_chains_raises_the_upper_side_only() -> None:
    ladder = exact_ladder(np.linspace(0, 20, 65))
    losses = ladder.losses.clone()
    losses[10] += torch.tensor([-0.01, 0.0, 0.01], dtype=torch.float64)
    wide = replace(ladder, losses=losses)
    # One rung in the middle enters with the width 20/64 of its step; Student's 97.5 % quantile at two degrees of
    # freedom is 4.303, the 99.9 % one 22.33.
    for doubt, quantile in ((0.025, 4.3027), (0.001, 22.327)):
        extra = 20 / 64 * quantile * 0.01 / math.sqrt(3)
        assert wide.nats(64, doubt=doubt)[0] - ladder.nats(64, doubt=doubt)[0] == pytest.approx(extra, rel=1e-3)
    assert wide.nats(64)[1] == pytest.approx(ladder.nats(64)[1], rel=1e-9)
    # What a chain sees too much at every temperature cancels: the KL does not depend on where the loss is zero.
    shifted = replace(ladder, losses=ladder.losses + torch.tensor([-0.01, 0.0, 0.01], dtype=torch.float64))
    assert shifted.nats(64) == pytest.approx(ladder.nats(64), rel=1e-9)


def test_every_average_that_may_be_used_is_paid_for() -> None:
    """The certificate of a ladder, by hand: 2 K averages share .8 of delta, the inequality has the rest."""
    prior, data = coin()
    generator = torch.Generator().manual_seed(4)
    ladder = exact_ladder(np.linspace(0, 10, 5))
    noise = 0.01 * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    ladder = replace(ladder, losses=ladder.losses + noise[0], errors=0.25 + noise[1], weights=torch.zeros(5, 3, 2))
    found = ladder_certificate(ladder, prior, data, delta=0.1)
    quantile = stats.t.ppf(1 - 0.08 / 8, 2)
    bounds = []
    for rung in range(1, 5):
        per_chain = 2.5 * ladder.losses[:rung].sum(0) - 2.5 * rung * ladder.losses[rung]
        nats, error = (float(v.mean() + quantile * v.std() / math.sqrt(3)) for v in (per_chain, ladder.errors[rung]))
        bounds.append(kl_inverse(error, (max(0.0, nats) + confidence_nats(50, 0.02)) / 50))
    assert found.bound == pytest.approx(min(bounds), rel=1e-12)
    assert found.union == ("0.8 of delta for the 8 averages over chains, the rest for the inequality",)
    assert sum(found.terms.values()) == pytest.approx(found.bound)


def test_averages_that_are_spread_like_a_gaussian_are_exceeded_as_seldom_as_is_paid_for() -> None:
    """1,000 ladders of Gaussian averages: any of the eight upper ends is below its mean in .8 delta of them at most."""
    generator, delta, runs = torch.Generator().manual_seed(5), 0.25, 1000
    temperatures = torch.linspace(0, 4, 5, dtype=torch.float64)
    means = torch.tensor([0.9, 0.7, 0.6, 0.55, 0.52], dtype=torch.float64)[:, None]
    doubt, missed = 0.8 * delta / 8, 0
    truth = [float(means[:rung].sum() - rung * means[rung]) for rung in range(1, 5)]
    for _ in range(runs):
        noise = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
        ladder = Ladder(temperatures, means + 0.01 * noise[0], 0.3 + 0.01 * noise[1], means)
        low = [ladder.nats(rung, doubt=doubt)[0] < truth[rung - 1] for rung in range(1, 5)]
        missed += any(low) or any(ladder.error(rung, doubt=doubt) < 0.3 for rung in range(1, 5))
    # The union bound is nearly tight: the averages of a rung are independent, those of the KL of different rungs not.
    assert stats.binomtest(missed, runs, 0.8 * delta, alternative="greater").pvalue > 1e-3
    assert missed / runs > 0.4 * delta


def test_chains_sample_the_gibbs_distribution() -> None:
    prior, data = coin()
    temperatures = torch.tensor([0.0, 2.0, 10.0])
    # The loss falls from 0.90 over 0.66 to 0.54, so 0.03 tells the temperatures apart; 750 correlated states have a
    # standard error of about 0.01.
    ladder = climb(prior, data, temperatures=temperatures, steps=500, chains=3,
                   generator=torch.Generator().manual_seed(0))  # fmt: skip
    for rung, t in enumerate(temperatures.tolist()):
        assert abs(float(ladder.losses[rung].mean()) - quadrature(t)[0]) <= 0.03
    assert ladder.weights.shape == (3, 3, 2)


def test_acceptance_is_that_of_the_densities() -> None:
    prior, data = coin()
    first = torch.tensor([0.7, -0.4], dtype=torch.float64)
    second = torch.tensor([-0.2, 0.9], dtype=torch.float64)
    one, two = _at(prior, data, first), _at(prior, data, second)
    for t, h in ((2.0, 0.3), (30.0, 0.9)):

        def target(state: _State, t: float = t) -> float:
            return -t * state.loss - float(state.u.square().sum()) / 2

        def step(a: _State, b: _State, t: float = t, h: float = h) -> float:
            mean = ((2 - h) * a.u - 2 * h * t * a.slope) / (2 + h)
            return float(torch.distributions.Normal(mean, math.sqrt(8 * h) / (2 + h)).log_prob(b.u).sum())

        slow = target(two) + step(two, one) - target(one) - step(one, two)
        assert log_acceptance(one, two, t, h) == pytest.approx(slow, rel=1e-9)


def test_at_temperature_infinity_the_chain_is_the_prior() -> None:
    prior, data = coin()
    few = climb(prior, data, temperatures=torch.zeros(1), steps=400, chains=3)
    # E_0 F by quadrature; 600 independent draws with standard deviation about 0.35.
    assert abs(float(few.losses.mean()) - quadrature(0.0)[0]) <= 4 * 0.4 / math.sqrt(600)


def test_separates_true_from_random_labels() -> None:
    train, _ = digits(400)
    model = mlp((64, 10, 10))
    true = gibbs_certificate(model, train, steps=20, generator=torch.Generator().manual_seed(1))
    mixed = random_labels(train, generator=torch.Generator().manual_seed(2))
    random = gibbs_certificate(model, mixed, steps=20, generator=torch.Generator().manual_seed(1))
    assert not true.vacuous
    assert random.bound > 0.9 > true.bound
    assert true.condition == CONDITION
    assert true.sentence.startswith("If the chains have reached the Gibbs distribution")
    assert true.details["KL from below, nats"] <= true.details["KL, nats"]
    assert sum(true.terms.values()) == pytest.approx(true.bound)


def test_fresh_weights_leave_the_model_alone_and_see_none_of_its_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    one = fresh_weights(model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].weight.fill_(7.0)
        model[1].running_mean.fill_(7.0)
    two = fresh_weights(model, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.start, two.start)
    assert not bool(two.model[1].running_mean.any())
    assert torch.isfinite(one.start).all()
    assert bool((one.unit > 0).all())
    assert int(one.matrix.sum()) == 12 + 12 * 4 + 16 + 8


def test_certify_gibbs_needs_no_solver() -> None:
    train, heldout = blobs(60), blobs(40)
    heldout = Data(heldout.x + 0.01, heldout.y, classes=3)
    found = certify(mlp((3, 5, 3)), heldout, method="gibbs", train=train)
    assert found.n == 60
    assert found.baseline is not None
    assert found.baseline.n == 40
    assert len(found.classifier) == CHAINS
    with pytest.raises(ValueError, match="there is no train; give train=, or"):
        certify(mlp((3, 5, 3)), heldout, method="gibbs")


def test_buffers_that_no_layer_sets_are_on_trust() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    generator = torch.Generator().manual_seed(0)
    assert fresh_weights(model, generator=generator).notes == ()
    for name, value in (("centre", torch.ones(3)), ("order", torch.arange(3)), ("mask", torch.tensor([True, False]))):
        model[0].register_buffer(name, value)
    model[0].register_buffer("nothing", None)
    model[0].register_buffer("empty", torch.zeros(0))
    found = fresh_weights(model, generator=generator)
    assert found.kept == ("0.centre", "0.order", "0.mask")
    assert torch.equal(found.model[0].centre, torch.ones(3))
    (note,) = found.notes
    assert note == "buffers kept as they are given: 0.centre, 0.order, 0.mask; that no sample shaped them is on trust"
    made = gibbs_certificate(model, blobs(40), rungs=2, steps=4, generator=generator)
    assert note in made.notes


def test_a_network_that_overflows_is_neither_moved_to_nor_certified() -> None:
    class Overflowing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = super().forward(x)
            return scores + (math.nan if float(self.weight.detach()[0, 0]) > 1 else 0.0)

    model = Overflowing(1, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    prior, data = around(model, 0.5), coin()[1]
    ladder = climb(
        prior, data, temperatures=torch.tensor([0.0, 2.0]), steps=60, generator=torch.Generator().manual_seed(3)
    )
    # The prior is drawn directly, and one draw in 40 overflows; a chain that starts at another stays at others.
    assert bool((ladder.weights[1, :, 0] <= 1).any())
    assert bool(ladder.losses[1].isfinite().any())
    lost = replace(ladder, losses=torch.full_like(ladder.losses, math.nan))
    assert lost.nats(1)[0] == math.inf
    assert ladder_certificate(lost, prior, data).bound == 1.0
    assert replace(ladder, errors=torch.full_like(ladder.errors, math.nan)).error(1) == 1.0
