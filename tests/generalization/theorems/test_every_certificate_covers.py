from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats

from whydeep.core import Verdict, check
from whydeep.generalization.theorems import every_certificate_covers as theorem


def test_the_arithmetic_of_its_sizes() -> None:
    case = theorem.holds_on()
    assert case.delta / len(theorem.METHODS) == pytest.approx(0.05)
    assert stats.binom.cdf(14, 40, 0.5) < 0.05 < stats.binom.cdf(15, 40, 0.5)
    assert stats.beta.ppf(0.975, 13, case.runs - 12) < case.delta
    assert stats.binom.sf(12, case.runs, stats.binom.cdf(14, 40, 0.5)) < 2e-5


def test_the_fit_has_no_error_on_its_own_labels_and_half_on_others() -> None:
    case, generator = theorem.holds_on(), torch.Generator().manual_seed(0)
    data, other = theorem.coins(case, generator), theorem.coins(replace(case, samples=4000), generator)
    network = theorem.fit(data)
    with torch.no_grad():
        assert bool((network(data.x).argmax(1) == data.targets).all())
        scores = network(data.x)
        assert torch.allclose((scores[:, 1] - scores[:, 0]).abs(), torch.ones(40, dtype=torch.float64))
        wrong = float((network(other.x).argmax(1) != other.targets).double().mean())
    assert abs(wrong - 0.5) <= 4 * 0.5 / 4000**0.5


def test_forgetting_to_pay_is_found_out_at_any_seed() -> None:
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        assert check(theorem.claim, theorem.claim.corrupted(), generator=generator).verdict is Verdict.VIOLATED
