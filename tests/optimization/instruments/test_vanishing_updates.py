import copy

import pytest
import torch
from problems import blobs, digits
from torch import nn

from whydeep.core import Curve, Data, Observation, Problem, Subject, Table, exact
from whydeep.networks import mlp
from whydeep.optimization import Backprop
from whydeep.optimization.instruments.vanishing_updates import answer, applies, instrument, run

SMALL = {"samples": 60, "hidden_layers": 7, "passes": 4}


def small(*widths):
    return mlp(widths or (3, 4, 3), init="he", generator=seeded())


def subject(network, *, start=None, train=None):
    return Subject(Problem(network, train or blobs()), Backprop(epochs=1), start=start)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tables(observation):
    return {exhibit.title: exhibit for exhibit in observation.exhibits if isinstance(exhibit, Table)}


def test_plain_gradients_vanish_from_the_default_start_only_and_admm_moves_every_layer():
    train, _ = digits(100)
    seen = run(subject(small(64, 4, 10), train=train), SMALL, seeded())
    # Eight layers, each passing on about 1/7 of the gradient's length: 7^-7 = 1e-6.
    assert seen["first over last: SGD, default start"].value < 1e-4
    assert seen["first over last: SGD, corrected start"].value > 1e-3
    assert seen["update of the first layer: ADMM, default start"].value > 0.1
    given = instrument.answer(seen)
    assert given.verdict == "vanish by SGD, not by ADMM"
    assert seen[given.headline].value == seen["update of the first layer: ADMM, default start"].value
    assert "8 layers" in given.sentence


def test_the_table_is_the_measurements_and_the_curves_have_every_layer():
    seen = run(subject(small()), SMALL, seeded())
    rows = tables(seen)["The first passes on the panel"].rows
    assert [row[:2] for row in rows] == [
        (solver, start) for start in ("default start", "corrected start") for solver in ("ADMM", "SGD", "Adam")
    ]
    for solver, start, first, _, ratio, left, _ in rows:
        name = f"{solver}, {start}"
        assert ratio == pytest.approx(seen[f"first over last: {name}"].value, rel=0.06)  # two digits
        assert first == pytest.approx(seen[f"update of the first layer: {name}"].value, rel=0.06)
        assert left == pytest.approx(100 * seen[f"unexplained: {name}"].value, abs=0.06)
    curves = [exhibit for exhibit in seen.exhibits if isinstance(exhibit, Curve)]
    assert [len(line.x) for curve in curves for line in curve.lines] == [8] * 6


def test_numbers_repeat_with_the_seed_and_the_network_is_left_alone():
    network = small()
    before = copy.deepcopy(network.state_dict())
    state = torch.random.get_rng_state()
    first, second = (run(subject(network), SMALL, seeded(3)).measurements for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_own_network_shows_its_saturation_and_its_updates():
    start = small()
    end = copy.deepcopy(start)
    with torch.no_grad():
        end[1].weight.mul_(1.5)
        end[1].bias.fill_(-1e3)  # every unit off
        end[3].weight.mul_(1.1)
    seen = run(subject(end, start=start), SMALL, seeded())
    assert seen["own network, most saturated layer"].value == 1
    assert seen["own network, least update over largest"].value == pytest.approx(0.1 / 0.5, rel=1e-5)
    assert tables(seen)["Updates of the network examined"].rows == (("1", 0.5), ("3", 0.1))
    names = [m.name for m in run(subject(end), SMALL, seeded()).measurements]
    assert "own network, least update over largest" not in names
    other = run(subject(end, start=small(3, 5, 3)), SMALL, seeded())  # weights of another network
    assert "Updates of the network examined" not in tables(other)


def test_it_runs_beside_any_network():
    train, _ = digits(60)
    convolutional = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(72, 10)
    )

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)

        def forward(self, x):
            rows = x.squeeze(1)
            return self.out(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))

    small = {"samples": 60, "hidden_layers": 2, "passes": 1}
    for network in (convolutional, Attention()):
        start = copy.deepcopy(network)
        seen = run(subject(network, start=start, train=train), small, seeded())
        assert seen["own network, least update over largest"].value == 0  # nothing has moved
        (row,) = tables(seen)["Saturation in the network examined"].rows
        assert row[0] == ("none seen" if isinstance(network, Attention) else "2")
        assert (row[2] == "not judged") == isinstance(network, Attention)


def test_regression_is_taken_and_the_best_constant_is_the_mean():
    x = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    train = Data(x, 3 + x[:, :1])
    problem = Problem(small(2, 3, 1).double(), train, loss="squared")
    seen = run(Subject(problem, Backprop(epochs=1)), {"samples": 50, "hidden_layers": 6, "passes": 10}, seeded())
    # Ten passes of SGD reach the mean, 3, but no unit that depends on x.
    assert seen["unexplained: SGD, default start"].value == pytest.approx(1, abs=0.1)


def test_where_it_does_not_apply():
    assert applies(subject(small())) is None
    assert "12 training samples" in applies(subject(small(3, 3), train=blobs(12)))
    flat = Data(torch.zeros(30, 3), torch.zeros(30))
    problem = Problem(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), flat, loss=lambda out, y: (out - y).square())
    assert "neither classes" in applies(Subject(problem, Backprop(epochs=1)))


@pytest.mark.parametrize(
    ("admm", "sgd", "verdict"),
    [
        (0.1, 1e-9, "vanish by SGD, not by ADMM"),
        (1e-4, 0.2, "vanish by ADMM, not by SGD"),
        (1e-4, 1e-4, "vanish by both"),
        (0.1, 2e-3, "vanish by neither"),
    ],
)
def test_the_verdict_follows_its_rule(admm, sgd, verdict):
    found = [exact("hidden layers of the panel", 10), exact("passes", 40)]
    for solver, value in (("ADMM", admm), ("SGD", sgd), ("Adam", 0.5)):
        for start in ("default start", "corrected start"):
            found.append(exact(f"update of the first layer: {solver}, {start}", value if start[0] == "d" else 1.0))
            found.append(exact(f"unexplained: {solver}, {start}", 0.25))
    given = answer(Observation(tuple(found)))
    assert given.verdict == verdict
    assert "11 layers" in given.sentence
    assert "25 % by ADMM" in given.sentence
