"""The record: as JSON and back, and on disk whole or not at all."""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from whydeep.core import Answer, Claim, Curve, Image, InputError, Instrument, Line, Observation, Record, Table, check
from whydeep.core.record import VERSION, NotDone, Question, Section, array, plain, read, write

text = some.text(max_size=8)
scalars = some.none() | some.booleans() | some.integers() | some.floats() | text
nested = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=4) | some.tuples(inner) | some.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def expected(value: Any) -> Any:
    """What JSON holds of a nested value, said once more."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else {math.inf: "inf", -math.inf: "-inf"}[value]
    if isinstance(value, list | tuple):
        return [expected(item) for item in value]
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items()}
    return value


@given(nested)
def test_what_is_written_is_read(value: Any) -> None:
    written = json.dumps(plain(value), allow_nan=False)
    assert json.loads(written) == expected(value)
    assert plain(plain(value)) == plain(value)


@given(some.lists(some.integers(0, 5), min_size=1, max_size=4), some.randoms(use_true_random=False))
def test_images_survive(shape: list[int], random: Any) -> None:
    values = np.array([random.randrange(256) for _ in range(math.prod(shape))], dtype=np.uint8).reshape(shape)
    back = array(json.loads(json.dumps(plain(values))))
    assert back.dtype == np.uint8
    assert back.shape == values.shape
    assert (back == values).all()


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), 1j, [object()], {"a": {3}}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be written to a record"):
        plain(value)


def section(instrument: Instrument, observation: Observation) -> Section:
    return Section.of(instrument, observation, command="whydeep examine", python="wd.examine()", seconds=1.5)


def test_a_record_as_json(instrument: Instrument, seen: Observation, claim: Claim) -> None:
    curve = Curve("c", "x", "y", (Line("a", [0, 1], [math.nan, math.inf]),), "alt")
    image = Image("i", np.arange(8, dtype=np.uint8).reshape(2, 2, 2), "alt")
    table = Table("t", ("n", "word"), ((1, "one"), (2.5, None)))
    full = Observation(seen.measurements, (curve, image, table), (check(claim),))
    record = Record(
        subject={"network": "2-layer network"},
        questions={
            "optimization": Question((section(instrument, full),), (NotDone("x", "X", "it broke"),)),
            "representation": Question(inapplicable=(NotDone("y", "Y", "no classes"),)),
        },
        environment={"python": "3.11"},
        config={"seed": 0, "out": Path("a") / "b"},
        budget={"counter": {"samples": 1}},
        seconds=2.0,
    )
    content = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert content["version"] == VERSION
    assert content["config"] == {"seed": 0, "out": str(Path("a") / "b")}
    question = content["questions"]["optimization"]
    assert (question["answer"], question["verdict"], question["tone"]) == ("It counts.", "counted", "good")
    assert {"name", "value", "low", "high", "unit"} <= set(question["headline"])
    assert question["headline"]["name"] == "a"
    assert [m["name"] for m in question["measurements"]] == ["a", "b"]
    assert question["findings"][0]["verdict"] == "holds"
    assert question["findings"][0]["assumptions"] == {"below one": "checked", "a number at all": "on trust"}
    assert question["failed"] == [{"instrument": "x", "title": "X", "reason": "it broke"}]
    exhibits = question["sections"][0]["exhibits"]
    assert [exhibit["kind"] for exhibit in exhibits] == ["curve", "image", "table"]
    assert exhibits[0]["lines"][0]["y"] == [None, "inf"]
    assert array(exhibits[1]["tiles"]).tolist() == image.tiles.tolist()
    assert exhibits[2]["rows"] == [[1, "one"], [2.5, None]]
    assert "observation" not in question["sections"][0]
    empty = content["questions"]["representation"]
    assert (empty["headline"], empty["verdict"], empty["tone"]) == (None, "not answered", "neutral")
    assert empty["answer"].startswith("Not answered")


def test_a_headline_that_was_not_measured_is_refused(instrument: Instrument, seen: Observation) -> None:
    wrong = replace(instrument, answer=lambda _: Answer("It counts.", "counted", "good", "c"))
    with pytest.raises(KeyError, match="no measurement 'c'"):
        Section.of(wrong, seen, command="", python="", seconds=0.0)


def test_a_question_leads_with_its_first_section(instrument: Instrument, seen: Observation) -> None:
    first = section(instrument, seen)
    second = replace(first, answer=Answer("It also counts.", "recounted", "bad", "b"))
    question = Question((first, second))
    assert question.answer == "It counts. It also counts."
    assert question.headline is seen.measurements[0]
    assert (question.verdict, question.tone) == ("counted", "good")
    assert len(question.measurements) == 4


@pytest.mark.parametrize("content", ["text with umlaut \u00fc", b"\x00\xff"])
def test_a_file_is_written_with_its_folders(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    for _ in range(2):  # anew, then over the old one
        write(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_a_file_has_the_mode_that_any_other_program_would_give(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    write(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "other")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("call", ["replace", "chmod", "fdopen"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.txt"
    write(path, "old")
    real = os.fdopen

    def full(*arguments: Any, **options: Any) -> None:
        if call == "fdopen":
            real(arguments[0], "wb").close()  # it is ours to close
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; name a folder"):
        write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "file.txt", "new")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "file" / "b.txt", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "folder", "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[]", "has record version None"),
        ("{}", "has record version None"),
        ('{"version": 99}', f"has record version 99; name a report.json of version {VERSION}"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    write(tmp_path / "report.json", content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "report.json")


def test_a_record_is_read(tmp_path: Path) -> None:
    write(tmp_path / "report.json", json.dumps({"version": VERSION, "a": 1}))
    assert read(tmp_path / "report.json")["a"] == 1
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read(tmp_path / "none.json")
