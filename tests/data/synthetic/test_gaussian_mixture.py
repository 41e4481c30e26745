import math

import pytest
import torch
from scipy.stats import norm

from whydeep.data import bayes_error, gaussian_mixture


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_two_means_are_the_separation_apart(classes):
    # 1,000 sd: the noise of a class mean, 1 / sqrt(n / classes) = 0.05 at most in each coordinate, does not matter.
    data = gaussian_mixture(2000, d=6, classes=classes, separation=1000.0, generator=generator())
    means = torch.stack([data.x[data.y == c].double().mean(0) for c in range(classes)])
    distances = torch.pdist(means)
    torch.testing.assert_close(distances, torch.full_like(distances, 1000), rtol=1e-3, atol=0)
    assert float(means.mean(0).norm()) < 1
    spread = torch.cat([data.x[data.y == c].double() - means[c] for c in range(classes)])
    # The variance of 12,000 numbers from N(0, 1) has standard error sqrt(2 / 12,000) = 0.013.
    assert abs(float(spread.square().mean()) - 1) < 5 * 0.013


@pytest.mark.parametrize(("classes", "separation"), [(2, 2.0), (2, 0.7), (4, 2.5)])
def test_the_nearest_mean_errs_as_often_as_bayes_error_says(classes, separation):
    n = 40_000
    data = gaussian_mixture(n, d=5, classes=classes, separation=separation, generator=generator())
    means = torch.stack([data.x[data.y == c].mean(0) for c in range(classes)])
    error = float((torch.cdist(data.x, means).argmin(1) != data.y).double().mean())
    bayes = bayes_error(separation, classes)
    # 5 standard errors; the estimated means add less than (their error 0.02)^2, which is negligible beside it.
    assert abs(error - bayes) < 5 * math.sqrt(bayes * (1 - bayes) / n)


def test_bayes_error_in_closed_form():
    assert bayes_error(3.0) == pytest.approx(norm.cdf(-1.5), rel=1e-12)
    assert bayes_error(0.0, 5) == pytest.approx(0.8, abs=1e-9)  # guessing
    assert bayes_error(20.0, 5) < 1e-9
    # At three classes, against the orthant of a Gaussian pair with correlation 1/2 by simulation in plain sight.
    z = torch.randn(400_000, 3, generator=generator(), dtype=torch.float64)
    z[:, 0] += 1.5 / math.sqrt(2)
    wrong = float((z.argmax(1) != 0).double().mean())
    assert abs(wrong - bayes_error(1.5, 3)) < 5 * math.sqrt(0.25 / 400_000)


def test_one_dimension_is_enough_for_two_classes():
    assert gaussian_mixture(10, d=1).input_shape == (1,)
    with pytest.raises(ValueError, match="d >= 2"):
        gaussian_mixture(10, d=1, classes=3)
