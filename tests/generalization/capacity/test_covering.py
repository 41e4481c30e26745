from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate

from whydeep.core import Data
from whydeep.generalization.capacity.chain import Chain, Link
from whydeep.generalization.capacity.covering import counting_rademacher, on_grid, spectral_rademacher
from whydeep.generalization.capacity.union_grid import step_price

COVERS = {"counting": counting_rademacher, "spectral": spectral_rademacher}


def link(spectral: float, distance: float, parameters: int, bias: float = 0.0, shift: float = 0.0) -> Link:
    return Link("layer", spectral, distance, bias, shift, parameters, 1.0, 0.0)


TWO = Chain((link(2.0, 3.0, 12), link(5.0, 7.0, 12)), root_mean_square=1.5)


def test_spectral_cover_is_that_of_the_paper_without_biases() -> None:
    """With equal layers sizes: C = rms^2 prod s^2 (sum (d/s)^(2/3))^3 ln(2 W), and K = sqrt(2 C) / gamma."""
    n, gamma, log = 400, 0.25, math.log(24)
    c = (1.5 * 2 * 5) ** 2 * ((3 / 2) ** (2 / 3) + (7 / 5) ** (2 / 3)) ** 3 * log
    k = math.sqrt(2 * c) / gamma
    a = 1 / 20  # min(1, 3 K) / sqrt(n), K being large
    by_hand = 4 * a + 12 / 20 * (k * math.log(20) + math.sqrt(2 * log) * (1 - a))
    assert spectral_rademacher(TWO, gamma, n) == pytest.approx(by_hand, rel=1e-12)


def test_spectral_bound_is_dudleys_integral_from_above() -> None:
    n, gamma = 10**6, 50.0
    reach = [one.distance * size * rest for one, size, rest in zip(TWO.links, TWO.sizes, TWO.rests, strict=True)]
    log = math.log(24)

    def entropy(eps: float) -> float:
        # Best shares of eps found by brute force: independent of the closed form in the module.
        shares = np.linspace(0.001, 0.999, 999)
        eta = gamma / math.sqrt(2) * eps
        return float(
            (((reach[0] / (shares * eta)) ** 2 + 1) * log + ((reach[1] / ((1 - shares) * eta)) ** 2 + 1) * log).min()
        )

    k = math.sqrt(2) / gamma * math.sqrt(sum((r * r * log) ** (1 / 3) for r in reach) ** 3)
    a = min(1.0, 3 * k) / math.sqrt(n)
    integral, _ = integrate.quad(lambda e: math.sqrt(entropy(e)), a, 1, limit=200)
    slow = 4 * a + 12 / math.sqrt(n) * integral
    fast = spectral_rademacher(TWO, gamma, n)
    assert slow <= fast <= 1.5 * slow  # sqrt(x + y) <= sqrt(x) + sqrt(y) <= sqrt(2) sqrt(x + y)


def test_counting_bound_of_one_layer_by_hand() -> None:
    # One layer, W = 10, s r + b = 2 x 3 + 1 = 7: ln N = 10 ln(1 + 14 / (eps gamma / sqrt(2))).
    chain = Chain((link(2.0, 1.0, 10, bias=1.0),), root_mean_square=3.0)
    n, gamma = 10_000, 0.5
    values = [
        eps + math.sqrt(2 * 10 * math.log(1 + 14 * math.sqrt(2) / (eps * gamma)) / n) / 2
        for eps in 10.0 ** np.linspace(-6, 0, 601)
    ]
    bound = counting_rademacher(chain, gamma, n)
    assert min(values) <= bound <= min(values) * 1.01  # ten times coarser grid


@pytest.mark.parametrize("name", sorted(COVERS))
def test_scores_and_margins_may_be_scaled_together(name: str) -> None:
    scaled = replace(TWO, links=(TWO.links[0], link(50.0, 70.0, 12)))
    assert COVERS[name](scaled, 2.5, 100) == pytest.approx(COVERS[name](TWO, 0.25, 100), rel=1e-12)


@pytest.mark.parametrize("name", sorted(COVERS))
def test_rectified_layers_may_trade_their_scale(name: str) -> None:
    traded = replace(TWO, links=(link(6.0, 9.0, 12), link(5 / 3, 7 / 3, 12)))
    assert COVERS[name](traded, 0.25, 100) == pytest.approx(COVERS[name](TWO, 0.25, 100), rel=1e-12)


@pytest.mark.parametrize("name", sorted(COVERS))
def test_complexity_grows_with_every_norm_and_falls_with_samples(name: str) -> None:
    base = replace(TWO, links=(link(2.0, 3.0, 12, 0.5, 0.7), link(5.0, 7.0, 12, 0.5, 0.7)))
    value = COVERS[name](base, 0.25, 10_000)
    assert COVERS[name](base, 0.25, 40_000) < value
    assert COVERS[name](base, 0.5, 10_000) < value
    bigger = [{"spectral": 4.0}, {"distance": 6.0}, {"bias": 1.0}, {"bias_distance": 1.4}, {"offset": 1.0}]
    changed = [
        COVERS[name](replace(base, links=(replace(base.links[0], **c), base.links[1])), 0.25, 10_000) for c in bigger
    ]
    # Each bound uses some of the norms: none lowers it, and for each bound several raise it.
    assert all(one >= value for one in changed)
    assert sum(one > value for one in changed) >= 3


def test_norms_are_rounded_up_to_the_grid_and_zero_is_free() -> None:
    chain, price = on_grid(Chain((link(1.01, 8.0, 6),), root_mean_square=1.0))
    # One layer: the grid is 2^j.
    assert (chain.links[0].spectral, chain.links[0].distance, chain.links[0].bias) == pytest.approx((2.0, 8.0, 0.0))
    assert price == pytest.approx(step_price(1) + step_price(3))


def test_the_rademacher_bounds_exceed_networks_that_chase_random_signs() -> None:
    """sup over the class >= its value at networks inside the class that are fitted to the signs."""
    generator = torch.Generator().manual_seed(0)
    n, gamma = 30, 1.0
    x = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    data = Data(x, torch.randint(2, (n,), generator=generator), classes=2)
    chain = Chain((replace(link(1.0, 1.0, 8), bias=0.0),), float(x.square().sum(1).mean().sqrt()))
    found = []
    for _ in range(8):
        signs = (2.0 * torch.randint(2, (n,), generator=generator) - 1).double()
        weight = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=0.1)
        for _ in range(50):
            inside = weight / max(1.0, float(weight.detach().norm(dim=1).sum()))  # ||.||_2 <= ||.||_{2,1} <= 1
            scores = x @ inside.T
            right = scores.gather(1, data.targets[:, None])[:, 0]
            margin = right - scores.gather(1, 1 - data.targets[:, None])[:, 0]
            correlation = (signs * (1 - margin / gamma).clamp(0, 1)).mean()
            optimizer.zero_grad()
            (-correlation).backward()
            optimizer.step()
        found.append(float(correlation.detach()))
    average = float(np.mean(found))
    assert average > 0.1  # the signs can be chased, so the comparison says something
    for name in COVERS:
        assert COVERS[name](chain, gamma, n) > average
