"""`whydeep spectrum` and its job: what is measured, told on the way, printed and refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from dense_hessian import dense

import whydeep as wd
from whydeep import cli
from whydeep.core import InputError
from whydeep.core.training import Progress
from whydeep.curvature import curvature
from whydeep.networks import mlp, save_weights

SMALL = ["--data", "synthetic:gaussian_mixture?n=200&d=3&classes=2", "--model", "mlp:6", "--solver", "adam?epochs=3"]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["whydeep", "spectrum", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    text = capsys.readouterr()
    return int(stop.value.code or 0), text.out, text.err


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_given_network_is_measured_as_it_is() -> None:
    train, _ = wd.data.load("synthetic:gaussian_mixture?n=200&d=3&classes=2")
    model = mlp((3, 6, 2), activation="tanh", generator=seeded(1))
    told: list[tuple[str, int, int]] = []

    def tell(phase: str, step: Progress) -> bool:
        told.append((phase, step.done, step.total))
        return False

    seen = curvature(model, train, top=3, per_layer=True, tell=tell)
    truth = torch.linalg.eigvalsh(dense(wd.Problem(model, train)).double())
    # 38 parameters: every direction is visited; single precision leaves seven digits of the largest.
    scale = float(truth[-1])
    torch.testing.assert_close(seen.spectrum.eigenvalues, truth[-3:].flip(0), rtol=0, atol=1e-5 * scale)
    assert seen.spectrum.trace == pytest.approx(float(truth.sum()), rel=1e-4)
    by_name = {m.name: m for m in seen.measurements}
    assert by_name["parameters"].value == 38
    assert by_name["eigenvalue 3"].low <= float(truth[-3]) + 1e-5 * scale
    assert sum(layer.trace for layer in seen.spectrum.layers.values()) == pytest.approx(seen.spectrum.trace, rel=1e-4)
    assert {phase for phase, _, _ in told} == {"spectrum"}, "nothing was trained"
    assert told[-1][1] == told[-1][2], "every bar ends full"
    few = curvature(model, train, samples=50)
    assert few.samples == 50
    assert few.spectrum.trace != pytest.approx(seen.spectrum.trace, rel=1e-4)


def test_a_fresh_network_is_trained_first() -> None:
    train, _ = wd.data.load("synthetic:gaussian_mixture?n=200&d=3&classes=2")
    phases: list[str] = []

    def tell(phase: str, step: Progress) -> bool:
        phases.append(phase)
        return False

    solver = wd.optimization.by_name("adam?epochs=2", samples=200)
    seen = curvature(lambda: mlp((3, 6, 2)), train, solver=solver, tell=tell)
    assert list(dict.fromkeys(phases)) == ["training", "spectrum"]
    assert seen.sentence.startswith("The Hessian of 38 parameters on 160 samples has curvatures from ")
    broken = wd.optimization.by_name("sgd?lr=1e30&epochs=2", samples=200)
    with pytest.raises(InputError, match="diverged"):
        curvature(lambda: mlp((3, 6, 2)), train, solver=broken, loss="squared")


def test_the_command_prints_a_table_and_json_holds_the_library_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(monkeypatch, capsys, *SMALL, "--per-layer", "--top", "2")
    assert code == 0, err
    for word in ("The Hessian of 38 parameters", "largest curvature", "eigenvalue 2", "trace", "below", "layer"):
        assert word in out, word
    assert "training" in err
    assert "spectrum" in err
    weights = tmp_path / "w.safetensors"
    save_weights(mlp((3, 6, 2), generator=seeded(2)), weights)
    given = [*SMALL[:4], "--weights", str(weights), "--operator", "ggn", "--seed", "3", "--json"]
    record = json.loads(run(monkeypatch, capsys, *given)[1])
    assert record["eigenvalues"][0] > 0
    assert record["smallest"] > -1e-6 * record["eigenvalues"][0], "a Gauss-Newton matrix has no negative eigenvalue"
    assert len(record["density"]["grid"]) == len(record["density"]["high"]) == 400
    assert record["config"]["command"].startswith("whydeep spectrum")
    again = json.loads(run(monkeypatch, capsys, *given)[1])
    assert again["eigenvalues"] == record["eigenvalues"]


def test_usage_errors_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--top", "0"], ["--operator", "fisher"], ["--samples", "none"]):
        code, _, err = run(monkeypatch, capsys, *SMALL, *arguments)
        assert code == 2
        assert arguments[0] in err
