from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from problems import digits
from sklearn.naive_bayes import GaussianNB
from torch import nn

from whydeep.core import Data, InputError
from whydeep.core.numbers import percent
from whydeep.generalization.certificates.certificate import sureness
from whydeep.generalization.certificates.certifying import certify
from whydeep.generalization.certificates.heldout import BOUNDS, hoeffding_bound, kl_bound
from whydeep.generalization.certificates.inversion import binomial_tail_inverse


@pytest.mark.parametrize("method", sorted(BOUNDS))
def test_no_risk_is_missed_with_probability_above_delta(method: str) -> None:
    """Coverage by enumeration: for every p, the probability of the k whose bound lies below p is at most delta."""
    worst = Fraction(0)
    for samples in (1, 2, 7, 30):
        for delta in (0.3, 0.05):
            bounds = [BOUNDS[method](k, samples, delta) for k in range(samples + 1)]
            # Violations are most likely just above a bound; a grid covers the rest.
            risks = [math.nextafter(b, 2) for b in bounds if b < 1] + [i / 50 for i in range(51)]
            for risk in risks:
                p = Fraction(risk)
                missed = sum(
                    (
                        math.comb(samples, k) * p**k * (1 - p) ** (samples - k)
                        for k in range(samples + 1)
                        if bounds[k] < risk
                    ),
                    Fraction(0),
                )
                assert missed <= Fraction(delta), (samples, delta, risk)
                worst = max(worst, missed / Fraction(delta))
    # The exact method spends all of delta somewhere; the others do not need to.
    assert worst > 0.999 if method == "binomial" else worst > 0


def test_coverage_check_can_fail() -> None:
    # Inverting at 2 delta is found out: at a risk just above the bound for k = 0 the tail is nearly 2 delta.
    risk = math.nextafter(binomial_tail_inverse(0, 30, 0.1), 2)
    assert (1 - risk) ** 30 > 0.05


def test_bounds_are_monotone_and_ordered() -> None:
    for samples in (10, 450):
        for name, bound in BOUNDS.items():
            values = [bound(k, samples, 0.05) for k in range(samples + 1)]
            assert all(np.diff(values) >= 0), name
            assert bound(3, samples, 0.01) > bound(3, samples, 0.05)
        for k in range(samples + 1):
            exact, chernoff = binomial_tail_inverse(k, samples, 0.05), kl_bound(k, samples, 0.05)
            # Pinsker: kl >= 2 (p - q)^2, so Hoeffding lies above; 1e-12 for their outward roundings.
            assert exact <= chernoff + 1e-12
            assert chernoff <= hoeffding_bound(k, samples, 0.05) + 1e-12


def test_candidates_pay_the_union_bound() -> None:
    data = Data(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64), classes=2)
    zero = nn.Linear(1, 2, bias=False)
    alone, chosen = certify(zero, data), certify(zero, data, candidates=10)
    assert alone.bound == binomial_tail_inverse(0, 40, 0.05)
    assert chosen.bound == binomial_tail_inverse(0, 40, 0.005)
    assert "chosen among 10" in chosen.sentence


def test_one_certificate_for_networks_estimators_and_functions() -> None:
    train, test = digits(400)
    fitted = GaussianNB().fit(train.x.flatten(1).numpy(), train.y.numpy())
    wrong = int((fitted.predict(test.x.flatten(1).numpy()) != test.y.numpy()).sum())

    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(fitted.predict_proba(x.flatten(1).numpy()))

    def scores(x: torch.Tensor) -> np.ndarray:
        return fitted.predict_log_proba(x.flatten(1).numpy())

    for classifier in (fitted, Wrapped(), scores, lambda x: fitted.predict(x.flatten(1).numpy())):
        certificate = certify(classifier, test)
        assert certificate.errors == wrong
        assert certificate.bound == binomial_tail_inverse(wrong, 360, 0.05)
    assert not certificate.vacuous
    assert certificate.slack == pytest.approx(certificate.bound - wrong / 360)


def test_a_certificate_no_better_than_guessing_is_vacuous() -> None:
    y = torch.arange(10).repeat(4)
    certificate = certify(lambda x: torch.zeros(len(x)), Data(torch.zeros(40, 1), y, classes=10))
    assert certificate.errors == 36
    assert certificate.trivial == pytest.approx(0.9)
    assert certificate.vacuous
    assert "guessing" in certificate.sentence


def test_one_sample() -> None:
    data = Data(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), classes=2)
    assert certify(lambda x: torch.zeros(1), data).bound == pytest.approx(0.95)
    assert certify(lambda x: torch.ones(1), data).bound == 1.0


def test_refuses_what_it_cannot_certify() -> None:
    data = Data(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), classes=2)
    with pytest.raises(ValueError, match="binomial, hoeffding, kl"):
        certify(lambda x: torch.zeros(3), data, method="magic")
    with pytest.raises(ValueError, match="candidates=0"):
        certify(lambda x: torch.zeros(3), data, candidates=0)
    with pytest.raises(ValueError, match=r"candidates=1\.5"):
        certify(lambda x: torch.zeros(3), data, candidates=1.5)
    with pytest.raises(TypeError, match="delta is str"):
        certify(lambda x: torch.zeros(3), data, delta="0.05")
    with pytest.raises(ValueError, match="delta=1"):
        certify(lambda x: torch.zeros(3), data, delta=1)
    with pytest.raises(InputError, match="no classes"):
        certify(lambda x: torch.zeros(3), Data(torch.zeros(3, 1), torch.zeros(3, 1)))
    with pytest.raises(InputError, match=r"shape \(2,\) for 3 samples"):
        certify(lambda x: torch.zeros(2), data)
    with pytest.raises(InputError, match="NaN"):
        certify(lambda x: torch.full((3, 2), math.nan), data)
    with pytest.raises(TypeError, match="int"):
        certify(3, data)


@pytest.mark.parametrize("fraction", [0.0318001, 0.03, 0.3, 0.999, 0.0499999, 1.0, 7e-5])
def test_percent_rounded_up_is_never_below(fraction: float) -> None:
    # The number printed, read back, is no smaller than the bound (up to the 1e-9 % that it forgives).
    assert float(percent(fraction, up=True).rstrip(" %")) >= 100 * fraction - 1e-9


def test_data_of_no_known_form_are_refused_in_a_sentence() -> None:
    x, y = np.zeros((4, 2), dtype=np.float32), np.array([0, 1, 0, 1])
    network = nn.Linear(2, 2)
    assert certify(network, (x, y)).n == 4
    for wrong, message in (((x[:0], y[:0]), "no samples"), (x, "pair"), (3, "pair"), ((x, x), "no classes")):
        with pytest.raises(InputError, match=message):
            certify(network, wrong)


@pytest.mark.parametrize(
    ("delta", "words"), [(0.05, "95 %"), (0.5, "50 %"), (1e-6, "99.9999 %"), (0.012, "98.8 %"), (0.99999, "0 %")]
)
def test_how_sure_is_never_rounded_up(delta: float, words: str) -> None:
    assert sureness(delta) == words


def test_the_smallest_delta_is_not_a_hundred_per_cent() -> None:
    assert sureness(5e-324) == f"99.{'9' * 321}5 %"  # 100 - 5e-322
