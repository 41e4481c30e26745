import copy
import math

import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Data, Observation, Problem, Subject, Table, exact
from whydeep.core.verdict import Verdict
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.instruments.alternating_conditions import answer, applies, instrument, run

SMALL = {"samples": 30, "rungs": 3, "sweeps": 120}


def network():
    return mlp((3, 4, 3), init="he", generator=torch.Generator().manual_seed(0))


def subject(model, *, start=None, train=None, loss="cross_entropy"):
    return Subject(Problem(model, train or blobs(), loss=loss), Backprop(epochs=1), start=start)


def tables(observation):
    return {exhibit.title: exhibit for exhibit in observation.exhibits if isinstance(exhibit, Table)}


@pytest.fixture(scope="module")
def seen():
    return run(subject(network()), SMALL, torch.Generator().manual_seed(0))


def test_the_compliant_run_reaches_a_kkt_point_and_the_guarantee_is_vacuous(seen):
    assert seen["compliant, KKT residual"].value < 1e-6
    assert abs(seen["compliant, explained"].value) < 1e-3
    assert seen["useful, explained"].value > 0.5
    assert seen["conditions that useful parameters meet"].value == 0
    assert instrument.answer(seen).verdict == "guarantee vacuous"
    (finding,) = seen.findings
    assert finding.verdict is Verdict.VACUOUS
    assert finding.measured.value <= finding.predicted.constants["at most"]


def test_the_tables_tell_every_condition_and_every_rung(seen):
    found = tables(seen)
    assert len(found["The lecture's conditions"].rows) == 6
    for _, _, value, threshold, ratio in found["The lecture's conditions"].rows:
        assert ratio == pytest.approx(value / threshold, rel=0.06)  # two digits
    price = found["The price of compliance"].rows
    assert [row[0] for row in price] == [0, 0.5, 1]
    ridges = [row[2] for row in price]
    assert ridges[1] == pytest.approx(math.sqrt(ridges[0] * ridges[2]), rel=0.01)
    assert price[0][5] == pytest.approx(100 * seen["useful, explained"].value, rel=0.01)
    assert len(found["KKT residual by layer"].rows) == 3


def test_the_own_network_has_the_gradient_of_its_risk_by_layer():
    start, end = network(), network()
    with torch.no_grad():
        end[1].weight.mul_(2)
    seen = run(subject(end, start=start), {"samples": 60, "rungs": 2, "sweeps": 1}, torch.Generator().manual_seed(0))
    # All 60 samples, in another order: the gradient of the mean in float32.
    gradient = Problem(end, blobs()).gradient()
    assert seen["own network, KKT residual a sample"].value == pytest.approx(float(gradient.norm()), rel=1e-4)
    table = tables(seen)["KKT residual of the network examined"]
    first = torch.cat([part.reshape(-1) for part in torch.split(gradient, [12, 4, 12, 3])[:2]])
    assert table.rows[0][1] == pytest.approx(float(first.norm()), rel=0.06)  # two digits
    assert "relu" in table.note
    assert all(row[2] is not None for row in table.rows)


def test_a_network_that_is_no_chain_gets_the_panel_only():
    train, _ = digits(40)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    before = copy.deepcopy(model.state_dict())
    observation = run(subject(model, train=train), {"samples": 30, "rungs": 2, "sweeps": 1}, torch.Generator())
    assert "KKT residual of the network examined" not in tables(observation)
    assert "The price of compliance" in tables(observation)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert instrument.answer(observation).verdict == "guarantee not reached"  # after one sweep


def test_regression_is_taken_and_numbers_repeat():
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = subject(mlp((2, 3, 1)).double(), train=Data(x, x[:, :1] * x[:, 1:]), loss="squared")
    small = {"samples": 40, "rungs": 2, "sweeps": 5}
    first, second = (run(given, small, torch.Generator().manual_seed(2)).measurements for _ in range(2))
    assert first == second


def test_where_it_does_not_apply():
    assert applies(subject(network())) is None
    assert "12 training samples" in applies(subject(mlp((3, 3)), train=blobs(12)))
    flat = Data(torch.zeros(30, 3), torch.zeros(30))
    problem = Problem(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), flat, loss=lambda out, y: (out - y).square())
    assert "neither classes" in applies(Subject(problem, Backprop(epochs=1)))


@pytest.mark.parametrize(
    ("residual", "share", "verdict", "words"),
    [
        (1e-9, 1e-10, "guarantee vacuous", "explain nothing"),
        (1e-9, 0.4, "guarantee of use", "explain 40 %"),
        (1e-3, 0.4, "guarantee not reached", "0.001"),
    ],
)
def test_the_verdict_follows_its_rule(residual, share, verdict, words):
    found = [exact("conditions that useful parameters meet", 2), exact("conditions", 6)]
    for name, values in (("compliant", (residual, share)), ("useful", (0.02, 0.93))):
        found += [exact(f"{name}, KKT residual", values[0]), exact(f"{name}, explained", values[1])]
    given = answer(Observation(tuple(found)))
    assert given.verdict == verdict
    assert words in given.sentence
    assert "2 of the theorem's 6" in given.sentence
