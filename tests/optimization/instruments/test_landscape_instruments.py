"""Curvature, the straight path and the flow of gradients: what they say, and of which networks."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from problems import blobs, digits
from torch import Tensor, nn

from whydeep.core import Data, InputError, Instrument, Measurement, Observation, Problem, Subject, Verdict, exact
from whydeep.core.record import plain
from whydeep.networks import cnn, linear, mlp
from whydeep.optimization.backprop import Backprop
from whydeep.optimization.instruments import curvature, gradient_flow, loss_surface, straight_path

INSTRUMENTS = [curvature.instrument, loss_surface.instrument, straight_path.instrument, gradient_flow.instrument]
SOLVER = Backprop(torch.optim.Adam, lr=5e-3, epochs=4)
SMALL = {
    "curvature": {"samples": 100, "steps": 6, "probes": 4, "directions": 2, "layers": 2},
    "loss_surface": {"samples": 60, "directions": 3, "points": 4, "map": 2, "curved": 20},
    "straight_path": {"solutions": 1, "samples": 100, "retraining": 1000, "refinements": 1, "bending": 20},
    "gradient_flow": {"samples": 50, "networks": 3},
}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x.squeeze(1)).mean(1))


def trained(make: Callable[[], nn.Module], train: Data, test: Data | None = None, solver: Backprop = SOLVER) -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = make()
    loss = "squared" if train.classes is None else "cross_entropy"
    problem = Problem(start, train, test, loss)
    training = solver.train(problem)
    return Subject(problem.with_model(training.model), solver, make, start, training)


def given(subject: Subject) -> Subject:
    """The same weights, as if they came without a history and without a factory."""
    return Subject(subject.problem, subject.solver)


def observe(instrument: Instrument, subject: Subject) -> Observation:
    assert instrument.applies(subject) is None
    return instrument.run(subject, SMALL[instrument.name], torch.Generator().manual_seed(0))


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
@pytest.mark.parametrize(
    "make",
    [
        lambda: mlp((64, 12, 10)),
        lambda: cnn((1, 8, 8), 10, channels=(4, 4), batch_norm=True),
        Attention,
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Dropout(0.5), nn.ReLU(True), nn.Linear(9, 10)),
    ],
    ids=["mlp", "batch norm", "attention", "dropout"],
)
def test_any_classifier_is_examined_and_left_alone(instrument: Instrument, make: Callable[[], nn.Module]) -> None:
    subject = trained(make, *digits(120))
    before = {name: value.clone() for name, value in subject.problem.model.state_dict().items()}
    state = torch.get_rng_state()
    seen = observe(instrument, subject)
    answer = instrument.answer(seen)
    assert seen[answer.headline]
    assert len(answer.sentence.split()) <= 45
    json.dumps(plain(seen))
    again = observe(instrument, subject)
    assert [m.value for m in again.measurements] == [m.value for m in seen.measurements]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[name]) for name, v in subject.problem.model.state_dict().items())
    assert all(value.grad is None for value in subject.problem.model.parameters())


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
def test_regression_without_test_data_is_examined(instrument: Instrument) -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    subject = trained(lambda: mlp((3, 8, 1), activation="tanh"), Data(x, x.sum(1, keepdim=True)))
    assert instrument.answer(observe(instrument, subject)).verdict


def test_what_is_missing_is_said() -> None:
    subject = given(trained(lambda: mlp((3, 5, 3)), blobs()))
    assert "factory" in (straight_path.instrument.applies(subject) or "")
    assert curvature.instrument.applies(subject) is None
    flow = gradient_flow.instrument
    assert flow.answer(observe(flow, subject)).headline == "gradient ratio at the end"
    shallow = trained(lambda: linear(3, 3), blobs())
    assert "needs two" in (flow.applies(shallow) or "")
    frozen = Subject(subject.problem.with_model(subject.problem.copy().requires_grad_(False)), SOLVER)
    assert curvature.instrument.applies(frozen) == "no parameter of the network is trainable"


def test_the_cost_of_a_step_is_that_of_the_quadratic_on_a_linear_model() -> None:
    # Squared loss and a linear model: the risk is its quadratic, exactly. Cost = slope * s + lambda s^2 / 2.
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(linear(2, 1).double(), Data(x, x.sum(1, keepdim=True)), loss="squared")
    problem = problem.at(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))  # the solution, of length sqrt(2)
    seen = observe(curvature.instrument, Subject(problem, SOLVER))
    moment = torch.cat([x, torch.ones(50, 1).double()], 1)
    largest = float(torch.linalg.eigvalsh(moment.T @ moment / 50)[-1])
    assert seen["largest curvature"].value == pytest.approx(largest, rel=1e-6)
    assert seen["rise along the sharpest direction"].value == pytest.approx(largest * (0.01 * 2**0.5) ** 2 / 2)
    learned = 0.5 * float((x.sum(1) - x.sum(1).mean()).square().mean())
    assert seen["learned risk"].value == pytest.approx(learned)
    assert curvature.instrument.answer(seen).verdict == "not sharp"


def curved(low: float, high: float, *, removed: float = 2.0, smallest: float = 0.0) -> Observation:
    value = (low + high) / 2
    return Observation(
        (
            exact("largest curvature", 40.0),
            exact("smallest curvature", smallest),
            exact("learned risk", removed),
            exact("risk", 0.1),
            Measurement("cost of a 1 % step", value, low, high, unit="fraction"),
        )
    )


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (curved(0.01, 0.1), "not sharp"),
        (curved(0.11, 0.2), "sharp"),
        (curved(0.05, 0.2), "borderline"),
        (curved(0.01, 0.1, removed=1e-4), "nothing learned"),
    ],
)
def test_the_rule_of_sharpness(seen: Observation, verdict: str) -> None:
    assert curvature.instrument.answer(seen).verdict == verdict


def test_the_layers_of_the_table_add_up_to_the_trace_and_the_rest_is_counted() -> None:
    subject = given(trained(lambda: mlp((64, 9, 8, 10), activation="tanh"), digits(100)[0]))
    seen = observe(curvature.instrument, subject)
    (layers,) = [e for e in seen.exhibits if getattr(e, "title", "") == "Curvature layer by layer"]
    assert [row[0] for row in layers.rows] == ["1", "3"]
    assert "1 further layers" in layers.note
    budget = SMALL["curvature"] | {"steps": 60, "probes": 60, "layers": 9}
    whole = curvature.instrument.run(subject, budget, torch.Generator().manual_seed(0))
    (layers,) = [e for e in whole.exhibits if getattr(e, "title", "") == "Curvature layer by layer"]
    error = sum(row[5] ** 2 for row in layers.rows) ** 0.5 + (whole["trace"].high - whole["trace"].value) / 2
    # Four standard errors of the difference of two independent estimates, each of a few percent.
    assert sum(row[4] for row in layers.rows) == pytest.approx(whole["trace"].value, abs=4 * error)


def valley(low: float, high: float, *, removed: float = 2.0) -> Observation:
    width = Measurement("half-width of the valley", (low + high) / 2, low, high, unit="fraction")
    curved = exact("downward over upward curvature", 0.05)
    return Observation((exact("learned risk", removed), exact("risk", 0.1), width, curved))


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (valley(0.2, 0.4), "a wide valley"),
        (valley(0.05, 0.4), "a valley of moderate width"),
        (valley(0.001, 0.004), "a narrow valley"),
        (valley(0.2, 0.4, removed=1e-4), "nothing learned"),
    ],
)
def test_the_rule_of_the_valley(seen: Observation, verdict: str) -> None:
    assert loss_surface.instrument.answer(seen).verdict == verdict


def test_the_valley_of_a_quadratic_has_the_width_of_its_formula() -> None:
    # One weight w at the solution w = 1 of y = x: R = (w - 1)^2 mean x^2 / 2, and a filter direction is +-1.
    # Learned is 1/2 of the variance of x; a tenth of it is lost at |w - 1| = sqrt(var x / (10 mean x^2)).
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    problem = Problem(model, Data(x, x.clone()), loss="squared").at(torch.ones(1, dtype=torch.float64))
    seen = observe(loss_surface.instrument, Subject(problem, SOLVER))
    expected = float((x.var(unbiased=False) / (10 * x.square().mean())).sqrt())
    # Positions lie 8 % apart there; a straight line between two points of a parabola errs by less than 1 %.
    assert seen["half-width of the valley"].value == pytest.approx(expected, rel=0.01)
    assert seen["downward over upward curvature"].value == 0


def test_networks_without_filters_have_no_surface() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3))
    problem = Problem(model, Data(torch.rand(5, 3), torch.rand(5, 3)), loss="squared")
    assert "no trainable weight has filters" in (loss_surface.instrument.applies(Subject(problem, SOLVER)) or "")


def test_a_way_down_is_said_only_where_there_is_one() -> None:
    assert (
        "no strict minimum: the smallest curvature is −3"
        in curvature.instrument.answer(curved(0.01, 0.1, smallest=-3.0)).sentence
    )
    assert "strict" not in curvature.instrument.answer(curved(0.01, 0.1, smallest=-0.3)).sentence


def test_a_convex_problem_is_connected_by_a_line_and_digits_are_not() -> None:
    path = straight_path.instrument
    solver = Backprop(torch.optim.Adam, lr=0.1, epochs=30)
    convex = trained(lambda: linear(3, 3), blobs(), blobs(30), solver)
    answer = path.answer(observe(path, convex))
    assert answer.verdict == "connected by a line"
    # Two networks of 30 units learn the digits by units in another order: the average of their weights has neither's.
    solver = Backprop(torch.optim.Adam, lr=5e-3, epochs=15)
    seen = observe(path, trained(lambda: mlp((64, 30, 10)), *digits(400), solver))
    crossed = path.answer(seen)
    assert "crosses a barrier" in crossed.sentence
    assert crossed.verdict.startswith("a barrier of")
    line = seen["barrier on training data"]
    assert seen["barrier with matched units on training data"].high < 0.5 * line.low
    assert seen["barrier of a bent path on training data"].high < 0.5 * line.low


def paths_seen(line: float, matched: float | None, bent: float) -> Observation:
    values = {
        "barrier on training data": line,
        "barrier with matched units on training data": matched,
        "barrier of a bent path on training data": bent,
    }
    barriers = tuple(
        Measurement(name, value, 0.9 * value, 1.1 * value) for name, value in values.items() if value is not None
    )
    return Observation((*barriers, exact("learned risk", 2.0), exact("risk", 0.1)))


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (paths_seen(0.03, 0.5, 0.5), "connected by a line", "joined by a straight line"),
        (paths_seen(0.5, 0.03, 0.5), "connected once matched", "with their units matched it is 0.03"),
        (paths_seen(0.5, 0.1, 0.01), "connected by a bent path", "on a bent path 0.01"),
        (paths_seen(0.5, None, 0.01), "connected by a bent path", "; on a bent path it is 0.01"),
        (paths_seen(0.5, 0.1, 0.1), "a barrier of 0.5", "25 % of what was learned"),
        (paths_seen(0.04, 0.1, 0.1), "a barrier within the error", "crosses a barrier of 0.04"),
    ],
)
def test_the_rule_of_paths(seen: Observation, verdict: str, words: str) -> None:
    answer = straight_path.instrument.answer(seen)
    assert answer.verdict == verdict
    assert words in answer.sentence
    assert len(answer.sentence.split()) <= 45


def test_several_solutions_give_an_interval_over_pairs() -> None:
    path = straight_path.instrument
    budget = SMALL["straight_path"] | {"solutions": 3}
    seen = path.run(trained(lambda: mlp((3, 5, 3)), blobs()), budget, torch.Generator().manual_seed(0))
    assert seen["barrier on training data"].method == "Student, 3 pairs of solutions"


def test_a_second_training_that_diverges_is_a_fault_with_its_reason() -> None:
    subject = trained(lambda: mlp((3, 5, 3)), blobs())
    wild = Subject(subject.problem, Backprop(torch.optim.SGD, lr=1e30, epochs=3), subject.factory)
    with pytest.raises(InputError, match="the second training diverged"):
        observe(straight_path.instrument, wild)


@pytest.mark.parametrize(
    ("activation", "init", "gain", "verdict"),
    [
        ("sigmoid", "default", 1.0, "gradients vanish"),
        ("sigmoid", "xavier", 4.0, "gradients fade"),  # right at zero, but pre-activations lie around it
        ("tanh", "xavier", 1.0, "gradients flow"),
        ("identity", "he", 3.0, "gradients explode"),
    ],
)
def test_the_start_of_deep_networks(activation: str, init: str, gain: float, verdict: str) -> None:
    def make() -> nn.Module:
        return mlp((64, *(100,) * 8, 10), activation=activation, init=init, gain=gain)

    train, _ = digits(60)
    subject = Subject(Problem(mlp((64, *(100,) * 8, 10)), train), SOLVER, make)
    seen = observe(gradient_flow.instrument, subject)
    assert gradient_flow.instrument.answer(seen).verdict == verdict
    (finding,) = seen.findings
    # Three networks leave a wide interval: the theory may stay undecided, but must not be contradicted.
    assert finding.verdict in (Verdict.HOLDS, Verdict.INCONCLUSIVE)
    assert finding.measured.value == pytest.approx(finding.predicted.value, rel=0.1)


def test_narrow_networks_are_outside_the_mean_field() -> None:
    seen = observe(gradient_flow.instrument, trained(lambda: mlp((3, 5, 3)), blobs()))
    assert seen.findings[0].verdict is Verdict.INAPPLICABLE
