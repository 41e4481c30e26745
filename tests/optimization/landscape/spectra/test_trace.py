"""The trace by random probes: no bias, an error that is what it says, and less of it beside a basis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from whydeep.core import InputError
from whydeep.optimization.landscape.spectra import memory
from whydeep.optimization.landscape.spectra.block_lanczos import block_lanczos
from whydeep.optimization.landscape.spectra.trace import KNOWN, Trace, deflated_trace


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


VALUES = torch.cat([torch.tensor([50.0, 20.0]).double(), torch.linspace(-1, 1.5, 98).double()])
TURN, _ = torch.linalg.qr(normal(100, 100))
A = TURN * VALUES @ TURN.T
TRUTH = float(VALUES.sum())


def run(seed: int, *, deflated: bool, tolerance: float, probes: int) -> Trace:
    basis, captured = torch.zeros(0, 100, dtype=torch.float64), 0.0
    if deflated:
        seen = block_lanczos(lambda v: v @ A, normal(2, 100, seed=1), steps=5)
        basis, captured = seen.basis, float(seen.matrix.trace())
    generator = torch.Generator().manual_seed(seed)
    return deflated_trace(
        lambda v: v @ A, basis, captured=captured, tolerance=tolerance, probes=probes, generator=generator
    )


def matrix_of(values: Tensor) -> Tensor:
    turn, _ = torch.linalg.qr(normal(len(values), len(values), seed=2))
    return turn * values @ turn.T


def plain(values: Tensor, probes: int, seed: int) -> Trace:
    """All probes, beside no basis."""
    a, nothing = matrix_of(values), torch.zeros(0, len(values), dtype=torch.float64)
    return deflated_trace(
        lambda v: v @ a, nothing, tolerance=0.0, probes=probes, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("deflated", [False, True])
def test_the_trace_is_unbiased_and_its_error_is_that_of_the_probes(deflated: bool) -> None:
    runs = [run(seed, deflated=deflated, tolerance=0.0, probes=16) for seed in range(100)]
    centres = np.array([one.value for one in runs])
    assert abs(centres.mean() - TRUTH) < 4 * centres.std(ddof=1) / 10, "a z-test over 100 runs"
    # The root mean square of the stated errors against the spread seen: 4 standard errors of a deviation over 100.
    stated = math.sqrt(np.mean([one.error**2 for one in runs]))
    assert centres.std(ddof=1) == pytest.approx(stated, rel=0.3)
    if not deflated:
        # By hand: a point on the sphere of radius sqrt(100) has variance 2 100/102 (|A|_F^2 - (tr A)^2 / 100).
        expected = math.sqrt(200 / 102 * (float(VALUES.square().sum()) - TRUTH**2 / 100) / 16)
        assert stated == pytest.approx(expected, rel=0.15)
        assert centres.std(ddof=1) == pytest.approx(expected, rel=0.3)
    else:
        assert centres.std(ddof=1) < 3, "without the two large eigenvalues the deviation is below 2, with them 18"
    covered = sum(one.measurement.low <= TRUTH <= one.measurement.high for one in runs)
    assert covered >= 87, "95 % intervals: 86 or fewer of 100 have probability below 0.1 %"


def test_the_stated_variance_has_no_bias_even_from_two_probes() -> None:
    # d = 6 and k = 2: every small-sample factor of the formula counts. Variance of a probe by hand, as above.
    values = torch.tensor([5.0, 3.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.float64)
    variance = 2 * 6 / 8 * (float(values.square().sum()) - float(values.sum()) ** 2 / 6)
    stated = np.array([2 * plain(values, 2, seed).error ** 2 for seed in range(2000)])
    assert stated.mean() == pytest.approx(variance, abs=4 * stated.std(ddof=1) / math.sqrt(2000))
    assert stated.std(ddof=1) / math.sqrt(2000) < 0.02 * variance, "a factor of d / (d + 2) would be seen"


def test_the_images_tell_the_error_sooner_than_the_spread_of_the_probes() -> None:
    values = torch.cat([torch.ones(100), -torch.ones(100)]).double()
    # Two hundred directions count alike: r = 200 / 200^2, so that 4 probes have some 800 degrees of freedom.
    runs = [plain(values, 4, seed) for seed in range(50)]
    assert float(np.median([one.degrees for one in runs])) > 200
    errors = np.array([one.error for one in runs])
    spreads = np.array([float(one.probes.std()) / 2 for one in runs])
    assert errors.std() / errors.mean() < 0.02
    assert spreads.std() / spreads.mean() > 0.2, "s of 4 numbers varies by 1 / sqrt(6) = 40 %"


def test_where_one_direction_holds_everything_every_probe_is_one_degree() -> None:
    values = torch.zeros(300, dtype=torch.float64)
    values[0] = 7.0
    seen = plain(values, 8, 0)
    assert seen.degrees == pytest.approx(8, rel=0.05), "but for the part (tr B / d)^2 of all other directions"
    # The same beside a multiple of the identity, which moves no probe: C = B - tr B / d does not see it.
    shifted = plain(values + 100, 8, 0)
    assert shifted.error == pytest.approx(seen.error, rel=1e-6)
    assert shifted.degrees == pytest.approx(seen.degrees, rel=1e-6)
    # So a search for an error of 50 % does not trust the first four probes.
    a, nothing = matrix_of(values), torch.zeros(0, 300, dtype=torch.float64)
    counts = [
        len(deflated_trace(lambda v: v @ a, nothing, tolerance=0.5, generator=torch.Generator().manual_seed(k)).probes)
        for k in range(10)
    ]
    assert min(counts) >= KNOWN


def test_stopping_on_the_error_keeps_the_coverage() -> None:
    runs = [run(seed, deflated=True, tolerance=0.015, probes=400) for seed in range(300)]
    assert all(one.error <= 0.015 * abs(one.value) for one in runs)
    counts = [len(one.probes) for one in runs]
    assert min(counts) >= 4
    assert max(counts) < 100
    off = np.array([abs(one.value - TRUTH) / one.error for one in runs])
    # Within 1 and 2 stated errors lie 68.3 and 95.4 % of 300: 205 and 286, +- 4 standard deviations of 8.1 and 3.6.
    assert 172 <= (off <= 1).sum() <= 238
    assert (off <= 2).sum() >= 272
    covered = sum(one.measurement.low <= TRUTH <= one.measurement.high for one in runs)
    assert covered >= 270, "95 % intervals: 269 or fewer of 300 have probability below 0.1 %"


def test_few_probes_and_a_multiple_of_the_identity() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        run(0, deflated=False, tolerance=0.0, probes=1)
    with pytest.raises(ValueError, match="leaves nothing to probe"):
        deflated_trace(lambda v: v, torch.eye(3, dtype=torch.float64))
    nothing = torch.zeros(0, 7, dtype=torch.float64)
    seen = deflated_trace(lambda v: 3 * v, nothing)  # z . 3 z = 3 p for every probe
    assert seen.value == pytest.approx(21.0, rel=1e-14)
    assert seen.error < 1e-6, "0 but for the root of a rounding"
    assert len(run(0, deflated=False, tolerance=1e-9, probes=30).probes) == 30
    assert len(run(0, deflated=False, tolerance=1e-9, probes=7).probes) == 7
    # One direction left: z is +- it, and nothing is uncertain.
    one = deflated_trace(lambda v: v * VALUES[:3], torch.eye(3, dtype=torch.float64)[:2], captured=70.0)
    assert one.value == pytest.approx(69.0, rel=1e-14)
    assert one.error < 1e-6


def test_the_memory_of_a_basis_is_counted_in_vectors() -> None:
    # 40 steps of 4 vectors, 11 eigenvectors, 6 blocks of 4 and 3 more: 198 vectors of a million float32 numbers.
    assert memory.spectrum_bytes(10**6, block=4, steps=40, kept=11, width=4) == 198 * 4 * 10**6
    assert memory.spectrum_bytes(10**7, block=4, steps=40, kept=11, width=4) < 8 * 10**9
    with pytest.raises(InputError, match="give steps=18, which fits"):
        memory.check(10**6, block=4, steps=40, kept=11, width=4, limit=110 * 4 * 10**6)
    # What it says would fit does, and one step more does not.
    memory.check(10**6, block=4, steps=18, kept=11, width=4, limit=110 * 4 * 10**6)
    with pytest.raises(InputError):
        memory.check(10**6, block=4, steps=19, kept=11, width=4, limit=110 * 4 * 10**6)
    with pytest.raises(InputError, match="give at most 689,655 parameters"):
        memory.check(10**6, block=4, steps=40, kept=11, width=4, limit=40 * 4 * 10**6)
    assert memory.check(10**6, block=4, steps=40, kept=11, width=4, limit=None)
    free = memory.available(torch.device("cpu"))
    assert free is None or free > 0
