import builtins
import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from whydeep.core import DataError, InputError
from whydeep.data import load
from whydeep.data.parquet_file import parquet_file
from whydeep.data.spec import parse


def written(tmp_path, **columns):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def read(path, options="target=y"):
    return parquet_file(parse(f"parquet:{path}?{options}"), torch.Generator())[0]


def test_types_become_numbers_and_classes(tmp_path):
    path = written(
        tmp_path,
        i=pa.array([1, 2, 3], pa.int16()),
        b=[True, False, True],
        f=pa.array([0.5, 1.5, 2.5], pa.float32()),
        d=pa.array([decimal.Decimal("1.25")] * 3),
        y=pa.array(["v", "u", "v"]).dictionary_encode(),
    )
    data = read(path)
    assert data.x.tolist() == [[1.0, 1.0, 0.5, 1.25], [2.0, 0.0, 1.5, 1.25], [3.0, 1.0, 2.5, 1.25]]
    assert data.labels == ("u", "v")
    assert data.y.tolist() == [1, 0, 1]


def test_regression_and_split(tmp_path):
    path = written(tmp_path, a=list(range(10)), y=[k / 4 for k in range(10)])
    train, test = load(f"parquet:{path}?target=y&test_fraction=0.3")
    assert (len(train), len(test)) == (7, 3)
    torch.testing.assert_close(train.y, train.x / 4)


def test_gaps_and_text_are_named(tmp_path):
    path = written(
        tmp_path, a=[1, None], b=[True, None], when=[datetime.date(2020, 1, 1)] * 2, y=["p", "q"], z=["p", None]
    )
    with pytest.raises(DataError, match="columns when, z are not numbers"):
        read(path)
    with pytest.raises(DataError, match=r"columns a \(1\), b \(1\)"):
        read(path, "target=y&drop=when,z")
    with pytest.raises(DataError, match="1 targets are missing"):
        read(written(tmp_path, a=[1, 2], z=["p", None]), "target=z")
    with pytest.raises(DataError, match="1 targets are missing"):
        read(written(tmp_path, a=[1, 2], z=[1.5, None]), "target=z")
    assert read(written(tmp_path, a=[1, 2], y=["p", "q"])).x.tolist() == [[1.0], [2.0]]


def test_the_last_drop_leaves_no_feature(tmp_path):
    with pytest.raises(DataError, match="no column beside"):
        read(written(tmp_path, a=[1, 2], y=["p", "q"]), "target=y&drop=a")


def test_files_that_are_none(tmp_path):
    path = written(tmp_path, a=[1, 2], y=["p", "q"])
    whole = path.read_bytes()
    for damage in (whole[:-10], b"<html></html>", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="no whole Parquet file") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no rows"):
        read(written(tmp_path, a=pa.array([], pa.int8()), y=pa.array([], pa.int8())))
    with pytest.raises(DataError, match="no column 'u'"):
        read(written(tmp_path, a=[1, 2], y=["p", "q"]), "target=u")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, a=[1, 2], y=["p", "q"])
    real = builtins.__import__

    def refusing(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(InputError, match=r"pip install whydeep\[parquet\]"):
        read(path)
