import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, Observation, Problem, Subject, Table, exact
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.alternating.proximal import target_rows
from whydeep.optimization.instruments.admm_beside_adam import answer, applies, instrument, run

SMALL = {"samples": 40, "hidden_layers": 2, "sweeps": 4, "epochs": 5, "pilot_epochs": 1}


def subject(network, *, factory=True, loss="cross_entropy", test=True):
    problem = Problem(network, blobs(), blobs(30) if test else None, loss=loss)
    return Subject(problem, Backprop(epochs=1), factory=(lambda: network) if factory else None)


def tables(observation):
    return [exhibit for exhibit in observation.exhibits if isinstance(exhibit, Table)]


def test_its_numbers_follow_from_its_runs_and_repeat_with_the_seed():
    network = mlp((3, 4, 3), activation="tanh")
    first, second = (run(subject(network), SMALL, torch.Generator().manual_seed(0)) for _ in range(2))
    for one, other in zip(first.measurements, second.measurements, strict=True):
        assert one.name == other.name
        if one.name.startswith(("test error", "own network, test error")):
            assert one == other  # what depends on seconds may differ
    panel, own = tables(first)
    assert [row[3] for row in panel.rows] == [4, 5, 4, 5]  # passes
    assert [row[:2] for row in own.rows] == [row[:2] for row in panel.rows]
    for start in ("default start", "corrected start"):
        seconds = [row[4] for row in panel.rows if row[1] == start]
        # The table rounds to hundredths.
        assert first[f"equal seconds, {start}"].value == pytest.approx(min(seconds), abs=0.006)
    assert first["error of guessing"].value == pytest.approx(1 - 1 / 3, abs=0.2)
    given = instrument.answer(first)
    assert first[given.headline].value == min(
        first[f"test error: ADMM, {start}"].value for start in ("default start", "corrected start")
    )


def test_the_network_itself_is_left_alone():
    network = mlp((3, 4, 3), activation="sigmoid")
    before = [p.detach().clone() for p in network.parameters()]
    run(subject(network), SMALL, torch.Generator().manual_seed(0))
    assert all(torch.equal(p, value) for p, value in zip(network.parameters(), before, strict=True))


def absolute(output, target):
    return (output - target_rows(target, 3).to(output)).abs().sum(1)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_the_own_network_is_trained_where_it_is_a_chain(activation):
    observation = run(subject(mlp((3, 4, 3), activation=activation)), SMALL, torch.Generator().manual_seed(0))
    panel, own = tables(observation)
    assert panel.note == ""
    assert own.title == "Both solvers on the network examined"
    assert observation["own network, test error: ADMM, corrected start"].value <= 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda: subject(mlp((3, 4, 3), activation="tanh"), factory=False), "no fresh start"),
        (lambda: subject(mlp((3, 4, 3), activation="tanh"), loss=absolute), "absolute"),
        (lambda: subject(mlp((3, 4, 3), activation="silu")), "no corrected start is known for silu"),
        (lambda: subject(nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 3))), "GELU"),
    ],
)
def test_why_the_own_network_is_not_trained_is_said(given, reason):
    observation = run(given(), SMALL, torch.Generator().manual_seed(0))
    (panel,) = tables(observation)
    assert panel.note.startswith("Not repeated on the network examined")
    assert reason in panel.note


def test_where_it_does_not_apply():
    assert applies(subject(mlp((3, 4, 3)))) is None
    assert applies(subject(mlp((3, 4, 3)), test=False)) == "there is no test set"
    x = torch.zeros(30, 3)
    regression = Problem(mlp((3, 1)), Data(x, x[:, :1]), Data(x, x[:, :1]), loss="squared")
    assert applies(Subject(regression, Backprop(epochs=1))) == "the targets are no classes"
    few = Problem(mlp((3, 3)), blobs(12), blobs())
    assert "12 training samples" in applies(Subject(few, Backprop(epochs=1)))


def observed(admm, adam):
    """Errors from the default start and from the corrected one, for each solver."""
    found = [exact("hidden layers of the panel", 10), exact("error of guessing", 0.9)]
    for solver, pair in (("ADMM", admm), ("Adam", adam)):
        for start, value in zip(("default start", "corrected start"), pair, strict=True):
            found.append(exact(f"training error at equal seconds: {solver}, {start}", value))
            found.append(exact(f"test error: {solver}, {start}", value))
    return Observation(tuple(found))


@pytest.mark.parametrize(
    ("admm", "adam", "verdict"),
    [
        ((0.061, 0.05), (0.89, 0.04), "ADMM and Adam level"),
        ((0.061, 0.05), (0.89, 0.01), "Adam ahead of ADMM"),
        ((0.061, 0.30), (0.89, 0.20), "ADMM ahead of Adam"),
    ],
)
def test_the_verdict_takes_the_better_start_of_each(admm, adam, verdict):
    given = answer(observed(admm, adam))
    assert given.verdict == verdict
    best = "default" if admm[0] < admm[1] else "corrected"
    assert given.headline == f"test error: ADMM, {best} start"
    assert "ADMM 6.1 %, Adam 89 % (chance) from the default start" in given.sentence
