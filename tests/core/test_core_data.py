"""Samples and targets: what is refused, how they are chosen, split, batched, and read lazily."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from whydeep.core import Data, DataError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Lazy:
    """Sample k is (k, -k); notes what was read."""

    n: int
    read: list[int] = field(default_factory=list)
    shape: torch.Size = field(default_factory=torch.Size)
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.shape = torch.Size((self.n, 2))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, indices: Tensor) -> Tensor:
        self.read += indices.tolist()
        return torch.stack([indices, -indices], dim=1).float()


def plain(n: int = 10) -> Data:
    return Data(torch.stack([torch.arange(n), -torch.arange(n)], dim=1).float(), torch.arange(n) % 3, classes=3)


def lazy(n: int = 10) -> Data:
    return Data(Lazy(n), torch.arange(n) % 3, classes=3)


NAN = torch.tensor([[0.0], [torch.nan], [torch.inf]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(0, 3)}, "there are no samples"),
        ({"x": torch.zeros(3, 2).long()}, "x has type torch.int64; convert it to float"),
        ({"x": NAN}, "2 of 3 samples hold NaN or inf"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(2)}, "3 samples but 2 targets"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3).long()}, "targets have type torch.int64; give `classes=`"),
        ({"x": torch.zeros(3, 2), "y": NAN}, "some targets are NaN or inf"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3), "classes": 2}, r"class labels are \(3,\) torch.float32"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3, 1).long(), "classes": 2}, r"class labels are \(3, 1\)"),
        ({"x": torch.zeros(3, 2), "y": torch.tensor([0, 1, 2]), "classes": 2}, "labels run from 0 to 2 for 2 classes"),
        ({"x": torch.zeros(3, 2), "y": torch.tensor([0, -1, 1]), "classes": 2}, "labels run from -1 to 1"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Data(name="mine", **arguments)
    assert str(caught.value).startswith("mine: ")


def test_samples_without_dimensions_are_checked_too() -> None:
    with pytest.raises(DataError, match="hold NaN or inf"):
        Data(torch.tensor([0.0, torch.nan]))


def test_outputs_are_the_classes_or_the_targets() -> None:
    assert plain().outputs == 3
    assert Data(torch.zeros(2, 5), torch.zeros(2, 4)).outputs == 4
    assert plain().input_shape == (2,)


def test_missing_targets_are_named_when_they_are_asked_for() -> None:
    data = Data(torch.zeros(2, 3), name="mine")
    assert len(data) == 2
    with pytest.raises(DataError, match="mine: there are no targets"):
        _ = data.targets
    with pytest.raises(DataError, match="no targets"):
        next(data.batches(1))


@pytest.mark.parametrize("make", [plain, lazy])
def test_take_keeps_the_order_and_the_rest(make: Any) -> None:
    chosen = make().take(torch.tensor([7, 2, 2])).take(torch.tensor([2, 0]))
    assert chosen.in_memory().x.tolist() == [[2.0, -2.0], [7.0, -7.0]]
    assert chosen.targets.tolist() == [2, 1]
    assert (chosen.classes, chosen.input_shape, len(chosen)) == (3, (2,), 2)


def test_lazy_samples_are_read_only_when_needed() -> None:
    samples = Lazy(100)
    data = Data(samples, torch.zeros(100).long(), classes=1)
    few = data.split(90, seeded())[1].subsample(4, seeded())
    assert samples.read == []
    batches = list(few.batches(3))
    assert [len(x) for x, _ in batches] == [3, 1]
    assert len(samples.read) == 4
    for (x, _), (again, _) in zip(batches, few.in_memory().batches(3), strict=True):
        assert torch.equal(x, again)


def test_a_lazy_reader_of_nan_is_refused_in_memory() -> None:
    class Bad(Lazy):
        def __getitem__(self, indices: Tensor) -> Tensor:
            return torch.full((len(indices), 2), torch.nan)

    with pytest.raises(DataError, match="4 of 4 samples"):
        Data(Bad(4)).in_memory()


@pytest.mark.parametrize("make", [plain, lazy])
def test_a_split_is_a_partition(make: Any) -> None:
    first, rest = make().split(4, seeded())
    values = [part.in_memory().x[:, 0].int().tolist() for part in (first, rest)]
    assert [len(part) for part in values] == [4, 6]
    assert sorted(values[0] + values[1]) == list(range(10))
    assert values[0] != list(range(4))  # shuffled
    for part, numbers in zip((first, rest), values, strict=True):
        assert part.targets.tolist() == [number % 3 for number in numbers]  # targets go with their samples
    assert make().split(4, seeded())[0].in_memory().x[:, 0].int().tolist() == values[0]


@pytest.mark.parametrize("size", [0, 10, 11, -1])
def test_both_parts_of_a_split_need_a_sample(size: int) -> None:
    with pytest.raises(ValueError, match="both parts need one"):
        plain().split(size, seeded())


def test_subsample() -> None:
    data = plain()
    assert data.subsample(10, seeded()) is data
    assert data.subsample(99, seeded()) is data
    chosen = data.subsample(5, seeded()).in_memory().x[:, 0].tolist()
    assert len(set(chosen)) == 5
    assert chosen != data.subsample(5, seeded(1)).in_memory().x[:, 0].tolist()


@pytest.mark.parametrize("make", [plain, lazy])
@pytest.mark.parametrize("size", [1, 3, 5, 10, 99])
def test_batches_in_order_and_shuffled(make: Any, size: int) -> None:
    data = make()
    for generator in (None, seeded()):
        batches = list(data.batches(size, generator))
        assert [len(x) for x, _ in batches] == [size] * (10 // size) + [10 % size] * (10 % size > 0)
        numbers = torch.cat([x for x, _ in batches])[:, 0].int()
        assert sorted(numbers.tolist()) == list(range(10))
        assert (numbers.tolist() == list(range(10))) == (generator is None)
        assert torch.equal(torch.cat([y for _, y in batches]), numbers.long() % 3)


def test_batches_in_order_are_views() -> None:
    data = plain()
    assert isinstance(data.x, Tensor)
    x, _ = next(data.batches(4))
    assert x.data_ptr() == data.x.data_ptr()


def test_moving_reads_into_memory() -> None:
    moved = lazy().to("cpu")
    assert isinstance(moved.x, Tensor)
    assert Data(torch.zeros(2, 1)).to("cpu").y is None
