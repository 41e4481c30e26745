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
from whydeep.optimization.landscape.spectra.trace import FIRST_LOOK, Trace, deflated_trace


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


@pytest.mark.parametrize("deflated", [False, True])
def test_the_trace_is_unbiased_and_its_error_is_that_of_the_probes(deflated: bool) -> None:
    runs = [run(seed, deflated=deflated, tolerance=0.0, probes=16) for seed in range(100)]
    centres = np.array([one.value for one in runs])
    assert abs(centres.mean() - TRUTH) < 4 * centres.std(ddof=1) / 10, "a z-test over 100 runs"
    # The root mean square of the stated errors against the spread seen: 4 standard errors of a deviation over 100.
    stated = math.sqrt(np.mean([one.error**2 for one in runs]))
    assert centres.std(ddof=1) == pytest.approx(stated, rel=0.3)
    if not deflated:
        # One probe has variance 2 (|A|_F^2 - sum of squared diagonal entries); a run averages 16 of them.
        expected = math.sqrt(2 * float(A.square().sum() - A.diagonal().square().sum()) / 16)
        assert centres.std(ddof=1) == pytest.approx(expected, rel=0.3)
    else:
        assert centres.std(ddof=1) < 3, "without the two large eigenvalues the deviation is below 2, with them 18"
    covered = sum(one.measurement.low <= TRUTH <= one.measurement.high for one in runs)
    assert covered >= 87, "95 % intervals: 86 or fewer of 100 have probability below 0.1 %"


def test_stopping_on_the_error_keeps_most_of_the_coverage() -> None:
    runs = [run(seed, deflated=True, tolerance=0.015, probes=400) for seed in range(200)]
    assert all(one.error <= 0.015 * abs(one.value) for one in runs)
    counts = [len(one.probes) for one in runs]
    assert min(counts) >= FIRST_LOOK
    assert max(counts) < 100
    # Stopping early happens where the error looks small: some 93 % are covered in place of 95 %. Of 200, 172 or fewer
    # have probability below 0.01 % at 93 %.
    covered = sum(one.measurement.low <= TRUTH <= one.measurement.high for one in runs)
    assert covered >= 173


def test_few_probes_and_a_multiple_of_the_identity() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        run(0, deflated=False, tolerance=0.0, probes=1)
    nothing = torch.zeros(0, 7, dtype=torch.float64)
    seen = deflated_trace(lambda v: 3 * v, nothing)  # z . 3 z = 3 p for every probe
    assert (seen.value, seen.error, len(seen.probes)) == (21.0, 0.0, FIRST_LOOK)
    assert len(run(0, deflated=False, tolerance=1e-9, probes=30).probes) == 30


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
