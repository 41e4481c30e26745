"""The record of an examination: everything the page shows, as JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from .claim import Finding
from .errors import InputError
from .exhibit import Curve, Image, Table
from .instrument import Answer, Instrument, Observation, Tone
from .measurement import Measurement

VERSION = 1
NOT_RUN = "not run: interrupted"
"""The reason of an instrument that an interruption left out."""


@dataclass(frozen=True)
class Section:
    """What one instrument found, and how to repeat it."""

    instrument: str
    title: str
    lecture: str
    source: str
    rule: str
    caveat: str
    answer: Answer
    observation: Observation
    command: str
    python: str
    seconds: float

    @classmethod
    def of(
        cls, instrument: Instrument, observation: Observation, *, command: str, python: str, seconds: float
    ) -> Section:
        """Return the section of an instrument that ran; raises `KeyError` when its headline was not measured."""
        answer = instrument.answer(observation)
        observation[answer.headline]
        return cls(
            instrument=instrument.name,
            title=instrument.title,
            lecture=instrument.lecture,
            source=instrument.source,
            rule=instrument.rule,
            caveat=instrument.caveat,
            answer=answer,
            observation=observation,
            command=command,
            python=python,
            seconds=seconds,
        )


@dataclass(frozen=True)
class NotDone:
    """An instrument that gave nothing, and why."""

    instrument: str
    title: str
    reason: str


@dataclass(frozen=True)
class Question:
    """The answer to one question; the headline is that of the first section, its verdict too."""

    sections: tuple[Section, ...] = ()
    failed: tuple[NotDone, ...] = ()
    inapplicable: tuple[NotDone, ...] = ()

    @property
    def answer(self) -> str:
        """One sentence of each section, most important first."""
        return " ".join(section.answer.sentence for section in self.sections) or "Not answered: see what was not done."

    @property
    def verdict(self) -> str:
        """The verdict of the headline, in plain words."""
        return self.sections[0].answer.verdict if self.sections else "not answered"

    @property
    def tone(self) -> Tone:
        """How the verdict is marked."""
        return self.sections[0].answer.tone if self.sections else "neutral"

    @property
    def headline(self) -> Measurement | None:
        """The number that the verdict rests on."""
        return self.sections[0].observation[self.sections[0].answer.headline] if self.sections else None

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All measurements, section after section."""
        return tuple(m for section in self.sections for m in section.observation.measurements)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, section after section."""
        return tuple(f for section in self.sections for f in section.observation.findings)


@dataclass(frozen=True)
class Record:
    """Everything an examination found; `to_json` is the content of report.json.

    subject: the network and the data in words. environment: versions, machine, date. config: every resolved option.
    budget: what each instrument was allowed, by name.
    """

    subject: Mapping[str, Any]
    questions: Mapping[str, Question]
    environment: Mapping[str, Any]
    config: Mapping[str, Any]
    budget: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers; infinities as "inf" and "-inf", images as base64."""
        return {
            "version": VERSION,
            "subject": plain(self.subject),
            "questions": {name: _question(question) for name, question in self.questions.items()},
            "environment": plain(self.environment),
            "config": plain(self.config),
            "budget": plain(self.budget),
            "seconds": self.seconds,
        }


def _question(question: Question) -> dict[str, Any]:
    return {
        "answer": question.answer,
        "verdict": question.verdict,
        "tone": question.tone,
        "headline": plain(question.headline),
        "measurements": plain(question.measurements),
        "findings": plain(question.findings),
        "failed": plain(question.failed),
        "inapplicable": plain(question.inapplicable),
        "sections": [_section(section) for section in question.sections],
    }


def _section(section: Section) -> dict[str, Any]:
    fields = {f.name: plain(getattr(section, f.name)) for f in dataclasses.fields(section) if f.name != "observation"}
    seen = section.observation
    return fields | {
        "measurements": plain(seen.measurements),
        "findings": plain(seen.findings),
        "exhibits": plain(seen.exhibits),
    }


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; raises `TypeError` on what it does not know.

    >>> plain({"a": (1, float("inf")), "b": None})
    {'a': [1, 'inf'], 'b': None}
    """
    if isinstance(value, Curve | Table | Image):
        return {"kind": type(value).__name__.lower()} | _fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {
            "shape": list(value.shape),
            "base64": base64.b64encode(value.tobytes()).decode("ascii"),
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None  # a gap in a curve; a `Measurement` is never NaN
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written to a record; give numbers, text, lists or dicts")


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def array(encoded: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the uint8 array that `plain` encoded."""
    return np.frombuffer(base64.b64decode(encoded["base64"]), dtype=np.uint8).reshape(encoded["shape"])


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed.

    Raises `InputError` when the folder cannot be made or written.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise InputError(f"cannot write {path}: {fault.strerror}", "name a folder you may write to by --out") from fault


def check_folder(folder: Path) -> None:
    """Raise `InputError` unless files can be written into `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(temporary)
    except OSError as fault:
        why = "it is a file" if folder.is_file() else fault.strerror
        raise InputError(f"cannot write into {folder}: {why}", "name a folder you may write to by --out") from fault


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: Path) -> dict[str, Any]:
    """Return the JSON of a record; raises `InputError` when the file is no record of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(f"cannot read {path}: {fault.strerror}", "name a report.json or its folder") from fault
    except ValueError as fault:
        raise InputError(f"{path} is not JSON: {fault}", "name a report.json that whydeep wrote") from fault
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise InputError(f"{path} has record version {version}", f"name a report.json of version {VERSION}")
    return content
