"""Errors carry their parts, so that a command line can print them its own way."""

from __future__ import annotations

from pathlib import Path

import pytest

from whydeep.core import DataError, InputError, Outcome, Status


def test_input_errors() -> None:
    error = InputError("the model is odd", "give another")
    assert (error.reason, error.remedy, str(error)) == (
        "the model is odd", "give another", "the model is odd; give another"
    )  # fmt: skip
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("path", ["a/b.gz", Path("a/b.gz")])
def test_data_errors_name_the_path(path: str | Path) -> None:
    error = DataError(path, "it ends too early", "fetch it again")
    assert (error.path, error.reason, error.remedy) == (str(Path("a/b.gz")), "it ends too early", "fetch it again")
    assert str(error) == f"{Path('a/b.gz')}: it ends too early; fetch it again"
    assert isinstance(error, InputError)


@pytest.mark.parametrize("status", Status)
def test_outcomes_say_how_it_ended(status: Status) -> None:
    outcome = Outcome(status)
    assert outcome.converged == (status.value == "converged")
    assert outcome.diverged == (status.value == "diverged")
