from __future__ import annotations

import pytest
import torch
from problems import digits
from sklearn.linear_model import LogisticRegression

from whydeep.representation.probe import gain, probe, standardised


def test_the_probe_is_scikit_learns_logistic_regression() -> None:
    train, test = digits(400, dtype=torch.float64)
    a, b = standardised(train.x.flatten(1), test.x.flatten(1))
    for penalty in (1e-3, 1e-1):
        peer = LogisticRegression(C=1 / (penalty * 400), tol=1e-8, max_iter=2000).fit(a.numpy(), train.y.numpy())
        own = probe(
            train.x.flatten(1),
            train.y,
            test_features=test.x.flatten(1),
            test_labels=test.y,
            penalties=[penalty],
        )
        # The optimum is unique; ours stops at a gradient of 1e-4, so one sample of 360 at a boundary may differ.
        assert int((own.right.numpy() != (peer.predict(b.numpy()) == test.y.numpy())).sum()) <= 1


def test_a_layer_that_encodes_the_label_gives_one_and_noise_gives_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    y, held = (torch.randint(4, (n,), generator=generator) for n in (400, 1000))
    codes = torch.eye(4, dtype=torch.float64) * 100 + 7  # scale and shift do not matter
    planted = probe(codes[y], y, test_features=codes[held], test_labels=held).accuracy("planted")
    assert planted.value == 1.0
    noise = torch.randn(1400, 5, generator=generator, dtype=torch.float64)
    blind = probe(noise[:400], y, test_features=noise[400:], test_labels=held).accuracy("noise")
    # Chance is 1/4, standard deviation sqrt(3/16/1000) = 0.014: five of them.
    assert abs(blind.value - 0.25) < 0.07


def test_the_penalty_is_chosen_by_held_back_training_samples() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 100, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (400,), generator=generator)
    # Nothing to learn: on the 80 held back the weak penalties lose far more than log 2, the strongest about log 2.
    assert probe(x, y, test_features=x, test_labels=y, penalties=(1e-4, 1e-2, 10.0)).penalty == 10.0
    sharp = torch.cat([10.0 * y[:, None], 0.1 * x[:, :3]], 1)  # the label stands in the first feature
    assert probe(sharp, y, test_features=sharp, test_labels=y, penalties=(1e-4, 1e-2, 10.0)).penalty == 1e-4


def test_constant_features_one_class_and_one_sample_do_no_harm() -> None:
    train, test = standardised(torch.tensor([[3.0, 1.0], [3.0, 3.0]]), torch.tensor([[5.0, 2.0]]))
    assert train.tolist() == [[0.0, -1.0], [0.0, 1.0]]
    assert test.tolist() == [[2.0, 0.0]]
    x, one = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.ones(5, dtype=torch.int64)
    assert probe(x, one, test_features=x, test_labels=one).accuracy("one class").value == 1.0
    assert probe(x[:1], one[:1], test_features=x, test_labels=1 - one).accuracy("one sample").value == 0.0
    with pytest.raises(ValueError, match="give one label a row"):
        probe(x, one[:2], test_features=x, test_labels=one)
    with pytest.raises(ValueError, match=r"give \(n, d\)"):
        probe(x, one, test_features=x[:, :1], test_labels=one)


def test_gain_by_hand_and_its_coverage() -> None:
    better = torch.tensor([True, True, True, False])
    measured = gain("gain", better, torch.tensor([False, False, True, True]))
    assert measured.value == 0.25  # (2 - 1)/4
    # 300 draws of 200 paired samples: first right alone with 0.10, second with 0.04; true gain 0.06.
    draws = torch.rand(300, 200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    covered = 0
    for u in draws:
        seen = gain("gain", (u < 0.10) | (u > 0.5), (u > 0.46))
        covered += seen.low <= 0.06 <= seen.high
    # At least 95 % by construction: 300 * 0.95 = 285, standard deviation 3.8; three below.
    assert covered >= 274
