"""The exact risk of a ReLU student: against samples, differences, hand values, and its poor minima."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from whydeep.optimization.landscape.solvable.teacher_student import PUBLISHED, descend, gradient, hessian, risk, xavier


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_poor(k: int, extra: int = 0) -> Tensor:
    """Start (1, k + extra, k) near the poor minimum in which one unit points away from the teacher's that it misses."""
    weights = torch.eye(k, dtype=torch.float64)
    weights[-1, -1] = -0.7
    weights[:-1, -1] = 1 / k
    spare = 0.1 * draw(extra, k, seed=k)
    return torch.cat([weights, spare])[None] + 0.01 * draw(1, k + extra, k, seed=k + 1)


def test_the_risk_is_the_mean_over_gaussian_inputs() -> None:
    weights, teacher = draw(3, 4, seed=1), draw(2, 4, seed=2)
    x = draw(400_000, 4, seed=3)
    values = 0.5 * ((x @ weights.T).relu().sum(1) - (x @ teacher.T).relu().sum(1)).square()
    error = float(values.std()) / math.sqrt(len(values))
    assert float(risk(weights, teacher)) == pytest.approx(float(values.mean()), abs=4 * error)
    assert error < 0.01 * float(values.mean())


def test_the_gradient_is_the_mean_over_gaussian_inputs() -> None:
    weights, teacher = draw(2, 3, seed=4), draw(3, 3, seed=5)
    x = draw(400_000, 3, seed=6)
    residual = (x @ weights.T).relu().sum(1) - (x @ teacher.T).relu().sum(1)
    terms = residual[:, None, None] * (x @ weights.T > 0)[:, :, None] * x[:, None, :]
    errors = terms.std(0) / math.sqrt(len(x))
    assert bool(((terms.mean(0) - gradient(weights, teacher)).abs() <= 4.5 * errors).all())


def test_gradient_and_hessian_against_differences() -> None:
    weights, teacher, direction = draw(2, 3, 4, seed=7), draw(2, 4, seed=8), draw(2, 3, 4, seed=9)
    step = 1e-5  # error of the central difference: step^2 = 1e-10, of its roundings 1e-11
    ahead, behind = weights + step * direction, weights - step * direction
    slope = (risk(ahead, teacher) - risk(behind, teacher)) / (2 * step)
    torch.testing.assert_close((gradient(weights, teacher) * direction).sum((1, 2)), slope, rtol=1e-8, atol=1e-9)
    bend = (gradient(ahead, teacher) - gradient(behind, teacher)) / (2 * step)
    product = (hessian(weights, teacher) @ direction.reshape(2, 12, 1)).view_as(bend)
    torch.testing.assert_close(product, bend, rtol=1e-7, atol=1e-8)


def test_values_by_hand() -> None:
    v = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    # One unit, w = c v: F = (c - 1)^2 |v|^2/4; orthogonal units of length 1 and 2: |w|^2/4 + |v|^2/4 - |w||v|/(2 pi).
    assert float(risk(3 * v, v)) == pytest.approx(4.0, rel=1e-12)
    w = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(risk(w, v)) == pytest.approx(0.25 + 1 - 1 / math.pi, rel=1e-12)
    # Tian's form for one unit: 1/2 (w - v) + (t v - |v| sin t w/|w|)/(2 pi), t = pi/2.
    expected = 0.5 * (w - v) + (math.pi / 2 * v - 2 * w) / (2 * math.pi)
    torch.testing.assert_close(gradient(w, v), expected, rtol=1e-12, atol=1e-14)


def test_at_the_teacher_itself_everything_is_finite() -> None:
    teacher = torch.eye(3, dtype=torch.float64)
    assert float(risk(teacher, teacher)) == pytest.approx(0, abs=1e-15)
    assert float(gradient(teacher, teacher).abs().max()) < 1e-14
    curvatures = torch.linalg.eigvalsh(hessian(teacher, teacher))
    # Own blocks I/2, the others I/4 + (v_i v_j^T + v_j v_i^T)/(2 pi): at most 1/2 + 2 (1/4 + 1/(2 pi)) = 1.32.
    assert float(curvatures[0]) > 0
    assert float(curvatures[-1]) <= 1.32


@pytest.mark.parametrize("k", [6, 9, 20])
def test_poor_minima_exist_from_six_units_on(k: int) -> None:
    ended = descend(near_poor(k), torch.eye(k, dtype=torch.float64))
    assert ended.poor.tolist() == [True]
    assert float(ended.gradient_norm) <= 1e-11
    assert float(ended.curvature) > 1e-3
    assert float(ended.risk) > 0.01
    # An independent look: no random step of a hundredth lowers the risk.
    steps = draw(200, k, k, seed=1)
    around = ended.weights + 0.01 * steps / steps.flatten(1).norm(dim=1)[:, None, None]
    assert bool((risk(around, torch.eye(k, dtype=torch.float64)) > float(ended.risk)).all())


@pytest.mark.parametrize("k", [3, 4, 5])
def test_up_to_five_units_the_same_start_fits_the_teacher(k: int) -> None:
    assert descend(near_poor(k), torch.eye(k, dtype=torch.float64)).fitted.tolist() == [True]


@pytest.mark.parametrize("k", [6, 12])
def test_two_more_units_open_a_way_down(k: int) -> None:
    ended = descend(near_poor(k, extra=2), torch.eye(k, dtype=torch.float64))
    assert ended.fitted.tolist() == [True]


def test_equal_units_stay_equal_until_they_are_perturbed() -> None:
    # Tian: the dynamics keep the symmetry of the start; a small perturbation breaks it, towards the teacher.
    teacher = torch.eye(3, dtype=torch.float64)
    even = torch.full((1, 3, 3), 0.2, dtype=torch.float64)
    stuck = descend(even, teacher, most=2000)
    assert stuck.fitted.tolist() == [False]
    assert stuck.poor.tolist() == [False]  # a saddle, and not called a minimum
    assert stuck.unfinished.tolist() == [True]
    rows = stuck.weights[0]
    torch.testing.assert_close(rows, rows[:1].expand(3, 3), rtol=1e-9, atol=1e-9)
    assert descend(even + 1e-3 * draw(1, 3, 3), teacher).fitted.tolist() == [True]


def test_xavier_has_its_variance() -> None:
    weights = xavier(400, 5, 15, generator=torch.Generator().manual_seed(1))
    # 30,000 draws: the variance 2/20 within 4 standard errors, 4 sqrt(2/30000) of it.
    assert float(weights.var()) == pytest.approx(0.1, rel=4 * math.sqrt(2 / 30_000))


@pytest.mark.parametrize("k", [6, 8, 10])
def test_the_rate_of_poor_ends_is_near_the_published_one(k: int) -> None:
    ended = descend(xavier(100, k, k, generator=torch.Generator().manual_seed(k)), torch.eye(k, dtype=torch.float64))
    assert not bool(ended.unfinished.any())
    # Central 99.9 % of the binomial at the recalled rate: three tests fail by chance once in 300 draws of the seed.
    low, high = stats.binom.ppf([0.0005, 0.9995], 100, PUBLISHED[k])
    assert low <= int(ended.poor.sum()) <= high


def test_wrong_shapes_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="give \\(starts, units, k\\)"):
        descend(draw(3, 3), torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="give \\(starts, units, k\\)"):
        descend(draw(1, 3, 4), torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="above zero"):
        descend(draw(1, 3, 3), torch.eye(3, dtype=torch.float64), step=0.0)
