import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from whydeep.core import InputError
from whydeep.data import embedded, load


def test_the_digits_are_those_of_scikit_learn():
    train, test = load("digits", seed=0)
    assert (len(train), len(test)) == (1437, 360)
    assert train.x.dtype == torch.float32
    assert train.y.dtype == torch.int64
    assert train.bounds == (0.0, 1.0)
    raw = load_digits()
    stored = sorted((tuple(image), int(y)) for image, y in zip(raw.data, raw.target, strict=True))
    read = sorted(
        (tuple(16 * image.numpy().ravel()), int(y))
        for part in (train, test)
        for image, y in zip(part.x, part.y, strict=True)
    )
    assert read == stored  # every image once, with its label; sixteenths are exact in binary


def test_the_digits_are_stratified():
    _, test = load("digits", seed=1)
    counts = np.bincount(load_digits().target)
    shares = torch.bincount(test.y).numpy() - counts * 360 / 1797
    assert np.abs(shares).max() < 1  # each class is rounded down or up


def test_the_seed_decides_the_split():
    first, again, other = (load("digits", seed=seed)[1].x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_photographs_give_grey_patches_of_two_classes():
    train, test = load("photos?patch=5&n=501", seed=0)
    assert train.input_shape == (1, 5, 5)
    assert (len(train), len(test)) == (400, 101)
    assert train.labels == ("china", "flower")
    counts = torch.bincount(train.y)
    assert counts.tolist() == [200, 200]
    assert 0 <= float(train.x.min()) < float(train.x.max()) <= 1


def greys():
    return [image @ [0.299, 0.587, 0.114] / 255 for image in load_sample_images().images]


def places(grey, patch):
    """Where a patch stands in a photograph, by comparing with every place (slow, independent of the reader)."""
    windows = np.lib.stride_tricks.sliding_window_view(grey, patch.shape)
    rows, columns = np.nonzero(np.abs(windows[:, :, 0, 0] - patch[0, 0]) < 1e-6)
    close = np.abs(windows[rows, columns] - patch).max((1, 2)) < 1e-6  # patches are in single precision
    return [(int(r), int(c)) for r, c in zip(rows[close], columns[close], strict=True)]


def test_patches_are_cut_from_their_photograph_and_no_pixel_is_in_both_parts():
    train, test = load("photos?patch=8&n=300", seed=0)
    photographs = greys()
    blocks = [set(), set()]
    for part, data in enumerate((train, test)):
        for x, y in zip(data.x[:60, 0].double().numpy(), data.y[:60], strict=True):
            found = places(photographs[int(y)], x)
            assert found
            if len(found) == 1:  # the sky has patches that occur more than once
                row, column = found[0]
                assert row // 32 == (row + 7) // 32  # inside one block of 4 x 8 pixels
                assert column // 32 == (column + 7) // 32
                blocks[part].add((int(y), row // 32, column // 32))
    assert len(blocks[0]) > 30
    assert len(blocks[1]) > 30
    assert not blocks[0] & blocks[1]


def test_every_place_of_a_block_is_drawn():
    block = torch.arange(16.0).view(1, 4, 4)
    drawn = embedded._draw(block, 1, 600, torch.Generator().manual_seed(0))
    # A given place is missed with probability (15/16)^600, below 1e-16.
    assert sorted(drawn.flatten().unique().tolist()) == list(range(16))


def test_patches_that_do_not_fit_are_refused():
    assert load("photos?patch=80&n=10")[0].input_shape == (1, 80, 80)
    with pytest.raises(InputError, match="give at most 80"):
        load("photos?patch=81")
    with pytest.raises(InputError, match="two patches for each part"):
        load("photos?n=10&test_fraction=0.95")
    with pytest.raises(InputError, match="at least 4"):
        load("photos?n=3")
