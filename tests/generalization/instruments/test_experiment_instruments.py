"""The instruments that retrain, or look at margins, features and gradients."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from problems import blobs
from torch import Tensor, nn

from whydeep.core import Answer, Data, Observation, Problem, Subject, exact, mean
from whydeep.core.instrument import Instrument
from whydeep.core.record import Section, plain
from whydeep.generalization.instruments import (
    double_descent,
    excess_risk,
    gap_by_samples,
    gradient_noise,
    margins,
    neural_collapse,
    overtraining,
    rademacher_average,
)
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop

MODULES = (
    double_descent,
    excess_risk,
    gap_by_samples,
    gradient_noise,
    margins,
    neural_collapse,
    overtraining,
    rademacher_average,
)
ALL = [module.instrument for module in MODULES]
FOR_ANY_TARGETS = [excess_risk.instrument, gradient_noise.instrument]
RETRAIN = [gap_by_samples.instrument, overtraining.instrument]
FRESH = [*RETRAIN, rademacher_average.instrument]
SMALL = {"samples": 120, "passes": 2, "draws": 1, "steps": 6, "seeds": 2, "halvings": 2, "doublings": 2}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(1, 8), nn.Linear(8, 3)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x[:, :, None])
        return self.out(self.attend(z, z, z, need_weights=False)[0].mean(1))


def convolutional() -> nn.Module:
    layers = (nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout())
    return nn.Sequential(nn.Unflatten(1, (1, 3)), *layers, nn.Flatten(), nn.Linear(12, 3))


def subject(make: object = None, **changes: object) -> Subject:
    make = make or (lambda: mlp((3, 10, 3)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start, trained = make(), make()
    problem = Problem(trained, blobs(120), blobs(60))
    case = Subject(problem, Backprop(epochs=1), make, start, None, "by construction")
    return replace(case, **changes)


def seen(instrument: Instrument, case: Subject) -> tuple[Observation, Answer]:
    budget = {name: min(value, SMALL[name]) for name, value in instrument.budgets["full"].items()}
    found = instrument.run(case, budget, torch.Generator().manual_seed(0))
    section = Section.of(instrument, found, command="", python="", seconds=0.0)
    json.dumps([plain(found.measurements), plain(found.exhibits), plain(found.findings)], allow_nan=False)
    return found, section.answer


@pytest.mark.parametrize("instrument", ALL, ids=lambda i: i.name)
@pytest.mark.parametrize("make", [None, Attention, convolutional], ids=["mlp", "attention", "cnn"])
def test_any_network_is_examined_and_left_as_it_was(instrument: Instrument, make: object) -> None:
    case = subject(make)
    before = [value.clone() for value in case.problem.model.state_dict().values()]
    modes = [module.training for module in case.problem.model.modules()]
    state = torch.random.get_rng_state()
    assert instrument.applies(case) is None
    found, answer = seen(instrument, case)
    assert answer.sentence.endswith(".")
    assert len(answer.sentence.split()) <= 42
    assert answer.headline in [m.name for m in found.measurements]
    after = case.problem.model.state_dict().values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert modes == [module.training for module in case.problem.model.modules()]
    assert all(value.grad is None for value in case.problem.model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("instrument", [i for i in ALL if i not in FOR_ANY_TARGETS], ids=lambda i: i.name)
def test_regression_is_not_applicable(instrument: Instrument) -> None:
    data = Data(torch.randn(100, 3), torch.randn(100, 2))
    reason = instrument.applies(subject(problem=Problem(mlp((3, 2)), data, data, loss="squared")))
    assert reason is not None
    assert "regression" in reason or "two classes" in reason


def test_gradients_of_a_regression_have_noise_too() -> None:
    data = Data(torch.randn(30, 3), torch.randn(30, 2))
    case = subject(problem=Problem(mlp((3, 2)), data, data, loss="squared"), start=None)
    assert gradient_noise.instrument.applies(case) is None
    assert seen(gradient_noise.instrument, case)[0]["directions of gradient noise"].value >= 1


def test_what_is_missing_is_named() -> None:
    for instrument in FRESH:
        assert "factory" in (instrument.applies(subject(factory=None)) or "")
    case = subject()
    untested = replace(case, problem=replace(case.problem, test=None))
    for instrument in (*RETRAIN, double_descent.instrument, margins.instrument):
        assert "no test samples" in (instrument.applies(untested) or "")
    ends = subject(lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    assert "no Linear layer" in (neural_collapse.instrument.applies(ends) or "")
    few = replace(case, problem=replace(case.problem, train=blobs(12)))
    assert "12 training samples" in (double_descent.instrument.applies(few) or "")
    assert "12 training samples" in (gap_by_samples.instrument.applies(few) or "")
    one = replace(case, problem=replace(case.problem, train=blobs(12).take(torch.tensor([0]))))
    assert "one training sample" in (gradient_noise.instrument.applies(one) or "")
    assert "one class" in (neural_collapse.instrument.applies(one) or "")


def test_a_collapsed_network_is_said_to_be() -> None:
    """One-hot samples and the identity: features are the class means and the rows."""
    model = nn.Sequential(nn.Linear(3, 3)).double()
    model[0].weight.data, model[0].bias.data = torch.eye(3).double(), torch.zeros(3).double()
    y = torch.arange(30) % 3
    data = Data(torch.eye(3, dtype=torch.float64)[y], y, classes=3)
    found, answer = seen(neural_collapse.instrument, subject(problem=Problem(model, data, data), start=None))
    assert [m.value for m in found.measurements] == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert answer.verdict == "collapsed"


def overtrained(test_loss: float, error: float) -> Answer:
    measurements = (
        exact("least test loss", 0.2),
        exact("test loss at the end", test_loss),
        exact("test error at the least test loss", 0.05),
        exact("test error at the end", error),
        exact("passes to the least test loss", 4),
        exact("passes", 64),
        exact("test samples", 400),
    )
    return overtraining.answer(Observation(measurements))


def test_overfitting_of_loss_and_error_are_told_apart() -> None:
    assert overtrained(0.21, 0.05).verdict == "no overfitting seen"
    assert overtrained(0.4, 0.06).verdict == "loss overfits, error does not"
    # 0.05 and 0.15 of 400: two standard errors of the difference are 0.042.
    assert overtrained(0.4, 0.15).verdict == "loss and error overfit"
    assert "rises from 0.2 to 0.4" in overtrained(0.4, 0.15).sentence


def test_the_peak_is_said_with_its_prediction() -> None:
    base = [
        exact("test error at the peak", 0.8),
        exact("test error, widest", 0.3),
        exact("test error, narrow side", 0.25),
        exact("test error at the peak, tuned ridge", 0.2),
        exact("peak", 150),
    ]
    answer = double_descent.answer(Observation((*base, exact("rank reaches the samples", 172))))
    assert answer.verdict == "double descent"
    assert "at width 150 (predicted by the rank: 172): 80 %, against 30 % for the widest and 20 %" in answer.sentence
    assert "no peak predicted" in double_descent.answer(Observation(tuple(base))).sentence
    base[0] = exact("test error at the peak", 0.3)
    assert double_descent.answer(Observation(tuple(base))).verdict == "no peak"


def test_a_negative_part_of_the_risk_is_explained() -> None:
    def parts(optimisation: float) -> Answer:
        values = {"excess risk at the best width": 0.3 + optimisation, "approximation": 0.1, "estimation": 0.2}
        values |= {"optimisation": optimisation, "best width": 80, "samples": 200}
        return excess_risk.answer(Observation(tuple(exact(name, value) for name, value in values.items())))

    assert "optimisation −0.067. Optimisation is negative: stopping early did better" in parts(-0.067).sentence
    assert "negative" not in parts(0.067).sentence
    assert parts(-0.067).verdict == "mostly estimation"


def test_margins_are_in_medians_of_the_training_samples() -> None:
    found, _ = seen(margins.instrument, subject())
    assert found["median margin, training"].value != 0
    assert 0 <= found["below half, test"].value <= 1
    same = replace(subject().problem, test=blobs(120))
    found, answer = seen(margins.instrument, subject(problem=same))
    assert found["below half, test"].value == pytest.approx(found["below half, training"].value, abs=0.05)
    assert answer.verdict == "margins carry over"


def test_the_gap_is_a_mean_over_seeds() -> None:
    found, answer = seen(gap_by_samples.instrument, subject())
    gap = found["gap at 120 samples"]
    assert gap.low <= gap.value <= gap.high
    assert "From 30 to 120 training samples" in answer.sentence
    fall = found["fall of the gap"]
    assert fall.value == pytest.approx(found["gap at 30 samples"].value - gap.value)
    (curve,) = found.exhibits
    # The band that is drawn is the interval that is printed.
    drawn = curve.lines[0]
    assert (drawn.low[-1], drawn.high[-1]) == pytest.approx((100 * gap.low, 100 * gap.high))
    assert "95 %" in drawn.label


def gaps(few: list[float], most: list[float], *exponents: float) -> Observation:
    falls = [one - other for one, other in zip(few, most, strict=True)]
    measurements = [
        exact("fewest", 20),
        exact("most", 80),
        exact("seeds", len(few)),
        mean("gap at 20 samples", few, unit="fraction difference"),
        mean("gap at 80 samples", most, unit="fraction difference"),
        mean("fall of the gap", falls, unit="fraction difference"),
    ]
    return Observation((*measurements, *([mean("exponent of the gap", exponents)] if exponents else [])))


def test_the_gap_is_judged_by_its_interval() -> None:
    # Falls of 7.9 and 0.7 points: 4.3 +- 12.7 * 3.6 points, which holds zero.
    unsure = gap_by_samples.answer(gaps([0.078, 0.042], [-0.001, 0.035], -0.9, -0.7))
    assert unsure.verdict == "fall not detectable"
    assert "2 seeds do not tell this fall of 4 points (−41 to 50) from none" in unsure.sentence
    assert "exponent" not in unsure.sentence
    # Falls of 4, 5 and 6 points: 5 +- 4.303 * 1 / sqrt(3).
    falls = gap_by_samples.answer(gaps([0.07, 0.08, 0.09], [0.03, 0.03, 0.03], -0.9, -0.8, -0.7))
    assert falls.verdict == "gap falls"
    assert "from 8.0 to 3.0 points, a fall of 5.0 points (2.5 to 7.5)" in falls.sentence
    assert "exponent in the number of samples is −0.80 (−1.05 to −0.55)" in falls.sentence
    grows = gap_by_samples.answer(gaps([0.03, 0.03, 0.03], [0.07, 0.08, 0.09]))
    assert grows.verdict == "gap grows"
    assert "a rise of 5.0 points (2.5 to 7.5)" in grows.sentence
    one = gap_by_samples.answer(gaps([0.07], [0.03]))
    assert one.verdict == "fall not detectable"
    assert "spread unknown" in one.sentence
