"""A record as one self-contained HTML file: the four answers first, then everything they rest on."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from whydeep.core import numbers
from whydeep.core import record as records
from whydeep.core.claim import QUESTIONS
from whydeep.core.errors import InputError

from . import figures

ASKED = {
    "representation": "What are the optimal, transferable representations of signals, and why is the network fragile?",
    "approximation": "When and why are deep networks better than shallow ones?",
    "generalization": "How can a deep network generalize well without overfitting the noise?",
    "optimization": "What does the landscape of the empirical risk look like, and how is it minimised efficiently?",
}
"""The four questions in the lecture's words (slide "What theories do we have or need?")."""

VERDICTS = {
    "holds": ("consistent with", "good"),
    "violated": ("violated", "bad"),
    "inconclusive": ("inconclusive", "caution"),
    "inapplicable": ("not applicable", "neutral"),
    "vacuous": ("vacuous", "neutral"),
}
"""How the verdict on a claim is said and marked: nothing on the page is ever proved."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
MOST_ROWS = 200
MOST_LETTERS = 250  # of the answer on a card: two short sentences; the section has all of it


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and what it sorts by."""

    text: str
    key: float | str
    numeric: bool


def page(record: Mapping[str, Any]) -> str:
    """Return the page of a record, as `Record.to_json` gives it or as read back from report.json.

    The page is one file without any outside resource, and the same record gives the same bytes.
    Raises `InputError` when the record is of another version or a part of it is missing or of the wrong type.
    """
    if not isinstance(record, Mapping) or record.get("version") != records.VERSION:
        version = record.get("version") if isinstance(record, Mapping) else None
        raise InputError(f"the record has version {version}", f"give one of version {records.VERSION}")
    asked = record.get("questions")
    if not isinstance(asked, Mapping) or set(asked) - set(QUESTIONS):
        raise InputError("the record's questions are not those of the lecture", f"give any of {', '.join(QUESTIONS)}")
    script = _asset("script.js")
    try:
        return (
            _environment()
            .from_string(_asset("template.html"))
            .render(
                record=record,
                questions=[name for name in QUESTIONS if name in record["questions"]],
                style=Markup(_asset("style.css")),
                script=Markup(script),
                script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            )
        )
    except (jinja2.TemplateError, KeyError, IndexError, TypeError, ValueError, AttributeError) as fault:
        raise InputError(
            f"the record cannot be shown, a part is missing or broken: {type(fault).__name__}: {fault}",
            "give a report.json that whydeep wrote, or examine again",
        ) from fault


def write(directory: Path | str, record: records.Record | Mapping[str, Any]) -> Path:
    """Write report.json and report.html into `directory` and return the path of the page.

    Each file is written whole or not at all. Raises `InputError` when the folder cannot be written.
    """
    content = record.to_json() if isinstance(record, records.Record) else record
    directory = Path(directory)
    shown = page(content)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    records.write(directory / "report.json", text + "\n")
    records.write(directory / "report.html", shown)
    return directory / "report.html"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"asked": ASKED, "verdicts": VERDICTS, "most_rows": MOST_ROWS}
    environment.filters |= {
        "measured": _measured,
        "value_only": _value_only,
        "predicted": _predicted,
        "duration": lambda seconds: numbers.duration(numbers.number(seconds)),
        "plot": lambda curve, key: Markup(figures.plot(figures.curve_of(curve), key)),
        "sparkline": lambda curve, key: Markup(figures.sparkline(figures.curve_of(curve), key)),
        "picture": lambda image: figures.image(figures.tiles_of(image)),
        "tiles": _tiles,
        "grid": _grid,
        "cell": _cell,
        "short": _short,
        "number": numbers.number,
        "slug": _slug,
        "first_curve": _first_curve,
        "sentence": _sentence,
        "word": lambda name: str(name).replace("_", " "),
        "undrawn": _undrawn,
        "date": _date,
        "bound": _bound,
    }
    return environment


def _measured(measurement: Mapping[str, Any]) -> str:
    value, low, high, confidence = (numbers.number(measurement[k]) for k in ("value", "low", "high", "confidence"))
    return numbers.interval(value, low, high, str(measurement["unit"]), confidence)


def _value_only(measurement: Mapping[str, Any]) -> tuple[str, str]:
    """Return the value and, apart from it, its interval in words; "" for an exact number."""
    text = _measured(measurement)
    value, bracket, ends = text.partition(" (")
    sure = f"{numbers.plain(100 * numbers.number(measurement['confidence']))} % sure"
    if text.startswith(("at most", "at least")):
        return text.partition(" at ")[0], sure
    if not bracket:
        return value, "computed, not sampled"
    return value, f"{ends.removesuffix(')').partition(' at ')[0]}, {sure}"


def _predicted(finding: Mapping[str, Any]) -> str:
    prediction, unit = finding["predicted"], str(finding["measured"]["unit"])
    value, tolerance = numbers.number(prediction["value"]), numbers.number(prediction["tolerance"])
    said = f"{prediction['relation']} {numbers.quantity(value, unit)}"
    if prediction["relation"] == "grows like":
        said = f"grows like a power with exponent {numbers.plain(value)}"
        unit = ""
    return f"{said}, within {numbers.quantity(tolerance, unit)}" if tolerance else said


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return Cell("yes" if value else "no", str(value), False)
    if value is None:
        return Cell("–", "", False)
    if isinstance(value, int | float) or value in numbers.INFINITIES:
        size = numbers.number(value)
        return Cell(numbers.plain(size), size, True)
    return Cell(str(value), str(value), False)


def _grid(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of a table as cells, and for each column whether it holds numbers."""
    rows = [[_cell(value) for value in row] for row in table["rows"]]
    width = len(table["columns"])
    numeric = [
        any(row[k].numeric for row in rows) and all(row[k].numeric or row[k].key == "" for row in rows)
        for k in range(width)
    ]
    return {"rows": rows[:MOST_ROWS], "left_out": max(0, len(rows) - MOST_ROWS), "numeric": numeric}


def _tiles(image: Mapping[str, Any]) -> list[tuple[figures.Picture, str]]:
    """Return every tile as its own picture with its caption."""
    tiles = figures.tiles_of(image)
    pairs = list(zip(tiles, image["captions"], strict=True))[: figures.MOST_TILES]
    return [(figures.image(tile[None], width=96), str(caption)) for tile, caption in pairs]


def _short(question: Mapping[str, Any]) -> str:
    """Return the first one or two sections' sentences, as far as they fit on a card."""
    sentences = [str(section["answer"]["sentence"]) for section in question["sections"]]
    if not sentences:
        return str(question["answer"])
    both = " ".join(sentences[:2])
    return both if len(both) <= MOST_LETTERS else sentences[0]


def _first_curve(question: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first curve of the headline's section, else of any."""
    for section in question["sections"]:
        for exhibit in section["exhibits"]:
            if exhibit["kind"] == "curve":
                found: Mapping[str, Any] = exhibit
                return found
    return None


def _undrawn(curve: Mapping[str, Any]) -> list[str]:
    """Return the labels of the lines that have no finite value to draw."""
    lines = figures.curve_of(curve).lines
    return [line.label for line in lines if not any(abs(y) < float("inf") for y in line.y)]


def _sentence(text: str) -> str:
    """Return the text with a capital letter and a full stop."""
    text = str(text).strip()
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _date(text: str) -> str:
    """Return an ISO date as one reads it; any other text as it is."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}"


def _bound(text: str) -> str:
    """Return the text with its numbers bound to the percent sign that follows: no line begins with it."""
    return re.sub(r"(?<=\d) %", "\u00a0%", text)


def _slug(name: str) -> str:
    """Return a name as it may stand in an id."""
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-") or "x"
