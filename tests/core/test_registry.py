"""Discovery: by walking the packages, and by the entry points of others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from whydeep.core import Claim, InputError, Instrument, registry
from whydeep.core.claim import QUESTIONS
from whydeep.optimization import theorems


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs an object as if another package offered it."""
    module = ModuleType("somebody_elses_package")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def offer(group: str, value: object, attribute: str = "thing") -> None:
        if value is not None:
            setattr(module, attribute, value)
        point = EntryPoint("anything", f"{module.__name__}:{attribute}", group)
        monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == point.group else [])

    return offer


def test_the_theorems_of_the_package_are_found_in_the_order_of_the_lecture() -> None:
    found = registry.claims()
    assert "perceptron_mistakes_are_bounded_by_the_margin" in found
    assert all(name == one.id for name, one in found.items())
    order = [(QUESTIONS.index(one.question), one.id) for one in found.values()]
    assert order == sorted(order)


def test_instruments_come_by_question_and_rank() -> None:
    found = registry.instruments()
    assert all(name == one.name for name, one in found.items())
    order = [(QUESTIONS.index(one.question), one.rank, one.name) for one in found.values()]
    assert order == sorted(order)


def test_a_plugged_claim_and_instrument_are_found(plug: Any, claim: Claim, instrument: Instrument) -> None:
    without = set(registry.claims())
    plug("whydeep.theorems", claim)
    assert registry.claims()[claim.id] is claim
    assert set(registry.claims()) == without | {claim.id}
    plug("whydeep.instruments", instrument)
    assert registry.instruments()["counter"] is instrument
    assert claim.id not in registry.claims()


@pytest.mark.parametrize(("group", "kind"), [("whydeep.theorems", "Claim"), ("whydeep.instruments", "Instrument")])
def test_a_plug_in_of_another_type_is_refused(plug: Any, group: str, kind: str) -> None:
    plug(group, "a text")
    find = registry.claims if kind == "Claim" else registry.instruments
    with pytest.raises(
        InputError, match=f"the plug-in somebody_elses_package:thing is a str; let {group} name a {kind}"
    ):
        find()


def test_a_plug_in_that_cannot_be_loaded_is_named(plug: Any) -> None:
    plug("whydeep.theorems", None, "no_such_thing")
    with pytest.raises(InputError, match="plug-in somebody_elses_package:no_such_thing cannot be loaded"):
        registry.claims()


def test_two_claims_of_one_id_are_refused(plug: Any, claim: Claim) -> None:
    plug("whydeep.theorems", replace(claim, id="perceptron_mistakes_are_bounded_by_the_margin"))
    with pytest.raises((InputError, TypeError), match="perceptron_mistakes_are_bounded_by_the_margin"):
        registry.claims()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which theorems of optimization are looked for, too."""
    monkeypatch.setattr(theorems, "__path__", [*theorems.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_planted")]:
        del sys.modules[name]


def test_adding_a_theorem_is_adding_a_file(folder: Path) -> None:
    (folder / "one_planted.py").write_text(
        "from dataclasses import replace\n"
        "from whydeep.optimization.theorems.perceptron_mistakes_are_bounded_by_the_margin import claim as known\n"
        "claim = replace(known, id=__name__.rsplit('.', 1)[1])\n"
    )
    assert registry.claims()["one_planted"].question == "optimization"


def test_a_file_without_a_claim_is_named(folder: Path) -> None:
    (folder / "two_planted.py").write_text("claim = 3\n")
    with pytest.raises(TypeError, match=r"theorems\.two_planted has no claim of type Claim"):
        registry.claims()
