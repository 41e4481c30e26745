"""Moments from the trace's probes, and the weights that they correct: closed forms, edges and what is gained."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from whydeep.optimization.landscape.spectra.block_lanczos import Projection, block_lanczos
from whydeep.optimization.landscape.spectra.moments import Moments, Parabolas, corrections
from whydeep.optimization.landscape.spectra.spectral_density import Quadrature
from whydeep.optimization.landscape.spectra.trace import Trace, deflated_trace


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("columns", [1, 2])
def test_probes_in_all_directions_tell_both_moments_exactly(columns: int) -> None:
    # Probes sqrt(d) u_j along an orthonormal basis of what the run left out: their mean is the trace, without chance.
    a = normal(12, 12)
    a = a + a.T
    seen = block_lanczos(lambda v: v @ a, normal(columns, 12, seed=1), steps=3)
    beside = torch.linalg.svd(seen.basis)[2][len(seen.basis) :]
    images = math.sqrt(len(beside)) * (beside @ a) @ beside.T
    traced = Trace(
        float(seen.matrix.trace()),
        len(beside),
        math.sqrt(len(beside)) * images.diagonal(),
        images.square().sum(1),
        torch.zeros(0, 3, dtype=torch.float64),
    )
    moments = Moments.of(seen, traced)
    assert moments.first == pytest.approx(float(a.trace()) / 12, rel=1e-12)
    assert moments.second == pytest.approx(float(a.square().sum()) / 12, rel=1e-12)
    rest = beside @ a @ beside.T
    assert moments.noise == pytest.approx(float(rest.square().sum()) / (12 * len(beside)), rel=1e-12)


def corrected(nodes: list[float], weights: list[float], *, first: float, second: float, noise: float = 0.0) -> Tensor:
    places, rows = (torch.tensor(values, dtype=torch.float64) for values in (nodes, weights))
    free = torch.ones(len(nodes), dtype=torch.bool)
    return rows * corrections(places, rows[None], free=free, moments=Moments(first, second, noise))[0]


def test_three_nodes_take_the_weights_that_three_moments_determine() -> None:
    # At -1, 0, 1: w_1 = (m_2 + m_1)/2, w_-1 = (m_2 - m_1)/2. With noise as large as the column's own, sum w t^2 = 2/3,
    # the gap is halved: m_1 goes from 0 to .05 and m_2 from 2/3 to .6833.
    third = [1 / 3] * 3
    sure = corrected([-1, 0, 1], third, first=0.1, second=0.7)
    torch.testing.assert_close(sure, torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64))
    half = corrected([-1, 0, 1], third, first=0.1, second=0.7, noise=2 / 3)
    torch.testing.assert_close(half, torch.tensor([0.95, 0.95, 1.1], dtype=torch.float64) / 3, rtol=1e-9, atol=0)


def test_the_correction_is_the_least_one_relative_to_the_weights() -> None:
    # Minimise sum (w' - w)^2 / w subject to the three moments: by Lagrange's equations, written out.
    nodes, weights = [-2.0, -1.0, 0.5, 1.0, 4.0], [0.1, 0.2, 0.4, 0.2, 0.1]
    w, t = torch.tensor(weights, dtype=torch.float64), torch.tensor(nodes, dtype=torch.float64)
    powers = torch.stack([t**k for k in range(3)])
    wanted = torch.tensor([1.0, 0.45, 2.3], dtype=torch.float64)
    multipliers = torch.linalg.solve(powers * w @ powers.T, wanted - powers @ w)
    found = corrected(nodes, weights, first=0.45, second=2.3)
    torch.testing.assert_close(found, w * (1 + multipliers @ powers), rtol=1e-9, atol=1e-12)


def test_no_weight_falls_below_zero_and_the_total_stays() -> None:
    found = corrected([-1, 0, 1], [1 / 3] * 3, first=0.99, second=0.9)
    assert float(found.min()) == pytest.approx(0, abs=1e-15)
    assert float(found.sum()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("nodes", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [5.0]], ids=["one place", "zero", "one node"])
def test_where_nothing_can_move_nothing_does(nodes: list[float]) -> None:
    weights = [1 / len(nodes)] * len(nodes)
    found = corrected(nodes, weights, first=3.0, second=9.0, noise=0.1)
    torch.testing.assert_close(found, torch.tensor(weights, dtype=torch.float64), rtol=1e-9, atol=0)


def test_known_weights_stay() -> None:
    nodes = torch.tensor([-1.0, 0, 1, 9], dtype=torch.float64)
    weights = torch.tensor([[0.3, 0.3, 0.3, 0.1]], dtype=torch.float64)
    free = torch.tensor([True, True, True, False])
    factors, told = corrections(nodes, weights, free=free, moments=Moments(1.0, 8.8, 0.0))
    assert float(factors[3]) == told == 1
    # w_1 - w_-1 = 1 - .9, w_1 + w_-1 = 8.8 - 8.1, and .9 in all.
    torch.testing.assert_close(factors[:3] * 0.3, torch.tensor([0.3, 0.2, 0.4], dtype=torch.float64))


def test_the_nearest_parabola_is_a_weighted_least_squares_fit() -> None:
    nodes, weights = torch.linspace(-3, 5, 9, dtype=torch.float64), normal(9).abs()
    values = torch.stack([nodes.exp(), 1 - 2 * nodes + nodes.square()], 1)
    powers = torch.stack([nodes**k for k in range(3)], 1)
    known = powers @ torch.linalg.lstsq(powers * weights.sqrt()[:, None], values * weights.sqrt()[:, None]).solution
    found = Parabolas.on(nodes, weights).nearest(values)
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[:, 1], values[:, 1], rtol=1e-9, atol=1e-9)


def bulk_and_tail() -> Tensor:
    """Eigenvalues as of a trained network: nine in ten next to zero, the rest falling off, a few far out."""
    return torch.cat([0.01 * normal(1800), torch.linspace(0, 1, 197).double() ** 3, torch.tensor([3.0, 4.0, 6.0])])


def runs(values: Tensor, count: int) -> list[tuple[Projection, Trace]]:
    found = []
    for seed in range(count):
        seen = block_lanczos(lambda v: v * values, normal(1, len(values), seed=seed), steps=20)
        traced = deflated_trace(
            lambda v: v * values,
            seen.basis,
            captured=float(seen.matrix.trace()),
            tolerance=0.0,
            probes=8,
            generator=seeded(1000 + seed),
        )
        found.append((seen, traced))
    return found


def test_moments_bring_the_density_nearer_and_the_band_knows_it() -> None:
    values = bulk_and_tail()
    grid, width = torch.linspace(-0.3, 6.3, 400, dtype=torch.float64), 0.06
    exact = torch.exp(-0.5 * ((grid - values[:, None]) / width) ** 2).mean(0) / (width * math.sqrt(2 * math.pi))
    off: dict[bool, list[float]] = {True: [], False: []}
    spread: dict[bool, list[Tensor]] = {True: [], False: []}
    stated: dict[bool, list[Tensor]] = {True: [], False: []}
    for seen, traced in runs(values, 40):
        for told in (True, False):
            rule = Quadrature.of(seen, traced if told else None)
            assert float(rule.weights.sum()) == pytest.approx(1, rel=1e-9)
            density = rule.density(grid, width=width)
            off[told].append(float((density.value - exact).abs().sum() * (grid[1] - grid[0])))
            spread[told].append(density.value[20:60])
            stated[told].append((density.high - density.value)[20:60] / 1.96)
    means = {told: sum(each) / len(each) for told, each in off.items()}
    assert means[True] < 0.9 * means[False], "by the three directions of many in which the columns' chance is taken out"
    for told in (True, False):
        seen_error = torch.stack(spread[told]).std(0).mean()
        said = torch.stack(stated[told]).square().mean(0).sqrt().mean()
        # 40 runs: a standard deviation of 11 %; neighbouring points move together, so that their mean is hardly surer.
        assert float(said / seen_error) == pytest.approx(1, abs=0.45)
    said = {told: float(torch.stack(each).mean()) for told, each in stated.items()}
    assert said[True] < said[False]


def test_without_probes_the_quadrature_is_that_of_the_columns() -> None:
    values = bulk_and_tail()
    ((seen, traced),) = runs(values, 1)
    plain = Quadrature.of(seen)
    empty = dataclasses.replace(traced, probes=traced.probes[:0], squares=traced.squares[:0])
    assert plain.told == 0
    assert torch.equal(Quadrature.of(seen, empty).weights, plain.weights)
    assert not torch.equal(Quadrature.of(seen, traced).weights, plain.weights)
