from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch

from whydeep.core import DataError, InputError
from whydeep.data import load, openml
from whydeep.data.spec import parse

# The frame of a small set as fetch_openml returns it: nominal columns are categories, numbers floats or integers.
FRAME = pd.DataFrame(
    {
        "length": [5.1, 7.0, 6.3, 4.9, 5.5],
        "count": np.array([1, 2, 3, 4, 5], dtype=np.uint8),
        "flag": [True, False, True, False, True],
        "kind": pd.Categorical(["versicolor", "setosa", "setosa", "versicolor", "setosa"]),
    }
)


def read(frame, options="", targets=("kind",)):
    return openml.from_frame(frame, list(targets), parse(f"openml:flowers?{options}"))


def test_a_frame_becomes_samples_and_classes():
    data = read(FRAME)
    assert data.x.shape == (5, 3)
    torch.testing.assert_close(data.x[0], torch.tensor([5.1, 1.0, 1.0]))
    assert data.labels == ("setosa", "versicolor")
    assert data.y.tolist() == [1, 0, 0, 1, 0]
    assert data.name == "flowers"


def test_another_target_and_dropped_columns():
    data = read(FRAME, "target=length&drop=kind,flag")
    assert data.classes is None
    assert data.x[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_categories_of_digits_are_in_the_order_of_their_values():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "class": pd.Categorical(["10", "9", "10"])})
    assert read(frame, targets=("class",)).labels == ("9", "10")


@pytest.mark.parametrize("kind", ["Int64", "float64", "boolean"])
def test_gaps_are_counted_in_every_type(kind):
    frame = FRAME.assign(gap=pd.array([1, None, 0, 1, None], dtype=kind))
    with pytest.raises(DataError, match=r"in the columns gap \(2\)"):
        read(frame)


def test_text_and_missing_targets_are_named():
    with pytest.raises(DataError, match="columns kind are not numbers"):
        read(FRAME, "target=count")
    frame = FRAME.assign(kind=pd.Categorical(["a", None, "b", "a", "b"]))
    with pytest.raises(DataError, match="1 targets are missing"):
        read(frame)
    with pytest.raises(DataError, match="length stand more than once"):
        read(FRAME.set_axis(["length", "length", "flag", "kind"], axis=1))


def test_there_must_be_one_default_target():
    for targets in ((), ("length", "kind")):
        with pytest.raises(DataError, match="no single default target"):
            read(FRAME, targets=targets)


def test_the_download_is_asked_for_by_name_and_version(monkeypatch):
    asked = []

    def fetch(**options):
        asked.append(options)
        return SimpleNamespace(frame=FRAME, target_names=["kind"])

    monkeypatch.setattr(openml, "fetch_openml", fetch)
    train, test = load("openml:flowers?version=2&test_fraction=0.4")
    assert (len(train), len(test)) == (3, 2)
    load("openml:flowers")
    assert [(options["name"], options["version"]) for options in asked] == [("flowers", 2), ("flowers", "active")]


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (URLError("no route"), DataError, "the download failed .*no route"),
        (TimeoutError("timed out"), DataError, "the download failed"),
        (ValueError("No active dataset flowers found.\nmore"), DataError, "No active dataset flowers found.; check"),
        (ImportError("pandas"), InputError, "pip install pandas"),
    ],
)
def test_failures_are_one_sentence(monkeypatch, fault, kind, said):
    def fetch(**_):
        raise fault

    monkeypatch.setattr(openml, "fetch_openml", fetch)
    with pytest.raises(kind, match=said) as caught:
        load("openml:flowers")
    assert "\n" not in str(caught.value)
