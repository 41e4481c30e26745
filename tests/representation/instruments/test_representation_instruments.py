from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import blobs, digits
from torch import Tensor, nn

from whydeep.core import Curve, Data, Image, Observation, Problem, Subject, exact, proportion
from whydeep.core.record import Section
from whydeep.networks import mlp
from whydeep.networks.cnn import cnn
from whydeep.optimization.backprop import Backprop
from whydeep.representation.instruments import adversarial_stability, first_layer_filters, linear_probe

INSTRUMENTS = [module.instrument for module in (adversarial_stability, first_layer_filters, linear_probe)]
SMALL = {
    "adversarial_stability": {"samples": 60, "steps": 5, "restarts": 2, "halvings": 2, "pictures": 2},
    "first_layer_filters": {"filters": 20, "permutations": 99, "tiles": 4},
    "linear_probe": {"samples": 200, "tested": 100, "layers": 6, "width": 100},
}


class Transformer(nn.Module):
    """Rows of an image as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.flatten(1, 2))).mean(1))


class Rounded(nn.Module):
    """Rounds its input to 0 or 1: right on black and white images, and without any gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.round()


def trained(model: nn.Module, *, epochs: int = 10) -> Subject:
    train, test = digits(500)
    solver = Backprop(lr=3e-3, epochs=epochs)
    problem = Problem(model, train, test)
    return Subject(problem.with_model(solver.train(problem).model), solver, start=model)


def network() -> nn.Module:
    return mlp((64, 32, 10), init="he", generator=torch.Generator().manual_seed(0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_every_instrument_runs_on_networks_of_other_kinds(kind: str) -> None:
    torch.manual_seed(0)
    model = cnn((1, 8, 8), 10, channels=(8,), batch_norm=True) if kind == "cnn" else Transformer()
    subject = trained(model, epochs=3)
    subject.problem.model.train()
    before = [p.clone() for p in subject.problem.model.state_dict().values()]
    for instrument in INSTRUMENTS:
        if instrument.applies(subject) is not None:
            assert (instrument.name, kind) == ("first_layer_filters", "transformer")  # its first layer sees one row
            continue
        seen = instrument.run(subject, SMALL[instrument.name], generator())
        section = Section.of(instrument, seen, command="", python="", seconds=0.0)
        assert seen[section.answer.headline].value >= 0
        assert len(section.answer.sentence.split()) < 45
        assert all(len(e.alt.split()) > 8 for e in seen.exhibits if isinstance(e, Curve | Image))
    assert all(module.training for module in subject.problem.model.modules())
    after = subject.problem.model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_each_instrument_says_why_not() -> None:
    subject = trained(network(), epochs=1)
    attack, filters, probe = INSTRUMENTS
    problem = subject.problem
    assert all(instrument.applies(subject) is None for instrument in INSTRUMENTS)
    blind = replace(subject, problem=replace(problem, test=None))
    assert "no test data" in str(attack.applies(blind))
    assert "no test data" in str(probe.applies(blind))
    assert problem.test is not None
    free = replace(subject, problem=replace(problem, test=replace(problem.test, bounds=None)))
    assert "pass --bounds LOW HIGH" in str(attack.applies(free))
    off = replace(subject, problem=replace(problem, test=replace(problem.test, bounds=(0.5, 0.6))))
    assert "outside the bounds" in str(attack.applies(off))
    x = torch.randn(9, 2, generator=generator())
    data = Data(x, x[:, :1], "line")
    regression = Subject(Problem(nn.Linear(2, 1), data, data, loss="squared"), subject.solver)
    assert "classes" in str(attack.applies(regression))
    assert "classes" in str(probe.applies(regression))
    assert "no images" in str(filters.applies(regression))


def test_hidden_gradients_are_called_a_failed_attack() -> None:
    """Rounding to black and white: the network still reads most digits, but its gradient is zero everywhere."""
    base = trained(nn.Sequential(Rounded(), *network()))
    sound = adversarial_stability.run(trained(network()), SMALL["adversarial_stability"], generator())
    assert adversarial_stability.answer(sound).verdict in {"fragile", "sensitive"}
    # One start only, from the sample itself: random starts would find errors without any gradient.
    masked = adversarial_stability.run(base, SMALL["adversarial_stability"] | {"restarts": 1}, generator())
    given = adversarial_stability.answer(masked)
    assert given.verdict == "attack failed: no conclusion"
    assert given.tone == "neutral"
    assert masked[given.headline].value > 0.5


def test_an_untrained_network_is_not_called_fragile() -> None:
    train, test = digits(100)
    subject = Subject(
        Problem(mlp((64, 8, 10)), train, replace(test, y=torch.zeros_like(test.targets))), Backprop(epochs=1)
    )
    seen = adversarial_stability.run(subject, SMALL["adversarial_stability"], generator())
    assert adversarial_stability.answer(seen).verdict == "no better than guessing"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.02, 0.09, "fragile"), (0.05, 0.2, "sensitive"), (0.3, 0.4, "withstands this attack")],
)
def test_the_verdict_follows_its_rule(low: float, high: float, verdict: str) -> None:
    module = adversarial_stability
    seen = Observation(
        (
            proportion(module.CLEAN, 98, 100),
            proportion(module.WHOLE, 0, 100),
            exact(module.RANGE, 1.0),
            exact(module.COMMON, 0.1),
            replace(exact(module.HALVING, (low + high) / 2), low=low, high=high),
            proportion(module.NOISE, 97, 100),
        )
    )
    assert module.answer(seen).verdict == verdict
    # The same radius is a tenth as large a part of inputs that span 10.
    wide = Observation(tuple(exact(m.name, 10.0) if m.name == module.RANGE else m for m in seen.measurements))
    assert module.answer(wide).verdict == "fragile"


def test_the_attack_is_worse_than_noise_and_the_curve_falls() -> None:
    seen = adversarial_stability.run(trained(network()), SMALL["adversarial_stability"], generator())
    curve = next(e for e in seen.exhibits if isinstance(e, Curve))
    attacked, noise = curve.lines[0], curve.lines[1]
    assert list(attacked.y) == sorted(attacked.y, reverse=True)
    assert attacked.y[-1] == 0.0
    half = min(range(len(attacked.y)), key=lambda k: abs(attacked.y[k] - 0.5))
    assert noise.y[half] > attacked.y[half] + 0.2
    image = next(e for e in seen.exhibits if isinstance(e, Image))
    assert image.tiles.shape == (4, 8, 8)
    assert image.captions[0] != image.captions[1]


def test_probes_see_what_layers_gain_and_lose() -> None:
    subject = trained(network())
    seen = linear_probe.run(subject, SMALL["linear_probe"], generator())
    assert seen[linear_probe.LAST].value > 0.85
    # A layer that forgets everything but a constant loses the classes.
    forgetful = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        forgetful[1].weight.zero_()
    lost = linear_probe.run(
        replace(subject, problem=subject.problem.with_model(forgetful)), SMALL["linear_probe"], generator()
    )
    assert linear_probe.answer(lost).verdict == "layers lose the classes"
    # Two rings cannot be told apart linearly; their radius can.
    angle = torch.rand(400, generator=generator()) * 6.3
    y = torch.arange(400) % 2
    x = (1.0 + y[:, None]) * torch.stack([angle.cos(), angle.sin()], 1)
    rings = Data(x, y, "rings", classes=2)
    model = Backprop(lr=0.02, epochs=30).train(Problem(mlp((2, 30, 2)), rings)).model
    rung = Subject(Problem(model, rings.take(torch.arange(200)), rings.take(torch.arange(200, 400))), subject.solver)
    gained = linear_probe.run(rung, SMALL["linear_probe"], generator())
    assert linear_probe.answer(gained).verdict == "layers separate the classes"
    alone = Subject(Problem(nn.Linear(3, 3), blobs(), blobs(30)), subject.solver)
    assert linear_probe.answer(linear_probe.run(alone, SMALL["linear_probe"], generator())).verdict == "no hidden layer"


def test_filters_of_a_template_are_smooth_and_random_ones_are_not() -> None:
    model = network()
    subject = replace(trained(network(), epochs=1), start=model)
    ramp = torch.linspace(-1, 1, 8)[:, None].expand(8, 8).reshape(1, 64)
    smooth = network()
    with torch.no_grad():
        smooth[1].weight.copy_(ramp * torch.linspace(0.1, 1, 32)[:, None])
    planted = replace(subject, problem=subject.problem.with_model(smooth))
    seen = first_layer_filters.run(planted, SMALL["first_layer_filters"], generator())
    assert seen[first_layer_filters.SHARE].value == 1.0
    assert first_layer_filters.answer(seen).verdict == "filters have spatial structure"
    # 20 random filters at level 0.05: four or more smooth ones, which would raise the interval, have probability 0.016;
    # the seed is fixed.
    assert seen[first_layer_filters.AT_START].low < 0.05
    noise = replace(subject, problem=subject.problem.with_model(model))
    plain = first_layer_filters.answer(first_layer_filters.run(noise, SMALL["first_layer_filters"], generator()))
    assert plain.verdict == "no spatial structure detected"
