import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whydeep.core import Data, InputError
from whydeep.data import split, standardise


def data_of(counts):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Data(torch.arange(len(y), dtype=torch.float32).unsqueeze(1), y, classes=len(counts))


def parts_of(data, fraction, seed=0):
    return split(data, test_fraction=fraction, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    fraction=st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 5),
)
def test_nothing_is_lost_and_classes_keep_their_shares(counts, fraction, seed):
    data = data_of(counts)
    n = len(data)
    size = -(-round(10 * fraction) * n // 10)  # ceil(fraction n) in integers
    if size >= n:
        return
    train, test = parts_of(data, fraction, seed)
    assert len(test) == size
    every = torch.cat([train.x, test.x]).flatten()
    assert torch.equal(every.sort().values, data.x.flatten())
    assert torch.equal(data.y[every.long()], torch.cat([train.y, test.y]))
    held = torch.bincount(test.y, minlength=len(counts)).tolist()
    for count, own in zip(counts, held, strict=True):
        assert abs(own - count * size / n) < 1 + 1e-9


def test_a_class_of_one_sample_stays_in_training():
    for seed in range(5):
        # Five of nine are held: shares 0.56, 2.22, 2.22. By remainders alone the last one would be the single sample.
        train, _ = parts_of(data_of([1, 4, 4]), 0.5, seed)
        assert torch.bincount(train.y).tolist() == [1, 1, 2]


def test_the_order_is_mixed():
    train, test = parts_of(data_of([500, 500]), 0.2)
    for part in (train, test):
        # Of the first half, the ones are binomial around its half: 6 standard errors.
        half = part.y[: len(part) // 2].float()
        assert abs(float(half.mean()) - 0.5) < 6 * 0.5 / len(half) ** 0.5


def test_regression_is_split_at_random():
    x = torch.arange(10.0).unsqueeze(1)
    train, test = parts_of(Data(x, x.clone()), 0.25)
    assert (len(train), len(test)) == (7, 3)
    assert torch.equal(train.x, train.y)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_a_fraction_must_leave_both_parts(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        parts_of(data_of([5, 5]), fraction)


def test_too_few_samples():
    with pytest.raises(InputError, match="too few"):
        parts_of(data_of([1]), 0.2)


def test_standardising_by_the_training_part():
    train = Data(
        torch.tensor([[1.0, 1e6, 5.0], [3.0, 1e6 + 2, 5.0]]), torch.tensor([[10.0], [30.0]]), bounds=(0.0, 1e7)
    )
    test = Data(torch.tensor([[5.0, 1e6 + 4, 6.0]]), torch.tensor([[40.0]]))
    first, second = standardise(train, test)
    # Means 2, 1e6 + 1, 5; sd 1, 1, 0: the last column is centred only.
    assert first.x.tolist() == [[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]
    assert second.x.tolist() == [[3.0, 3.0, 1.0]]
    assert first.bounds is None
    assert torch.equal(first.y, train.y)
    assert train.x[0, 0] == 1.0  # the input is left alone
    first, second = standardise(train, test, targets=True)
    assert first.y.flatten().tolist() == [-1.0, 1.0]  # mean 20, sd 10
    assert second.y.flatten().tolist() == [2.0]


def test_classes_are_never_standardised():
    data = data_of([2, 3])
    assert torch.equal(standardise(data, data, targets=True)[0].y, data.y)
