"""The examples run as they stand, and say what their first lines promise."""

import re
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def said(name, capsys):
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_question_has_an_example():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "approximation",
        "generalization",
        "optimization",
        "representation",
    }


def test_depth_makes_pieces_and_precision(capsys):
    text = said("approximation", capsys)
    assert "8 layers of 2 units: 256 linear pieces" in text
    for error, theory in re.findall(r"error (\S+), theory (\S+)", text):
        assert error == theory


@pytest.mark.slow
def test_an_attack_fools_where_noise_of_the_same_size_does_not(capsys):
    counts = re.findall(r"(\d+) of 360 under attack, (\d+) under random signs", said("representation", capsys))
    assert len(counts) == 3
    assert all(int(attacked) < int(chance) for attacked, chance in counts)


@pytest.mark.slow
def test_random_labels_take_longer_and_bounds_are_vacuous(capsys):
    text = said("generalization", capsys)
    true, random = map(int, re.search(r"labels in (\d+) passes and 500 random ones in (\d+)", text).groups())
    assert random > true
    assert text.count("vacuous") >= 6
    bounds = {name: float(value) for name, value in re.findall(r"(\w+) +Its error .* at most ([\d.]+) %", text)}
    assert bounds["binomial"] <= bounds["kl"] <= bounds["hoeffding"] < 20


@pytest.mark.slow
def test_alternating_training_leaves_the_start_where_adam_stalls(capsys):
    text = said("optimization", capsys)
    right = [float(value) for value in re.findall(r": ([\d.]+)% of the test", text)]
    stalled, alternating, corrected, also = right
    # Ten classes: guessing has some 10 % right.
    assert stalled < 20 < 70 < min(alternating, corrected, also)
