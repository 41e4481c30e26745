import os

import pytest
import torch
from PIL import Image

from whydeep.core import InputError
from whydeep.data import load
from whydeep.data.sources import SOURCES


@pytest.mark.parametrize("spec", ["digit", "", "iris", "mnist/folder", ":x"])
def test_an_unknown_spec_lists_the_valid_ones(spec):
    with pytest.raises(InputError, match="unknown data") as caught:
        load(spec)
    for source in SOURCES.values():
        assert source.pattern in str(caught.value)


@pytest.mark.parametrize("spec", ["mnist", "csv?target=y", "folder:", "synthetic", "openml?version=1"])
def test_a_location_is_asked_for(spec):
    with pytest.raises(InputError, match=f"write {spec.partition('?')[0].partition(':')[0]}:"):
        load(spec)


def test_a_location_that_is_not_wanted():
    with pytest.raises(InputError, match="write digits"):
        load("digits:here")


@pytest.mark.parametrize(
    ("spec", "valid"),
    [
        ("digits?patch=8", "use test_fraction"),
        ("mnist:/x?test_fraction=0.1", "give none"),
        ("csv:/x?tarqet=y", "use target, drop, task, standardise, test_fraction, delimiter"),
        ("synthetic:spirals?d=3", "use n, arms, turns, noise, test_fraction"),
    ],
)
def test_unknown_options_list_the_valid_ones(spec, valid):
    with pytest.raises(InputError, match=valid):
        load(spec)


def test_missing_files_are_said_before_anything_else():
    for spec in (
        "csv:/none?target=y",
        "parquet:/none?target=y",
        "npz:/none",
        "folder:/none",
        "idx:/none",
        "cifar10:/none",
    ):
        with pytest.raises(InputError, match="/none: there is no such"):
            load(spec)


def test_what_may_not_be_read_is_said(tmp_path, monkeypatch):
    # Real permissions would not stop a test that runs as root.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (tmp_path / "a.csv").write_text("a,y\n1,2\n")
    with pytest.raises(InputError, match=r"a.csv: the file cannot be read"):
        load(f"csv:{tmp_path}/a.csv?target=y")
    with pytest.raises(InputError, match="the folder cannot be read"):
        load(f"idx:{tmp_path}")


def test_a_folder_has_a_name_when_it_is_the_present_one(tmp_path, monkeypatch):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            Image.new("L", (3, 3)).save(tmp_path / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    assert load("folder:.")[0].name == tmp_path.name


@pytest.mark.parametrize("spec", ["digits", "photos?n=40", "synthetic:spirals?n=50", "synthetic:ridge_sum?n=50"])
def test_the_same_seed_gives_the_same_data_and_leaves_the_global_generator_alone(spec):
    before = torch.random.get_rng_state()
    first, second, other = load(spec, seed=3), load(spec, seed=3), load(spec, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    for one, two, three in zip(first, second, other, strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)
        assert not torch.equal(one.x, three.x)
