import csv

import numpy as np
import pytest
import torch

from whydeep.core import DataError, InputError
from whydeep.data import csv_file, load
from whydeep.data.spec import parse


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "my table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(tmp_path, text, options="target=y"):
    return csv_file.csv_file(parse(f"csv:{written(tmp_path, text)}?{options}"), torch.Generator())[0]


def test_columns_and_classes(tmp_path):
    data = read(tmp_path, 'a,y,"b, c"\n1,dog,-2\n0.5,cat,1e3\n 2 ,dog,0\n')
    assert data.x.tolist() == [[1.0, -2.0], [0.5, 1000.0], [2.0, 0.0]]
    assert data.y.tolist() == [1, 0, 1]
    assert data.labels == ("cat", "dog")
    assert data.name == "my table"
    assert data.bounds is None


def test_integers_are_classes_and_fractions_numbers(tmp_path):
    assert read(tmp_path, "a,y\n1,2\n2,5\n").labels == ("2", "5")
    assert read(tmp_path, "a,y\n1,2\n2,5\n", "target=y&task=regression").y.tolist() == [[2.0], [5.0]]
    assert read(tmp_path, "a,y\n1,2\n2,5.5\n").y.tolist() == [[2.0], [5.5]]


def test_delimiters_marks_and_line_ends(tmp_path):
    assert read(tmp_path, "\ufeffa;y\r\n1;2\r\n2;5\r\n\r\n", "target=y&delimiter=semicolon").x.tolist() == [
        [1.0],
        [2.0],
    ]
    assert len(read(tmp_path, "a\ty\n1\t2\n2\t5", "target=y&delimiter=tab")) == 2


def test_values_are_kept_unless_standardising_is_asked_for(tmp_path):
    rows = "".join(f"{k},{7},{3 * k + 0.5}\n" for k in range(10))
    path = written(tmp_path, "a,b,y\n" + rows)
    train, test = load(f"csv:{path}?target=y", seed=3)
    assert sorted(torch.cat([train.x[:, 0], test.x[:, 0]]).tolist()) == list(range(10))
    scaled, held = load(f"csv:{path}?target=y&standardise=inputs", seed=3)
    mean, sd = train.x[:, 0].mean(), train.x[:, 0].std(correction=0)
    torch.testing.assert_close(held.x[:, 0], (test.x[:, 0] - mean) / sd)
    assert scaled.x[:, 1].tolist() == [0.0] * 8  # constant: centred only
    assert torch.equal(scaled.y, train.y)
    both, _ = load(f"csv:{path}?target=y&standardise=yes", seed=3)
    assert abs(float(both.y.mean())) < 1e-6  # a few units in the last place
    assert float(both.y.square().mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,y\n1,2\n3\n", "line 3 has 1 cells, the first row 2"),
        ("a,y\n1,2\n3,4,5\n", "line 3 has 3 cells, the first row 2"),
        ("a,y\n1,2\n\n3,4\n", "line 3 is empty"),
        ("a,a,y\n1,2,3\n", "columns a stand more than once"),
        ("a,y\n", "there are no rows"),
        ("a,z\n1,2\n", "no column 'y'; name one of a, z"),
        ("a,b,y\n1,x,2\n2,z,3\n", "columns b are not numbers; encode them as numbers, or leave them out by drop=b"),
        ("a,b,y\n1,,2\nnan,5,3\n1,inf,3\n", r"columns a \(1\), b \(2\)"),
        ("a,y\n1e39,2\n1,3\n", r"columns a \(1\)"),  # beyond single precision
        ("a,y\n1,\n2,5\n", "column y: 1 targets are missing"),
        ("a,y\n1,p\n2,\n", "column y: 1 targets are missing"),
        ("a,y\n1,5\n2,5\n", r"one class \(5\)"),
        ("1,2\n3,4\n", "numbers, not names"),
        ("a;y\n1;2\n", "another delimiter"),
        ("y\n1\n2\n", "another delimiter"),
        ("<!DOCTYPE html>\n<html>,y\n", "a web page"),
        ('a,y\n1,"2\n', "is no CSV"),
        ("", "is empty"),
    ],
)
def test_faults_are_one_sentence(tmp_path, text, said):
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_other_encodings_are_named(tmp_path):
    path = written(tmp_path, "größe,y\n1,2\n", "latin-1")
    with pytest.raises(DataError, match="not UTF-8"):
        load(f"csv:{path}?target=y")


def test_the_target_must_be_named_and_kept(tmp_path):
    with pytest.raises(InputError, match=r"add \?target=NAME, one of a, y"):
        read(tmp_path, "a,y\n1,2\n", "drop=a")
    with pytest.raises(InputError, match="also dropped"):
        read(tmp_path, "a,y\n1,2\n", "target=y&drop=y")
    with pytest.raises(DataError, match="no column 'c'"):
        read(tmp_path, "a,y\n1,2\n", "target=y&drop=c")
    with pytest.raises(DataError, match="no column beside the target"):
        read(tmp_path, "a,y\n1,2\n", "target=y&drop=a")


def test_dropped_columns_may_hold_anything(tmp_path):
    data = read(tmp_path, "name,a,y,when\nx,1,2,\nz,3,4,Monday\n", "target=y&drop=name,when")
    assert data.x.tolist() == [[1.0], [3.0]]


def test_long_files_are_read_block_by_block(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(23, 3)).round(4)
    path = tmp_path / "long.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "y"], *values.tolist()])
    monkeypatch.setattr(csv_file, "ROWS", 5)
    data = csv_file.csv_file(parse(f"csv:{path}?target=y"), torch.Generator())[0]
    np.testing.assert_array_equal(data.x.numpy(), values[:, :2].astype(np.float32))
    np.testing.assert_array_equal(data.y.numpy(), values[:, 2:].astype(np.float32))
    # Text in one block only makes the column one of text.
    path.write_text(path.read_text() + "1,oops,2\n")
    with pytest.raises(DataError, match="columns b are not numbers"):
        csv_file.csv_file(parse(f"csv:{path}?target=y"), torch.Generator())
