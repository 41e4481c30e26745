from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from whydeep.core import InputError
from whydeep.generalization.certificates.gaussian_posterior import Gaussian, around, divergence, log_ratio


def pair() -> tuple[Gaussian, Gaussian]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    prior = around(model, 0.3)
    size = len(prior.mean)
    random = torch.Generator().manual_seed(1)
    mean = prior.mean + torch.randn(size, generator=random, dtype=torch.float64)
    return replace(prior, mean=mean, scale=0.1 + torch.rand(size, generator=random, dtype=torch.float64)), prior


def test_divergence_is_that_of_normals() -> None:
    posterior, prior = pair()
    torch_ = kl_divergence(Normal(posterior.mean, posterior.scale), Normal(prior.mean, prior.scale)).sum()
    assert divergence(posterior, prior) == pytest.approx(float(torch_), rel=1e-12)
    assert divergence(prior, prior) == 0.0


def test_log_ratio_is_the_difference_of_log_densities_and_its_mean_is_the_divergence() -> None:
    posterior, prior = pair()
    random = torch.Generator().manual_seed(2)
    drawn = [posterior.draw(random) for _ in range(4000)]
    slow = Normal(posterior.mean, posterior.scale).log_prob(drawn[0]) - Normal(prior.mean, prior.scale).log_prob(
        drawn[0]
    )
    assert log_ratio(posterior, prior, drawn[0]) == pytest.approx(float(slow.sum()), rel=1e-12)
    ratios = torch.tensor([log_ratio(posterior, prior, weights) for weights in drawn])
    error = float(ratios.std()) / math.sqrt(len(drawn))
    assert abs(float(ratios.mean()) - divergence(posterior, prior)) <= 4 * error
    assert error < 0.02 * divergence(posterior, prior)


def test_draws_have_the_mean_and_scale_asked_for() -> None:
    posterior, _ = pair()
    random = torch.Generator().manual_seed(3)
    scaled = torch.stack([(posterior.draw(random) - posterior.mean) / posterior.scale for _ in range(2000)])
    # 2000 (2 x 3 + 2 + ...) standard normals in all; Kolmogorov's distance at 1e-4.
    assert stats.kstest(scaled.flatten().numpy(), "norm").pvalue > 1e-4


def test_scores_are_those_of_the_network_with_the_weights_put_in() -> None:
    posterior, _ = pair()
    weights = posterior.draw(torch.Generator().manual_seed(4))
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(posterior.scores(weights, x), posterior.network(weights)(x))
    with pytest.raises(
        ValueError, match="more than 1"
    ):  # a batch of one has no variance in training mode; the copy is in evaluation mode
        posterior.network(weights).train()(x[:1])
    assert torch.isfinite(posterior.scores(weights, x[:1])).all()


def test_the_model_is_copied_and_left_as_it_was() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    gaussian = around(model, 1.0)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(gaussian.mean[:4], before.reshape(-1))
    gaussian.network(gaussian.mean + 1)
    assert not bool(model.weight.any())
    assert model.training


def test_a_buffer_fitted_to_the_samples_is_not_let_through() -> None:
    posterior, prior = pair()
    other = prior.network(prior.mean)
    other[1].running_mean += 1.0
    with pytest.raises(ValueError, match="prior's buffers"):
        divergence(replace(posterior, model=other), prior)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="scale > 0"):
        Gaussian(torch.zeros(2), torch.tensor([1.0, 0.0]), nn.Linear(1, 1))
    with pytest.raises(InputError, match="no trainable"):
        around(nn.Flatten(), 1.0)
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(InputError, match="NaN"):
        around(model, 1.0)
    with pytest.raises(ValueError, match="one network"):
        divergence(around(nn.Linear(1, 1), 1.0), around(nn.Linear(2, 1), 1.0))


def test_half_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"half precision .*; give model.float\(\)"):
        around(nn.Linear(2, 2).bfloat16(), 1.0)


def test_a_buffer_that_is_not_saved_is_no_weight_either() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.load_state_dict(one.state_dict())
    one.register_buffer("centre", torch.zeros(2), persistent=False)
    two.register_buffer("centre", torch.ones(2), persistent=False)
    with pytest.raises(ValueError, match="differ in what is no weight"):
        divergence(around(one, 1.0), around(two, 1.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    # Their divergence was NaN, which the larger of it and 0 made 0: a posterior that cost nothing.
    posterior, _ = pair()
    mean, scale = posterior.mean.clone(), posterior.scale.clone()
    mean[0], scale[1] = bad, bad
    for changes in ({"mean": mean}, {"scale": scale}):
        with pytest.raises(ValueError, match=r"NaN or infinite|scale > 0"):
            replace(posterior, **changes)
