"""`whydeep certify` and its job: what is certified, on what trust, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import whydeep as wd
from whydeep import cli
from whydeep.certification import certification
from whydeep.core import Data, InputError
from whydeep.networks import mlp
from whydeep.optimization import Backprop

SMALL = ["--data", "synthetic:gaussian_mixture?n=300", "--model", "mlp:5", "--solver", "adam?epochs=3"]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["whydeep", "certify", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    text = capsys.readouterr()
    return int(stop.value.code or 0), text.out, text.err


def test_prints_the_sentence_and_every_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, *SMALL, "--method", "disintegrated")
    assert code == 0, err
    assert out.startswith("The error of the network drawn on new samples is at most")
    for word in ("disintegrated", "binomial", "kl", "hoeffding", "the network it is around", "by construction"):
        assert word in out, word


def test_json_is_the_library_call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, *SMALL, "--seed", "4", "--delta", "0.1", "--candidates", "3", "--json")
    assert code == 0
    record = json.loads(out)
    first = record["certificates"][0]
    assert first["bound"] == wd.generalization.binomial_tail_inverse(first["errors"], first["n"], 0.1 / 3)
    assert sum(first["terms"].values()) == pytest.approx(first["bound"])
    assert {c["method"] for c in record["certificates"]} == {"binomial", "kl", "hoeffding"}
    assert record["certificates"][1]["baseline"]["bound"] == first["bound"]
    assert record["config"]["command"].startswith("whydeep certify")
    again = json.loads(
        run(monkeypatch, capsys, *SMALL, "--seed", "4", "--delta", "0.1", "--candidates", "3", "--json")[1]
    )
    assert again["certificates"] == record["certificates"]


def test_given_weights_are_on_trust_unless_held_out_data_are_declared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weights = tmp_path / "w.safetensors"
    wd.networks.save_weights(mlp((2, 5, 2)), weights)
    data = ["--data", "synthetic:gaussian_mixture?n=300&d=2&classes=2", "--model", "mlp:5", "--weights", str(weights)]
    code, out, err = run(monkeypatch, capsys, *data)
    assert code == 0, err
    assert out.startswith("If the held-out samples were not used in training: its error")
    assert "the classifier given" in out
    code, out, err = run(
        monkeypatch, capsys, *data, "--seed", "1", "--heldout", "synthetic:gaussian_mixture?n=200&d=2&classes=2"
    )
    # The same seed draws the same samples as the training data: refused, with the count.
    assert code == 2
    assert "are among the training samples" in err


def test_exit_code_answers_at_most(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, *SMALL, "--at-most", "1.0", "--delta", "1e-6")
    assert code == 0
    assert "(99.9999 % sure)" in out
    assert "the network trained" in out
    assert "the classifier given" not in out
    assert run(monkeypatch, capsys, *SMALL, "--at-most", "0.0")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delta", "1.5"], "between 0 and 1"),
        (["--method", "magic"], "unknown method 'magic'; give each of binomial"),
        (["--method", "kl", "--method", "kl"], "'kl' twice"),
        (["--data", "synthetic:ridge_sum?n=50"], "no classes"),
        (["--candidates", "0"], "candidates"),
        (["--at-most", "nan"], "--at-most nan; give a fraction from 0 to 1"),
        (["--at-most", "2"], "--at-most 2; give a fraction"),
        (["--at-most", "-0.1"], "--at-most -0.1; give a fraction"),
    ],
)
def test_refuses_in_one_sentence(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, *SMALL, *arguments)
    assert code == 2
    assert message in err


def test_held_out_data_need_the_training_classes() -> None:
    train = Data(torch.randn(20, 2), torch.arange(20) % 2, classes=2)
    more = Data(torch.randn(9, 2), torch.arange(9) % 3, classes=3)
    with pytest.raises(InputError, match="3 classes"):
        certification(mlp((2, 2)), train, more)
    fewer = Data(torch.randn(9, 2), torch.zeros(9, dtype=torch.int64), classes=1)
    assert certification(mlp((2, 2)), train, fewer).certificates[0].n == 9


def test_a_given_network_is_left_alone_and_what_is_trained_from_it_is_on_trust() -> None:
    # What a network was trained on before it was given is not known: the held-out samples may have been among them.
    train, heldout = Data(torch.randn(40, 2), torch.arange(40) % 2, classes=2), None
    heldout = Data(torch.randn(30, 2), torch.arange(30) % 2, classes=2)
    model = mlp((2, 4, 2)).train()
    before = [value.clone() for value in model.parameters()]
    solver = Backprop(torch.optim.SGD, lr=0.1, epochs=1)
    for declared, word in ((False, "on trust"), (True, "declared")):
        found = certification(model, train, heldout, solver=solver, declared=declared)
        assert found.independence == word
        assert found.trained
        assert found.sentence.startswith("If the held-out samples were not used in training: its") is not declared
    assert not certification(model, train, heldout).trained
    assert model.training
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    fresh = certification(lambda: mlp((2, 4, 2)), train, heldout, solver=solver)
    assert fresh.independence == "by construction"
