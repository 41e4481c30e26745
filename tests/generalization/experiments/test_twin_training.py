import math

import pytest
import torch

from whydeep.generalization.experiments.twin_training import twin_training

CHAINS = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shift(w, z):
    return w + z


def apart(favour, n=10, steps=30):
    samples = torch.zeros(n, dtype=torch.float64)
    w, twin = twin_training(shift, samples, 1.0, steps=steps, chains=CHAINS, generator=generator(), favour=favour)
    assert float(w.abs().max()) == 0  # only the twin's set has a sample that moves
    return twin


@pytest.mark.parametrize("favour", [0.0, 1.0, 3.0])
def test_the_replaced_sample_is_drawn_binomially(favour):
    # Drawn with p = favour/(favour + 9) in each of 30 steps: mean 30 p, variance 30 p (1 - p).
    p, draws = favour / (favour + 9), apart(favour)
    error = math.sqrt(30 * p * (1 - p) / CHAINS)
    assert abs(float(draws.mean()) - 30 * p) <= 4 * error
    # The variance of a sample variance is about 2 sigma^4/n and a little more: five of these are 5 %.
    assert float(draws.var()) == pytest.approx(30 * p * (1 - p), rel=0.05, abs=1e-12)


def test_a_contraction_forgets_and_a_projection_holds():
    # w <- w/2 + z with the sample always drawn: 1 + 1/2 + ... = 2 (1 - 2^-40), and 1 where the set ends at 1.
    one = torch.ones(1, dtype=torch.float64)
    options = {"steps": 40, "chains": 3}
    w, twin = twin_training(lambda w, z: w / 2 + z, one, -1.0, generator=generator(), **options)
    torch.testing.assert_close(w, torch.full((3,), 2.0, dtype=torch.float64), rtol=1e-11, atol=0)
    torch.testing.assert_close(twin, -w)
    w, twin = twin_training(lambda w, z: (w / 2 + z).clamp(-1, 1), one, -1.0, generator=generator(), **options)
    assert w.tolist() == [1.0] * 3
    assert twin.tolist() == [-1.0] * 3


def test_equal_sets_make_equal_twins_and_inputs_stay():
    samples = torch.arange(4, dtype=torch.float64)
    w, twin = twin_training(shift, samples, 0.0, steps=20, chains=50, generator=generator())
    assert torch.equal(w, twin)
    assert len(set(w.tolist())) > 1
    assert samples.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("favour", [-1.0, math.inf, math.nan])
def test_a_wrong_favour_is_refused(favour):
    with pytest.raises(ValueError, match="give a number >= 0"):
        twin_training(shift, torch.zeros(2), 0.0, steps=1, chains=1, generator=generator(), favour=favour)
