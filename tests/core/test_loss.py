"""The losses of a sample, worked out by hand and against PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from whydeep.core import Loss

OUTPUT = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]], dtype=torch.float64)
TARGET = torch.tensor([1, 0])


def test_cross_entropy_by_hand() -> None:
    expected = [
        math.log(math.exp(1) + math.exp(2) + math.exp(-1)) - 2.0,
        math.log(math.exp(0.5) + 1 + math.exp(3)) - 0.5,
    ]
    assert Loss.of("cross_entropy")(OUTPUT, TARGET).tolist() == pytest.approx(expected, rel=1e-12)


def test_squared_by_hand() -> None:
    # One-hot (0,1,0): (1 + 1 + 1)/2; (1,0,0): (0.25 + 0 + 9)/2.
    assert Loss.of("squared")(OUTPUT, TARGET).tolist() == [1.5, 4.625]
    # Regression targets: (1 + 4)/2, summed over all outputs of a sample.
    output, target = torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 2, 1)
    assert Loss.of("squared")(output, target).tolist() == [2.5]


def test_hinge_by_hand() -> None:
    # Class 1: max(0, 1 + 1) + max(0, 1 - 2) + max(0, 1 - 1) = 2; class 0: max(0, 1 - 0.5) + 1 + 4 = 5.5.
    assert Loss.of("hinge")(OUTPUT, TARGET).tolist() == [2.0, 5.5]


def test_a_callable_is_taken_with_its_name() -> None:
    def absolute(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - F.one_hot(target, 3)).abs().sum(1)

    loss = Loss.of(absolute)
    assert loss.name == "absolute"
    assert loss(OUTPUT, TARGET).tolist() == [3.0, 3.5]
    assert Loss.of(loss) is loss
    assert Loss.of(torch.nn.CrossEntropyLoss(reduction="none")).name == "CrossEntropyLoss"


def test_what_is_no_loss_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown loss 'mse'; give one of cross_entropy, hinge, squared, or a callable"
    ):
        Loss.of("mse")
    with pytest.raises(TypeError, match="loss is int"):
        Loss.of(3)  # type: ignore[arg-type]
