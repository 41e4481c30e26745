import numpy as np
import pytest
import torch

from whydeep.core import DataError
from whydeep.data import load

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_set(folder, *, each=4):
    rng = np.random.default_rng(0)
    records = {}
    for number, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        batch = rng.integers(0, 256, (each, 3073)).astype(np.uint8)
        batch[:, 0] = (np.arange(each) + number) % 10
        (folder / name).write_bytes(batch.tobytes())
        records[name] = batch
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return records


@pytest.mark.parametrize("inner", [False, True])
def test_records_become_images(tmp_path, inner):
    folder = tmp_path / "cifar-10-batches-bin" if inner else tmp_path
    folder.mkdir(exist_ok=True)
    records = write_set(folder)
    train, test = load(f"cifar10:{tmp_path}")
    assert train.x.shape == (20, 3, 32, 32)
    assert test.x.shape == (4, 3, 32, 32)
    # Sample 5 is the second of batch 2; its green pixel of row 3, column 4 is byte 1 + 1024 + 3 * 32 + 4.
    raw = records["data_batch_2.bin"][1]
    assert float(train.x[5, 1, 3, 4]) == pytest.approx(raw[1 + 1024 + 100] / 255, rel=1e-7)
    assert train.y[5] == raw[0]
    assert train.labels == tuple(NAMES)
    assert train.bounds == (0.0, 1.0)
    assert train.classes == test.classes == 10


def test_names_are_numbers_without_the_file_of_names(tmp_path):
    write_set(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert load(f"cifar10:{tmp_path}")[0].labels[3] == "3"


def test_faults_are_one_sentence(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin: 12,291 bytes are no whole number"):
        load(f"cifar10:{tmp_path}")
    path.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match="a label is 10"):
        load(f"cifar10:{tmp_path}")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load(f"cifar10:{tmp_path}")
    path.unlink()
    with pytest.raises(DataError, match=r"missing: data_batch_3.bin"):
        load(f"cifar10:{tmp_path}")


def test_one_class_only(tmp_path):
    for name in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(bytes(2 * 3073))
    with pytest.raises(DataError, match=r"one class \(0\)"):
        load(f"cifar10:{tmp_path}")


def test_the_pickled_version_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(DataError, match="the Python version"):
        load(f"cifar10:{tmp_path}")


def test_a_wrong_number_of_names(tmp_path):
    write_set(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("cat dog")
    with pytest.raises(DataError, match="2 names"):
        load(f"cifar10:{tmp_path}")


def test_pixels_reach_one_exactly(tmp_path):
    write_set(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x00" + b"\xff" * 3072 + b"\x01" + b"\x00" * 3072)
    test = load(f"cifar10:{tmp_path}")[1]
    assert torch.equal(test.x.flatten(1).unique(dim=1).flatten(), torch.tensor([1.0, 0.0]))
