import copy

import pytest
import torch
from problems import blobs, digits
from torch import Tensor, nn

from whydeep.approximation.depth import Trial, matching_width
from whydeep.approximation.instruments import depth_pays, linear_pieces
from whydeep.core import Curve, Data, Observation, Problem, Subject, Table, exact
from whydeep.core.measurement import Measurement
from whydeep.networks import mlp
from whydeep.optimization import Backprop

SOLVER = Backprop(epochs=2)
SMALL = {"samples": 200, "passes": 3, "seeds": 2, "rates": 3, "test": 60, "billion multiplications": 10}


def subject(build, train: Data, test: Data | None, *, factory: bool = True, loss: str = "cross_entropy") -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
    return Subject(Problem(model, train, test, loss=loss), SOLVER, build if factory else None)


def run(instrument, examined: Subject, budget) -> Observation:
    assert instrument.applies(examined) is None
    return instrument.run(examined, budget, torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Each feature is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.read = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.unsqueeze(-1))
        return self.read(self.attend(tokens, tokens, tokens)[0].mean(1))


def row_names(seen: Observation) -> list[str]:
    table = next(e for e in seen.exhibits if isinstance(e, Table))
    return [str(row[0]) for row in table.rows]


def test_depth_pays_on_any_module_and_leaves_it_alone() -> None:
    examined = subject(Attention, blobs(120), blobs(60))
    before = copy.deepcopy(examined.problem.model.state_dict())
    seen = run(depth_pays.instrument, examined, SMALL)
    assert seen[depth_pays.PLAIN].value == 0
    names = ["given network", "one hidden layer", "two hidden layers", "sum of 3 ridge functions", "linear"]
    assert row_names(seen) == names
    assert all(torch.equal(value, before[name]) for name, value in examined.problem.model.state_dict().items())
    total = sum(p.numel() for p in examined.problem.model.parameters())
    table = next(e for e in seen.exhibits if isinstance(e, Table))
    width = matching_width(total, inputs=3, outputs=3, hidden=1)
    assert table.rows[1][1] == 7 * width + 3
    assert abs(7 * width + 3 - total) <= 7 / 2 + 1  # half a unit's parameters
    # The same seed gives the same numbers.
    again = run(depth_pays.instrument, examined, SMALL)
    assert [m.value for m in again.measurements] == [m.value for m in seen.measurements]


def test_the_same_architecture_is_not_trained_twice() -> None:
    deep = run(depth_pays.instrument, subject(lambda: mlp((3, 6, 6, 3)), blobs(120), blobs(60)), SMALL)
    assert row_names(deep)[:2] == ["given network (two hidden layers)", "one hidden layer"]
    assert deep[depth_pays.GIVEN_GAIN].unit == "fraction difference"
    shallow = run(depth_pays.instrument, subject(lambda: mlp((3, 9, 3)), blobs(120), blobs(60)), SMALL)
    assert row_names(shallow)[:2] == ["given network (one hidden layer)", "two hidden layers"]
    assert depth_pays.answer(shallow).headline == depth_pays.SECOND_GAIN


def test_an_instance_is_shown_as_it_came() -> None:
    seen = run(depth_pays.instrument, subject(Attention, blobs(120), blobs(60), factory=False), SMALL)
    assert row_names(seen)[:3] == ["given network, as it came", "one hidden layer", "two hidden layers"]
    assert depth_pays.answer(seen).headline == depth_pays.SECOND_GAIN


def test_regression_compares_losses() -> None:
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    data = Data(x, x[:, :1] * x[:, 1:])
    examined = subject(lambda: mlp((2, 5, 5, 5, 1), activation="tanh"), data, data, loss="squared")
    seen = run(depth_pays.instrument, examined, SMALL)
    assert seen[depth_pays.GIVEN_GAIN].unit == "loss"
    assert seen[depth_pays.PLAIN].value == 1
    assert "in loss" in depth_pays.answer(seen).sentence


def test_an_untrainable_deep_network_is_found_worse() -> None:
    # Ten sigmoid layers from PyTorch's own start stall at chance; one hidden layer separates the blobs.
    examined = subject(lambda: mlp((3, *[6] * 10, 3), activation="sigmoid"), blobs(300), blobs(120))
    seen = run(depth_pays.instrument, examined, SMALL | {"passes": 20})
    answer = depth_pays.answer(seen)
    assert answer.verdict == "shallow is better"
    assert "training is at fault" in answer.sentence


@pytest.mark.parametrize(
    ("low", "value", "high", "plain", "verdict"),
    [
        (0.01, 0.02, 0.03, 1, "depth pays"),
        (0.01, 0.02, 0.03, 0, "depth or architecture pays"),
        (-0.01, 0.02, 0.05, 1, "depth pays: not detectably"),
        (-0.03, -0.02, -0.01, 0, "shallow is better"),
    ],
)
def test_the_rule_follows_the_interval(low: float, value: float, high: float, plain: int, verdict: str) -> None:
    name = depth_pays.GIVEN_GAIN
    seen = Observation(
        (
            Measurement(name, value, low, high, unit="fraction"),
            exact(f"detectable difference, {name}", high - value),
            exact(f"training error, {name}", 0.0),
            exact("training error, shallow", 0.0),
            exact(depth_pays.PLAIN, plain),
            exact("seeds", 3),
            exact("test samples", 360),
        )
    )
    answer = depth_pays.answer(seen)
    assert answer.verdict == verdict
    assert "2.0 points" in answer.sentence
    assert ("more" if value > 0 else "less") in answer.sentence


@pytest.mark.parametrize(("unit", "scale"), [("fraction difference", 0.01), ("loss", 1.0)])
def test_a_difference_just_beyond_what_can_be_told_apart_does_not_read_like_a_tie(unit: str, scale: float) -> None:
    more, limit = depth_pays._points(0.90004 * scale, 0.9 * scale, unit)
    assert more.split()[0] == "0.90004"
    assert limit.split()[0] == "0.90000"
    assert depth_pays._points(0.5 * scale, 0.9 * scale, unit)[0].split()[0] == "0.50"


def test_networks_are_points_that_no_line_joins() -> None:
    trials = tuple(
        Trial(name, 10, "", train=torch.zeros(2), test=torch.ones(2, 3), trainings=1) for name in ("one", "another")
    )
    tests = [Measurement("test", 1.0, 0.9, 1.0, unit="fraction")] * 2
    curve = depth_pays._curve(trials, tests, "fraction")
    assert {str(line.get_linestyle()) for line in curve.plot().get_lines()} == {"None"}


def test_depth_pays_says_when_it_does_not_apply() -> None:
    assert "test data" in str(depth_pays.applies(subject(Attention, blobs(120), None)))
    assert "40" in str(depth_pays.applies(subject(Attention, blobs(20), blobs(20))))


def test_large_networks_see_fewer_samples() -> None:
    wide = subject(lambda: mlp((3, 3000, 1000, 3)), blobs(600), blobs(60))
    assert depth_pays._affordable(wide.problem, SMALL | {"samples": 600}, trainings=6) == 400  # never below 10 x 40
    narrow = subject(lambda: mlp((3, 5, 3)), blobs(600), blobs(60))
    assert depth_pays._affordable(narrow.problem, SMALL | {"samples": 600}, trainings=6) == 600


def test_linear_pieces_of_one_layer_and_of_a_trained_network() -> None:
    train, test = digits()
    examined = subject(lambda: mlp((64, 20, 20, 10)), train, test)
    seen = run(linear_pieces.instrument, examined, {"segments": 20, "passes": 20_000})
    assert seen["units that switch"].value == 40
    assert 1 < seen["linear pieces a segment"].value < 21**2
    assert seen["largest possible, decimal logarithm"].value == pytest.approx(2 * torch.log10(torch.tensor(21.0)))
    assert "linear pieces a segment, untrained" in [m.name for m in seen.measurements]
    curve = next(e for e in seen.exhibits if isinstance(e, Curve))
    assert [line.label for line in curve.lines] == ["trained", "untrained", "one a unit"]
    assert linear_pieces.answer(seen).verdict in linear_pieces.instrument.rule
    assert linear_pieces.answer(seen).headline == "linear pieces a segment"


def test_linear_pieces_can_find_more_pieces_than_units() -> None:
    seen = Observation(
        (
            Measurement("linear pieces a segment", 500, 450, 550),
            exact("units that switch", 40),
            exact("largest possible, decimal logarithm", 9.0),
        )
    )
    assert linear_pieces.answer(seen).verdict == "more pieces than units"
    assert "10^9" in linear_pieces.answer(seen).sentence
    # 500 +- 50: the tens are known, the ones are not. 127 +- 45 is 130.
    assert linear_pieces._rounded(Measurement("pieces", 127, 82, 172)) == "130"


def test_linear_pieces_says_when_it_does_not_apply() -> None:
    assert "Attention" in str(linear_pieces.applies(subject(Attention, blobs(60), blobs(20))))
    smooth = subject(lambda: mlp((3, 4, 3), activation="tanh"), blobs(60), blobs(20))
    assert "Tanh" in str(linear_pieces.applies(smooth))
    assert "affine" in str(linear_pieces.applies(subject(lambda: mlp((3, 3)), blobs(60), blobs(20))))
    few = subject(lambda: mlp((3, 4, 3)), blobs(60), blobs(3))
    assert "3 samples" in str(linear_pieces.applies(few))
