import numpy as np
import pytest
import torch

from whydeep.core import DataError
from whydeep.data.targets import FEW, targets


def test_text_is_sorted_by_name_and_integers_by_value():
    assert targets("f", np.array(["10", "9", "9"], dtype=object)).labels == ("9", "10")
    assert targets("f", np.array(["b10", "b9"], dtype=object)).labels == ("b10", "b9")
    known = targets("f", np.array([3, -1, 3, 7]))
    assert known.labels == ("-1", "3", "7")
    assert known.y.tolist() == [1, 0, 1, 2]
    assert known.classes == 3
    assert known.y.dtype == torch.int64


def test_yes_and_no_are_classes():
    assert targets("f", np.array([True, False])).y.tolist() == [1, 0]


def test_few_integers_are_classes_and_many_are_numbers():
    assert targets("f", np.arange(FEW)).classes == FEW
    many = targets("f", np.arange(FEW + 1))
    assert many.classes is None
    assert many.y.shape == (FEW + 1, 1)
    assert many.y.dtype == torch.float32


def test_the_task_may_be_forced():
    assert targets("f", np.arange(50), task="classes").classes == 50
    assert targets("f", np.arange(3), task="regression").y.flatten().tolist() == [0.0, 1.0, 2.0]
    assert targets("f", np.array([0.0, 1.0]), task="classes").labels == ("0", "1")
    assert targets("f", np.array([0.0, 1.0])).classes is None
    with pytest.raises(DataError, match="fractions"):
        targets("f", np.array([0.5, 1.0]), task="classes")
    with pytest.raises(DataError, match="text"):
        targets("f", np.array(["a", "b"]), task="regression")


def test_several_columns_are_regression():
    values = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    assert targets("f", values).y.tolist() == values.tolist()
    for wrong, task in ((values.astype(int), "auto"), (values, "classes")):
        with pytest.raises(DataError, match="one class number a sample"):
            targets("f", wrong, task=task)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0, np.nan]),
        np.array([1.0, -np.inf]),
        np.array(["a", ""]),
        np.array(["a", None], dtype=object),
        np.array(["a", float("nan")], dtype=object),
    ],
)
def test_missing_targets_are_counted(values):
    with pytest.raises(DataError, match="1 targets are missing"):
        targets("f", values)


def test_one_class_only():
    for values in (np.zeros(3, int), np.array(["a", "a"]), np.array([True])):
        with pytest.raises(DataError, match="one class"):
            targets("f", values)


def test_types_that_are_no_targets():
    with pytest.raises(DataError, match="complex128"):
        targets("f", np.array([1j, 2j]))
    with pytest.raises(DataError, match="single precision"):
        targets("f", np.array([1e300, 0.5]))
