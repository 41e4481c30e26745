from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.core import Data, InputError, proportion
from whydeep.generalization.risk import decompose, margins, mistakes, predicted


def data(y: list[int], classes: int = 2) -> Data:
    return Data(torch.arange(len(y)).double()[:, None], torch.tensor(y), classes=classes)


def test_risk_on_new_data_is_training_error_plus_gap() -> None:
    parts = decompose(lambda x: torch.zeros(len(x)), data([0, 0, 0, 1]), test=data([0, 1, 1, 0, 1]))
    assert parts.training_error.value == parts.training_error.low == 1 / 4
    assert parts.test_error.value == 3 / 5
    assert parts.gap.value == pytest.approx(3 / 5 - 1 / 4)
    exact = proportion("", 3, 5)
    assert (parts.gap.low, parts.gap.high) == pytest.approx((exact.low - 1 / 4, exact.high - 1 / 4))


def test_the_gap_may_be_negative() -> None:
    parts = decompose(lambda x: torch.zeros(len(x)), data([1, 1]), test=data([0, 0]))
    assert parts.gap.value == -1
    assert parts.gap.low == -1


def test_margins_worked_by_hand() -> None:
    model = nn.Linear(1, 3, bias=False).double()
    model.weight.data = torch.tensor([[1.0], [3.0], [-2.0]]).double()
    # At x = 0, 1, 2 the scores are x (1, 3, -2): margins 0; 3 - 1; -4 - 6.
    assert margins(model, data([0, 1, 2], 3)).tolist() == [0.0, 2.0, -10.0]


def test_a_mistake_has_a_margin_of_at_most_zero() -> None:
    model = nn.Linear(4, 5).double()
    x = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    random = Data(x, torch.arange(200) % 5, classes=5)
    assert torch.equal(mistakes(model, random), margins(model, random) <= 0)


def test_the_network_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Dropout()).double()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decompose(model, data([0, 1]), test=data([1, 0]))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.tensor([0.0, 0.7, 1.0]), "returned 0.7 as a label"),
        (torch.tensor([0, -1, 1]), "returned -1 as a label"),
        (torch.rand(3, 2), "2 scores a sample for 3 classes"),
    ],
)
def test_what_is_no_label_is_not_counted(answer: torch.Tensor, message: str) -> None:
    data = Data(torch.zeros(3, 1), torch.arange(3), classes=3)
    with pytest.raises(InputError, match=message):
        predicted(lambda x: answer, data)


def test_labels_that_are_words_are_refused_in_a_sentence() -> None:
    class Words:
        def predict(self, x: object) -> list[str]:
            return ["cat", "dog", "cat"]

    with pytest.raises(InputError, match="fit it to the labels 0, 1, 2"):
        predicted(Words(), Data(torch.zeros(3, 1), torch.arange(3), classes=3))
