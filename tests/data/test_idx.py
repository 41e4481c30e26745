import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from whydeep.core import DataError
from whydeep.data import load
from whydeep.data.files import contents
from whydeep.data.idx import TYPES, read_idx

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array):
    """Written out by the format's description, entry by entry: independent of the reader's frombuffer."""
    letter = {"uint8": "B", "int8": "b", "int16": "h", "int32": "i", "float32": "f", "float64": "d"}[array.dtype.name]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + struct.pack(f">{array.size}{letter}", *array.ravel().tolist())


def write_set(folder, *, n=20, test=5, packed=True, classes=3):
    images = np.random.default_rng(0).integers(0, 256, (n + test, 4, 5)).astype(np.uint8)
    labels = (np.arange(n + test) % classes).astype(np.uint8)
    wrap, ending = (gzip.compress, ".gz") if packed else (bytes, "")
    for part, rows in (("train", slice(0, n)), ("t10k", slice(n, n + test))):
        if rows.start < rows.stop:
            (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(wrap(idx_bytes(images[rows])))
            (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(wrap(idx_bytes(labels[rows])))
    return images, labels


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), packed=st.booleans())
def test_every_type_and_shape_comes_back(tmp_path, data, packed):
    kind = data.draw(st.sampled_from(sorted(CODES)))
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    array = data.draw(arrays(np.dtype(kind), shape))
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path), array)


def test_the_codes_are_those_of_the_format():
    assert {np.dtype(kind).name: code for code, kind in TYPES.items()} == CODES


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_keeps_its_test_part(tmp_path, packed):
    images, labels = write_set(tmp_path, packed=packed)
    train, test = load(f"idx:{tmp_path}")
    assert train.x.shape == (20, 1, 4, 5)
    assert test.x.shape == (5, 1, 4, 5)
    np.testing.assert_allclose(train.x[:, 0].numpy(), images[:20] / 255, rtol=1e-7)  # half a unit in the last place
    assert test.y.tolist() == labels[20:].tolist()
    assert train.bounds == (0.0, 1.0)
    assert train.classes == 3
    assert float(train.x.max()) <= 1


def test_without_test_files_the_set_is_split(tmp_path):
    write_set(tmp_path, n=30, test=0)
    train, test = load(f"idx:{tmp_path}?test_fraction=0.5")
    assert (len(train), len(test)) == (15, 15)
    assert torch.bincount(test.y).tolist() == [5, 5, 5]


def test_a_given_test_part_and_a_fraction_contradict_each_other(tmp_path):
    write_set(tmp_path)
    with pytest.raises(ValueError, match="its own test part"):
        load(f"idx:{tmp_path}?test_fraction=0.5")


def test_labels_from_one_are_numbered_from_zero_and_keep_their_names(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes((np.arange(20) % 3 * 2).astype(np.uint8))))
    train, test = load(f"idx:{tmp_path}")  # training labels 0, 2, 4, test labels 0, 1, 2
    assert train.labels == ("0", "1", "2", "4")
    assert train.classes == test.classes == 4
    assert train.y[:3].tolist() == [0, 2, 3]


def test_named_files_and_values_that_are_no_bytes(tmp_path):
    values = np.linspace(-2, 2, 40).reshape(10, 2, 2)
    (tmp_path / "a").write_bytes(idx_bytes(values))
    (tmp_path / "b").write_bytes(idx_bytes((np.arange(10) % 2).astype(np.int32)))
    train, test = load(f"idx:{tmp_path}?images=a&labels=b")
    stored = torch.cat([train.x, test.x]).flatten().sort().values
    assert torch.equal(stored, torch.tensor(values.ravel(), dtype=torch.float32))
    assert train.bounds is None
    assert train.input_shape == (1, 2, 2)


def damaged(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return f"idx:{folder}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:-40], "ends too early"),
        (lambda raw: raw[:60] + bytes([raw[60] ^ 1]) + raw[61:], "is damaged"),
        (lambda raw: b"<!DOCTYPE html><html>404</html>", "a web page"),
        (lambda raw: b"P5 no gzip at all", "not a gzip file"),
        (lambda raw: b"", "is empty"),
        (lambda raw: gzip.compress(b""), "holds nothing"),
        (lambda raw: gzip.compress(b"\x00\x01" + gzip.decompress(raw)[2:]), "no IDX file"),
        (lambda raw: gzip.compress(b"\x00\x00\x0a" + gzip.decompress(raw)[3:]), "no IDX file"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:9]), "cut off"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "promises 20 x 4 x 5 entries"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"\0"), "promises 20 x 4 x 5 entries"),
        (lambda raw: gzip.compress(idx_bytes(np.zeros((19, 4, 5), np.uint8))), "19 images but 20 labels"),
        (lambda raw: gzip.compress(idx_bytes(np.zeros((20, 4, 6), np.uint8))), "test samples 1 x 4 x 5"),
        (lambda raw: gzip.compress(idx_bytes(np.zeros(20, np.uint8))), "one dimension"),
        (lambda raw: gzip.compress(idx_bytes(np.full((20, 4, 5), np.nan))), "400 entries are NaN"),
    ],
)
def test_damage_of_the_images_is_one_sentence(tmp_path, change, said):
    write_set(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        load(damaged(tmp_path, "train-images-idx3-ubyte.gz", change))
    assert "\n" not in str(caught.value)
    assert caught.value.path.startswith(str(tmp_path))
    assert caught.value.remedy


def test_an_unpacked_web_page_is_recognised(tmp_path):
    write_set(tmp_path, packed=False)
    with pytest.raises(DataError, match="a web page"):
        load(damaged(tmp_path, "train-labels-idx1-ubyte", lambda raw: b"<html>"))


def test_one_class_only(tmp_path):
    write_set(tmp_path, classes=1)
    with pytest.raises(DataError, match="are of one class"):
        load(f"idx:{tmp_path}")


def test_zero_samples(tmp_path):
    write_set(tmp_path)
    empty = gzip.compress(idx_bytes(np.zeros(0, np.uint8)))
    damaged(tmp_path, "train-labels-idx1-ubyte.gz", lambda _: empty)
    none = gzip.compress(idx_bytes(np.zeros((0, 4, 5), np.uint8)))
    with pytest.raises(DataError, match="no samples"):
        load(damaged(tmp_path, "train-images-idx3-ubyte.gz", lambda _: none))


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load(f"mnist:{tmp_path}/none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"there is notes.txt"):
        load(f"mnist:{tmp_path}")
    write_set(tmp_path, test=0)
    with pytest.raises(DataError, match="test files t10k"):
        load(f"mnist:{tmp_path}")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="train-labels is missing"):
        load(f"idx:{tmp_path}")


def test_two_files_for_one_purpose(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train-images.idx3-ubyte").write_bytes(b"x")
    with pytest.raises(DataError, match="both fit"):
        load(f"idx:{tmp_path}")


@pytest.mark.parametrize("position", range(0, 75))
def test_any_flipped_byte_of_a_gzip_file_is_seen_or_harmless(tmp_path, position):
    # Bytes 4 to 9 (time, flags of the packer, system) are covered by no checksum and change nothing in the content.
    whole = bytes(range(40))
    packed = gzip.compress(whole, mtime=1)
    path = tmp_path / "a.gz"
    raw = bytearray(packed)
    raw[position % len(raw)] ^= 0xFF
    path.write_bytes(raw)
    try:
        read = contents(path)
    except DataError:
        assert position % len(raw) not in range(4, 10)
    else:
        assert read == whole
        assert position % len(raw) in range(3, 10)


MNIST = Path(os.environ.get("WHYDEEP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"the real MNIST is not in {MNIST} (set WHYDEEP_DATA)")
def test_the_real_mnist():
    train, test = load(f"mnist:{MNIST}")
    assert train.x.shape == (60_000, 1, 28, 28)
    assert len(test) == 10_000
    # Class sizes as published with the set, which do not depend on the order of the samples.
    assert torch.bincount(train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The widely used mean and sd of the training pixels, given to four digits.
    assert round(float(train.x.double().mean()), 4) == 0.1307
    assert round(float(train.x.double().std()), 4) == 0.3081
