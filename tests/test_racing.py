"""The race as a user meets it, from Python and from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from problems import blobs
from test_cli import Result, whydeep  # noqa: F401  # the fixture

import whydeep as wd
from whydeep.core import Data
from whydeep.networks import cnn, mlp

SMALL = {"seeds": 2, "passes": 2}


def sigmoid() -> torch.nn.Module:
    return mlp((3, 4, 3), activation="sigmoid")


def test_it_races_and_writes_page_and_record(tmp_path: Path) -> None:
    result = wd.race(sigmoid, blobs(), blobs(30), solvers=["admm", "adam?lr=0.01"], **SMALL)
    assert result.comparison.complete
    # Two solvers, two starts, two seeds, at equal passes and at equal seconds.
    assert len(result.comparison.runs) == 16
    page = result.save(tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    assert list(record["questions"]) == ["optimization"]
    (section,) = record["questions"]["optimization"]["sections"]
    assert section["answer"]["verdict"] == result.verdict
    assert [e["title"] for e in section["exhibits"]] == [
        "At the end",
        "From the default start, over passes",
        "From the default start, over seconds",
        "From the corrected start, over passes",
        "From the corrected start, over seconds",
        "All runs",
    ]
    assert "Test error at equal seconds" in page.read_text()
    assert section["exhibits"][-1]["note"].startswith("The runs at equal seconds took")


def test_the_printed_python_repeats_what_a_seed_decides(whydeep, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    data = "synthetic:gaussian_mixture?n=200"
    words = (
        f"race --data {data} --model mlp:5?activation=tanh --solvers sgd admm --starts corrected --seeds 2 --passes 2"
    )
    done: Result = whydeep(*words.split(), "--seed", "3", "--out", "o")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "o" / "report.json").read_text())
    assert record["config"]["command"].endswith(
        "--seed 3 --solvers sgd admm --starts corrected --seeds 2 --passes 2"
    ), record["config"]["command"]
    section = record["questions"]["optimization"]["sections"][0]
    scope: dict[str, object] = {}
    exec(section["python"], scope)
    again = scope["race"].record.to_json()["questions"]["optimization"]["sections"][0]  # type: ignore[attr-defined]
    values = [
        {m["name"]: m["value"] for m in one["measurements"] if "equal passes" in m["name"]} for one in (section, again)
    ]
    assert values[0] == values[1] != {}


def test_json_goes_to_standard_output_alone(whydeep) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    done = whydeep("race", "--data", "synthetic:gaussian_mixture?n=100", "--model", "linear", "--solvers",
                   "adam?lr=0.1", "--starts", "default", "--seeds", "1", "--passes", "1", "--json")  # fmt: skip
    assert json.loads(done.out)["questions"]["optimization"]["verdict"] == "adam?lr=0.1 alone"
    assert done.err == ""


def test_solvers_and_starts_that_do_not_fit_are_named_with_the_reason() -> None:
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = Data(images, torch.arange(40) % 2, classes=2)
    result = wd.race(lambda: cnn((1, 4, 4), 2, channels=(2,)), data, data, solvers=["admm", "adam?lr=0.01"], **SMALL)
    missing = {one.title: one.reason for one in result.record.questions["optimization"].inapplicable}
    assert "ADMM cannot train" in missing["admm"]
    assert "the corrected start" in missing["the corrected start"]
    assert {run.solver for run in result.comparison.runs} == {"adam?lr=0.01"}


def test_regression_is_compared_by_its_risk() -> None:
    x = torch.linspace(-1, 1, 60)[:, None]
    data = Data(x, x**2)
    result = wd.race(lambda: mlp((1, 5, 1), activation="tanh"), data, data, solvers=["admm", "sgd?lr=0.05"], **SMALL)
    assert result.answer.startswith("Test risk at equal seconds")


def test_an_interruption_leaves_a_page_of_what_there_is(tmp_path: Path) -> None:
    calls: list[str] = []

    def tell(what: str, progress: object) -> bool:
        calls.append(what)
        return what.startswith("equal passes, seed 2")

    solvers = ["adam?lr=0.01", "sgd?lr=0.05"]
    result = wd.race(sigmoid, blobs(), blobs(30), solvers=solvers, tell=tell, **SMALL)
    question = result.record.questions["optimization"]
    assert [one.reason for one in question.failed] == ["interrupted after 4 runs"]
    assert question.verdict == "one seed: undecided"
    assert result.save(tmp_path).exists()
    # Stopped before the first run has ended: a page that says so.
    nothing = wd.race(sigmoid, blobs(), blobs(30), solvers=solvers, tell=lambda *_: True, **SMALL)
    assert nothing.record.questions["optimization"].sections == ()
    assert nothing.save(tmp_path).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solvers": ["newton"]}, "unknown solver 'newton'; give one of adam"),
        ({"solvers": ["adam", "adam"]}, "solver 'adam' is named twice; name each once"),
        ({"solvers": []}, "no solver is named"),
        ({"solvers": ["admm?sweeps=3"]}, "sets sweeps itself"),
        ({"starts": ["warm"]}, "unknown start 'warm'; give default or corrected"),
        ({"seeds": 0}, "seeds is 0; give 1 at least"),
        ({"budget": "huge"}, "unknown budget 'huge'; give quick or full"),
        ({"factory": sigmoid()}, "one instance was given; give a function that makes it"),
        ({"factory": lambda: 3}, "the factory returned int"),
        ({"factory": lambda: mlp((3, 4, 3), activation="softplus"), "starts": ["corrected"]}, "softplus"),
        ({"factory": lambda: torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU()), "solvers": ["admm"],
          "starts": ["default"]}, "no solver can take this network (admm: ADMM cannot train"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(options: dict[str, object], words: str) -> None:
    options = {"factory": sigmoid, **options}
    with pytest.raises(wd.InputError) as caught:
        wd.race(options.pop("factory"), blobs(), blobs(30), **(SMALL | options))  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_refuses_what_does_not_fit(whydeep, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    done = whydeep("race", "admm")
    assert (done.code, "names follow --solvers or --starts" in done.err) == (2, True)
    (tmp_path / "net.py").write_text("import torch\nnet = torch.nn.Linear(64, 10)\n")
    done = whydeep("race", "--model", "net.py:net")
    assert (done.code, "one instance was given" in done.err) == (2, True)
    assert whydeep("race", "--weights", "w").code == 2


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_and_writes_what_there_is(tmp_path: Path) -> None:
    words = "race --model mlp:20?activation=sigmoid --solvers adam?lr=0.01 sgd?lr=0.1 --starts default --passes 50"
    process = subprocess.Popen(
        [sys.executable, "-m", "whydeep", *words.split(), "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    while "seed 2" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    question = json.loads((tmp_path / "report.json").read_text())["questions"]["optimization"]
    assert question["failed"][0]["reason"].startswith("interrupted after")
    assert len(question["sections"]) == 1
