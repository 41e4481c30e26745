"""The command line as a user meets it: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_examination import fault, plant, planted

from whydeep import cli

DATA = "synthetic:gaussian_mixture?n=200"
SMALL = ["--data", DATA, "--model", "mlp:5", "--solver", "adam?epochs=2"]


class Result:
    """Exit code and texts of one run."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def whydeep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["whydeep", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        text = capsys.readouterr()
        code = stop.value.code
        return Result(code if isinstance(code, int) else 0 if code is None else 1, text.out, text.err)

    return run


def test_examine_writes_page_record_and_weights(whydeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"), planted("b", question="generalization"))
    done = whydeep("examine", *SMALL, "--seed", "3", "--out", "there")
    assert done.code == 0, done.err
    assert "optimization: fine" in done.out
    assert "there/report.html" in done.out
    record = json.loads((tmp_path / "there" / "report.json").read_text())
    assert (
        record["config"]["command"]
        == f"whydeep examine --data '{DATA}' --model mlp:5 --solver 'adam?epochs=2' --seed 3"
    )
    section = record["questions"]["optimization"]["sections"][0]
    assert section["command"].endswith("--seed 3 --only a")


def test_the_printed_python_repeats_the_numbers(whydeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"))
    whydeep("examine", *SMALL, "--seed", "3")
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    section = record["questions"]["optimization"]["sections"][0]
    printed: list[str] = []
    exec(section["python"], {"print": printed.append})
    assert printed == [record["questions"]["optimization"]["answer"]]


def test_json_goes_to_standard_output_alone(whydeep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"))
    done = whydeep("examine", *SMALL, "--json")
    assert json.loads(done.out)["questions"]["optimization"]["verdict"] == "fine"
    assert done.err == ""


def test_a_failed_instrument_exits_with_1(whydeep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a", run=fault))
    done = whydeep("examine", *SMALL)
    assert done.code == 1
    assert "failed: The a: RuntimeError: planted fault" in done.out
    assert "Traceback" not in done.err
    assert "Traceback" in whydeep("examine", *SMALL, "--debug").err


def test_only_takes_several_names(whydeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"), planted("b"), planted("c"))
    whydeep("examine", *SMALL, "--only", "a", "c")
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(record["budget"]) == ["a", "c"]


def test_a_config_file_gives_defaults_and_flags_override(
    whydeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"))
    (tmp_path / "c.toml").write_text(f'data = "{DATA}"\nmodel = "mlp:7"\nsolver = "adam?epochs=1"\nseed = 9\n')
    assert whydeep("examine", "--config", "c.toml", "--seed", "2").code == 0
    config = json.loads((tmp_path / "out" / "report.json").read_text())["config"]
    assert (config["model"], config["seed"]) == ("mlp:7", 2)
    (tmp_path / "c.toml").write_text("colour = 1\n")
    wrong = whydeep("examine", "--config", "c.toml")
    assert wrong.code == 2
    assert "unknown keys colour; give any of" in wrong.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["examine", "--data", "nonsense"], "digits"),
        (["examine", "--data", "mnist:/no/such/folder"], "/no/such/folder"),
        (["examine", "--model", "transformer9000"], "mlp"),
        (["examine", "--model", "missing.py:net"], "missing.py"),
        (["examine", "--solver", "magic"], "unknown solver 'magic'; give one of adam"),
        (["examine", "--solver", "adam?speed=3"], "solver adam has no 'speed'; give one of lr"),
        (["examine", "--solver", "adam?epochs=0"], "epochs=0; give a whole number, at least 1"),
        (["train", "--solver", "admm?sweeps=2.5"], "sweeps=2.5; give a whole number, at least 1"),
        (["train", "--solver", "sgd?lr=nan"], "lr=nan; give a finite number >= 0"),
        (["examine", "--only", "nothing"], "unknown question or instrument nothing"),
        (["examine", "--weights", "none.safetensors"], "none.safetensors"),
        (["examine", "--mean", "0.5"], "give both"),
        (["examine", "--bounds", "1", "0"], "give the smaller number first"),
        (["examine", "--out", "/proc/nowhere"], "cannot write into /proc/nowhere"),
        (["examine", "--budget", "huge"], "'quick', 'full'"),
        (["examine", "curvature"], "names follow --only"),
        (["train", "--model", "mlp:0"], "width"),
        (["check"], "--all"),
        (["check", "perceptron"], "near: perceptron_mistakes"),
        (["theorems", "chemistry"], "unknown question 'chemistry'"),
        (["report", "nowhere"], "cannot read nowhere"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_to_do(whydeep, arguments: list[str], words: str) -> None:  # type: ignore[no-untyped-def]
    done = whydeep(*arguments)
    assert done.code == 2, (done.out, done.err)
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_torchrun_is_for_training_only(whydeep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = whydeep("theorems")
    assert (done.code, done.out) == (2, "")
    assert "only `train` runs on several processes" in done.err
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert whydeep("theorems", "optimization").code == 0


def test_train_writes_weights_and_history(whydeep, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = whydeep("train", *SMALL, "--out", "w")
    assert done.code == 0, done.err
    assert "budget spent" in done.out
    content = json.loads((tmp_path / "w" / "training.json").read_text())
    assert len(content["history"]["loss"]) == 3
    assert set(load_file(tmp_path / "w" / "weights.safetensors")) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_a_training_that_blew_up_exits_with_1_and_keeps_its_best_weights(whydeep, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # Sigmoids saturate, so that nothing overflows, however long the step is.
    saturating = ("--data", DATA, "--model", "mlp:7?activation=sigmoid", "--solver", "sgd?lr=1e6&epochs=2")
    done = whydeep("train", *saturating, "--out", "w")
    assert done.code == 1, done.err
    assert "diverged: " in done.out
    assert "and the risk rose from" in done.out
    content = json.loads((tmp_path / "w" / "training.json").read_text())
    assert content["risk"]["train"] == pytest.approx(min(content["history"]["loss"]), rel=1e-5)  # single precision


def test_theorems_and_check(whydeep) -> None:  # type: ignore[no-untyped-def]
    listed = json.loads(whydeep("theorems", "--json").out)
    assert {"id", "question", "statement", "source"} <= set(listed[0])
    assert {row["question"] for row in json.loads(whydeep("theorems", "optimization", "--json").out)} == {
        "optimization"
    }
    name = next(row["id"] for row in listed if row["id"].startswith("perceptron"))
    assert name in whydeep("theorems").out
    done = whydeep("check", name, "--json")
    assert done.code == 0
    (found,) = json.loads(done.out)
    keys = {"id", "question", "statement", "source", "verdict", "predicted", "measured", "seconds"}
    assert keys <= set(found)
    assert found["verdict"] == "holds"
    assert "consistent" in whydeep("check", name).out


def test_check_exits_with_1_when_a_claim_is_violated(whydeep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from whydeep.core import registry

    claim = next(iter(registry.claims().values()))
    monkeypatch.setattr(registry, "claims", lambda: {claim.id: replace(claim, holds_on=claim.corrupted)})
    done = whydeep("check", "--all")
    assert done.code == 1
    assert "VIOLATED" in done.out


def test_check_says_what_could_not_be_decided(whydeep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from whydeep.core import exact, registry

    claim = next(iter(registry.claims().values()))
    nothing = replace(claim, measure=lambda case, generator: exact("the risk", float("nan")))
    monkeypatch.setattr(registry, "claims", lambda: {claim.id: nothing})
    done = whydeep("check", "--all")
    assert done.code == 0
    assert "the risk is not a number" in " ".join(done.out.split())


@pytest.mark.parametrize("seed", ["9" * 22, "-1", "x"])
def test_a_seed_that_no_generator_takes_is_refused(whydeep, seed: str) -> None:  # type: ignore[no-untyped-def]
    assert whydeep("check", "sawtooth_has_two_to_the_k_pieces", "--seed", seed).code == 2


def test_report_writes_the_same_page_again(whydeep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch, planted("a"))
    whydeep("examine", *SMALL)
    page = tmp_path / "out" / "report.html"
    first = page.read_text()
    page.unlink()
    assert whydeep("report", "out").code == 0
    assert page.read_text() == first


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_and_writes_what_there_is(tmp_path: Path) -> None:
    arguments = ["examine", "--data", "digits", "--solver", "adam?epochs=100000", "--only", "curvature"]
    process = subprocess.Popen(
        [sys.executable, "-m", "whydeep", *arguments, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    while "training" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["subject"]["training"].startswith("interrupted")
    assert record["questions"]["optimization"]["failed"][0]["reason"] == "not run: interrupted"
    assert (tmp_path / "weights.safetensors").exists()
