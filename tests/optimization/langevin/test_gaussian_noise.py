"""The noise of Langevin dynamics: its law, its independence of how it is drawn, and its state."""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from whydeep.optimization.langevin import gaussian_noise
from whydeep.optimization.langevin.gaussian_noise import AHEAD_FROM, BoxMuller, GaussianNoise


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(noise: GaussianNoise, size: int, times: int) -> Tensor:
    like = torch.empty(size)
    drawn = []
    for _ in range(times):
        drawn.append(noise.like([like])[0].clone())
        noise.draw_ahead()
    return torch.stack(drawn)


def test_the_fast_numbers_are_standard_normal() -> None:
    n = 2_000_000
    out = np.empty(n, dtype=np.float32)
    BoxMuller(1).fill(out)
    z = out.astype(np.float64)
    # Moments 1 to 4 within four standard errors: their variances are 1, 2, 15, 96 over n.
    for power, (value, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs((z**power).mean() - value) < 4 * math.sqrt(variance / n)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    # The tails, each count within four of its standard deviations: float32 rounding must not thin them out.
    for level in (3.0, 4.0, 4.5):
        mean = n * float(stats.norm.sf(level))
        for count in ((z > level).sum(), (z < -level).sum()):
            assert abs(count - mean) < 4 * math.sqrt(mean)


def test_the_two_of_a_pair_are_independent_and_draws_follow_each_other() -> None:
    n = 1_000_000
    source, first, second = BoxMuller(2), np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    source.fill(first)
    source.fill(second)
    a, b = first[: n // 2].astype(float), first[n // 2 :].astype(float)
    for one, other, count in ((a, b, n // 2), (first[1:], first[:-1], n - 1), (first, second, n)):
        assert abs(np.mean(one * other)) < 4 / math.sqrt(count)
    # A shared radius would show in the squares: their product has mean 1, variance 9 - 1.
    assert abs(np.mean(a**2 * b**2) - 1) < 4 * math.sqrt(8 / (n // 2))
    # An angle that is not uniform would show in a^2 - b^2 against a b, or in one quadrant: 1/4 each.
    for quadrant in ((a > 0) & (b > 0), (a < 0) & (b > 0), (a < 0) & (b < 0), (a > 0) & (b < 0)):
        assert abs(quadrant.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / (n // 2))


def test_it_is_box_and_mullers_formula() -> None:
    m = 50
    words = np.random.SFC64(7).random_raw(m).view(np.int32)
    u = np.abs((words[:m] | 1) * 2.0**-31)
    angle = np.pi * words[m:] * 2.0**-31
    out = np.empty(2 * m, dtype=np.float32)
    BoxMuller(7).fill(out)
    radius = np.sqrt(-2 * np.log(u))
    # float32: the angle is rounded by up to pi 2^-24, times a radius of up to 6.6; r itself by a few 2^-24.
    np.testing.assert_allclose(out, np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]), atol=5e-6)


def test_the_smallest_uniform_gives_a_finite_number() -> None:
    # k = 1: r = sqrt(-2 ln 2^-31) = sqrt(62 ln 2).
    source = BoxMuller(0)

    class Zeros:
        def random_raw(self, m: int) -> np.ndarray:
            return np.zeros(m, dtype=np.uint64)

    source.bits = Zeros()
    out = np.empty(4, dtype=np.float32)
    source.fill(out)
    assert out == pytest.approx([math.sqrt(62 * math.log(2))] * 2 + [0, 0], rel=1e-6)


def test_drawn_ahead_or_not_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 2)
    ahead = draws(GaussianNoise(seeded()), AHEAD_FROM + 1, 4)
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 1)
    at_once = draws(GaussianNoise(seeded()), AHEAD_FROM + 1, 4)
    assert torch.equal(ahead, at_once)
    assert not torch.equal(ahead[0], ahead[1])


def test_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, size, copies in ((1, 10, 1), (2, AHEAD_FROM, 2)):
        monkeypatch.setattr(gaussian_noise, "_cores", lambda cores=cores: cores)
        noise, like = GaussianNoise(seeded()), torch.empty(size)
        places = set()
        for _ in range(6):
            places.add(noise.like([like])[0].data_ptr())
            noise.draw_ahead()
        assert len(places) == copies


def test_numbers_hold_until_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 2)
    noise = GaussianNoise(seeded())
    (drawn,) = noise.like([torch.empty(AHEAD_FROM)])
    kept = drawn.clone()
    noise.draw_ahead()
    noise.draw_ahead()  # asked twice, begun once
    assert noise._thread is not None
    assert noise._thread.busy
    noise._thread.wait()  # the next numbers are there
    assert torch.equal(drawn, kept)


@pytest.mark.parametrize("cores", [1, 2])
def test_the_state_does_not_count_what_was_drawn_ahead(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: cores)
    noise = GaussianNoise(seeded())
    draws(noise, AHEAD_FROM, 3)
    state, fast = noise.state()
    expected = draws(noise, AHEAD_FROM, 2)
    other = GaussianNoise(seeded(99))
    other.restore(state, fast)
    assert torch.equal(draws(other, AHEAD_FROM, 2), expected)
    noise.restore(state, fast)  # with numbers waiting that must be dropped
    assert torch.equal(draws(noise, AHEAD_FROM, 2), expected)


def test_another_size_takes_back_what_was_drawn_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 2)
    noise = GaussianNoise(seeded())
    draws(noise, AHEAD_FROM, 1)
    changed = draws(noise, AHEAD_FROM + 2, 1)
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 1)
    other = GaussianNoise(seeded())
    draws(other, AHEAD_FROM, 1)
    assert torch.equal(changed, draws(other, AHEAD_FROM + 2, 1))


def test_other_types_are_drawn_by_the_generator_itself() -> None:
    one, other = GaussianNoise(seeded()).like(
        [torch.empty(2, dtype=torch.float64), torch.empty(3, dtype=torch.float64)]
    )
    assert torch.equal(torch.cat([one, other]), torch.randn(5, generator=seeded(), dtype=torch.float64))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_it_goes_on_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_noise, "_cores", lambda: 2)
    noise = GaussianNoise(seeded())
    draws(noise, AHEAD_FROM, 2)
    expected = expected_mean()
    assert noise.fast is not None
    # As where the thread is drawing at the moment of the fork: the child's copy of its lock stays locked.
    held, forked = threading.Event(), threading.Event()

    def hold(lock: Any) -> None:
        with lock:
            held.set()
            forked.wait(30)

    holder = threading.Thread(target=hold, args=(noise.fast.bits.lock,))
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:  # no thread of the parent lives here; waiting for one would hang, and the alarm ends it
        signal.alarm(20)
        mean = float(noise.like([torch.empty(AHEAD_FROM)])[0].double().mean())
        os._exit(0 if mean == expected else 1)
    forked.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def expected_mean() -> float:
    alone = GaussianNoise(seeded())
    return float(draws(alone, AHEAD_FROM, 3)[2].double().mean())
