"""Rosenblatt's perceptron against its transcription, by hand, and where it cannot end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whydeep.core import InputError, Status
from whydeep.networks.perceptron import perceptron


def separable(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    score = x @ torch.randn(d, generator=generator, dtype=torch.float64)
    keep = score.abs() >= min(0.1, float(score.abs().max()))  # at least one sample stays
    return x[keep], torch.where(score[keep] > 0, 1, -1)


def transcription(x: Tensor, y: Tensor, passes: int) -> tuple[Tensor, int, int]:
    """One sample after the other, as it is written in textbooks."""
    weights, mistakes = torch.zeros(x.shape[1], dtype=x.dtype), 0
    for done in range(1, passes + 1):
        clean = True
        for sample, label in zip(x, y, strict=True):
            if label * (sample @ weights) <= 0:
                weights, mistakes, clean = weights + label * sample, mistakes + 1, False
        if clean:
            return weights, mistakes, done
    return weights, mistakes, passes


@pytest.mark.parametrize(("n", "d", "passes"), [(1, 1, 9), (40, 3, 99), (60, 8, 99), (60, 8, 2)])
def test_agrees_with_its_transcription(n: int, d: int, passes: int) -> None:
    for seed in range(3):
        x, y = separable(n, d, seed)
        learned = perceptron(x, y, passes=passes)
        weights, mistakes, done = transcription(x, y, passes)
        assert (learned.mistakes, learned.passes) == (mistakes, done)
        torch.testing.assert_close(learned.weights, weights, rtol=1e-12, atol=1e-12)  # sums in another order


def test_by_hand() -> None:
    # (1,0)+: w=(1,0), a mistake as 0 <= 0. (1,1)-: score 1, mistake, w=(0,-1). Next pass (1,0)+: score 0, mistake,
    # w=(1,-1). (1,1)-: score 0, mistake, w=(0,-2). (1,0)+: 0, mistake, w=(1,-2). (1,1)-: score -1, right.
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    learned = perceptron(x, torch.tensor([1, -1]))
    assert learned.mistakes == 5
    assert learned.weights.tolist() == [1.0, -2.0]
    assert learned.passes == 4
    assert learned.outcome.converged
    assert learned.predict(x).tolist() == [1, -1]


def test_one_pass_without_mistake_is_needed_to_converge() -> None:
    x, y = torch.tensor([[1.0]]), torch.tensor([1])
    assert perceptron(x, y, passes=1).outcome.status is Status.BUDGET_SPENT
    assert perceptron(x, y, passes=2).outcome.status is Status.CONVERGED


def test_exclusive_or_never_ends() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x = torch.cat([x, torch.ones(4, 1)], dim=1)  # a plane off the origin does not help either
    learned = perceptron(x, torch.tensor([-1, 1, 1, -1]), passes=50)
    assert learned.outcome.status is Status.BUDGET_SPENT
    assert learned.passes == 50
    assert learned.mistakes >= 50
    assert "no plane" in learned.outcome.reason


@pytest.mark.parametrize("n", [10, 300])
def test_the_bound_of_novikoff_for_the_widest_margin_of_an_oracle(n: int) -> None:
    from sklearn.svm import LinearSVC

    x, y = separable(n, 4, seed=7)
    machine = LinearSVC(C=1e6, loss="hinge", fit_intercept=False, max_iter=1_000_000, random_state=0)
    direction = torch.from_numpy(machine.fit(x.numpy(), y.numpy()).coef_[0])
    gamma = float((y * (x @ direction)).min() / direction.norm())
    assert gamma > 0  # any separating direction gives a valid bound; the machine's is nearly the best
    assert perceptron(x, y).mistakes <= (float(x.norm(dim=1).max()) / gamma) ** 2


def test_the_bound_is_reached_by_orthogonal_samples() -> None:
    # n orthonormal samples: u = sum y_i x_i / sqrt(n) has margin 1/sqrt(n), R = 1, so the bound is n; each sample is
    # a mistake once, as w is orthogonal to it before.
    x = torch.eye(17, dtype=torch.float64)
    y = torch.tensor([1, -1] * 8 + [1])
    assert perceptron(x, y).mistakes == 17


def test_nothing_given_is_changed() -> None:
    x, y = separable(20, 3, 0)
    before = x.clone(), y.clone()
    perceptron(x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3), torch.ones(3), "shape"),
        (torch.zeros(3, 2), torch.ones(2), "shape"),
        (torch.zeros(0, 2), torch.ones(0), "n >= 1"),
        (torch.ones(2, 2), torch.tensor([0, 1]), r"neither \+1 nor -1"),
        (torch.ones(2, 2).long(), torch.tensor([-1, 1]), "finite floating-point"),
        (torch.full((2, 2), torch.nan), torch.tensor([-1, 1]), "finite floating-point"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        perceptron(x, y)


def test_passes_start_at_one() -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        perceptron(torch.ones(1, 1), torch.ones(1), passes=0)
