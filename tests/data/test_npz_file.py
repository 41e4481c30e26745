import numpy as np
import pytest
import torch

from whydeep.core import DataError
from whydeep.data import load
from whydeep.data.npz_file import npz_file
from whydeep.data.spec import parse

LABELS = np.array([0, 1, 0, 1, 1])


def written(tmp_path, **arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    return path


def read(tmp_path, options="x=x", **arrays):
    return npz_file(parse(f"npz:{written(tmp_path, **arrays)}?{options}"), torch.Generator())[0]


def test_numbers_keep_their_values(tmp_path):
    x = np.arange(10, dtype=np.uint8).reshape(5, 2) * 25
    data = read(tmp_path, x=x, y=LABELS)
    assert data.x.tolist() == x.tolist()
    assert data.bounds is None
    assert data.y.tolist() == LABELS.tolist()


def test_bytes_of_three_dimensions_are_pixels(tmp_path):
    x = np.arange(20, dtype=np.uint8).reshape(5, 2, 2) * 13
    data = read(tmp_path, x=x, y=LABELS)
    assert data.input_shape == (1, 2, 2)
    assert data.bounds == (0.0, 1.0)
    np.testing.assert_allclose(data.x[:, 0].numpy(), x / 255, rtol=1e-6)
    kept = read(tmp_path, "pixels=no", x=x, y=LABELS)
    assert kept.x.tolist() == x.tolist()
    assert kept.bounds is None


def test_floats_may_be_declared_pixels(tmp_path):
    x = np.linspace(0, 1, 5 * 12).reshape(5, 2, 2, 3)
    data = read(tmp_path, "pixels=yes&channels=last", x=x, y=LABELS)
    assert data.bounds == (0.0, 1.0)
    np.testing.assert_allclose(data.x.numpy(), np.moveaxis(x, 3, 1), rtol=1e-6)
    with pytest.raises(DataError, match=r"pixels run from 0 to 2"):
        read(tmp_path, "pixels=yes", x=2 * x, y=LABELS)
    with pytest.raises(DataError, match="four dimensions"):
        read(tmp_path, "channels=last", x=x[..., 0], y=LABELS)


def test_a_test_part_is_kept_with_one_numbering(tmp_path):
    path = written(tmp_path, a=np.eye(5), b=np.array(list("ababb")), c=np.eye(5)[:2], d=np.array(["b", "c"]))
    train, test = load(f"npz:{path}?x=a&y=b&x_test=c&y_test=d")
    assert (len(train), len(test)) == (5, 2)
    assert train.labels == test.labels == ("a", "b", "c")
    assert test.y.tolist() == [1, 2]
    with pytest.raises(DataError, match="name both or neither"):
        load(f"npz:{path}?x=a&y=b&x_test=c")
    with pytest.raises(DataError, match="training samples are 5, test samples 1"):
        load(f"npz:{written(tmp_path, x=np.eye(5), y=LABELS, c=np.ones((2, 1)), d=LABELS[:2])}?x_test=c&y_test=d")


def test_regression_with_several_outputs(tmp_path):
    y = np.linspace(0, 1, 10).reshape(5, 2)
    assert read(tmp_path, x=np.eye(5), y=y).y.tolist() == y.astype(np.float32).tolist()
    assert read(tmp_path, x=np.eye(5), y=LABELS[:, None]).classes == 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.array([{}, 1, 2, 3, 4], dtype=object), "y": LABELS}, "array x holds Python objects"),
        ({"x": np.eye(5), "y": np.array([0, None, 1, 1, 1], dtype=object)}, "array y holds Python objects"),
        ({"x": np.eye(5)}, "no array 'y'; name one of x"),
        ({"x": np.eye(4), "y": LABELS}, "4 samples but 5 targets"),
        ({"x": np.full((5, 1), np.nan), "y": LABELS}, "5 of 5 samples hold NaN"),
        ({"x": np.full((5, 1), 1e39), "y": LABELS}, "too large numbers"),
        ({"x": np.eye(5), "y": LABELS + np.inf}, "are missing, NaN or inf"),
        ({"x": np.eye(5), "y": LABELS * 0}, "one class"),
        ({"x": np.arange(5), "y": LABELS}, r"shape \(5,\)"),
        ({"x": np.zeros((0, 2)), "y": LABELS[:0]}, r"shape \(0, 2\)"),
        ({"x": np.array([["a"]] * 5), "y": LABELS}, "type <U1"),
        ({"x": np.eye(5), "y": np.zeros((5, 1, 1))}, r"targets have shape \(5, 1, 1\)"),
    ],
)
def test_faults_are_one_sentence(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path, **arrays)


def test_files_that_are_none(tmp_path):
    path = written(tmp_path, x=np.eye(5), y=LABELS)
    whole = path.read_bytes()
    middle = whole.index(b"NUMPY") + 90  # inside the header or the entries of an array: the archive's checksum sees it
    for damage, said in (
        (whole[:-30], "is damaged|no .npz"),
        (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "is damaged"),
        (b"<html></html>", r"no .npz file"),
        (b"", "is empty"),
    ):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=said):
            load(f"npz:{path}")
    with path.open("wb") as file:
        np.save(file, np.eye(3))
    with pytest.raises(DataError, match="one array without a name"):
        load(f"npz:{path}")
