from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from problems import blobs
from torch import Tensor, nn

from whydeep.core import Answer, Data, Observation, Problem, Subject, Verdict, exact
from whydeep.core.instrument import Instrument
from whydeep.core.record import Section, plain
from whydeep.generalization.certificates.inversion import binomial_tail_inverse
from whydeep.generalization.instruments import capacity_bound, heldout_certificate, random_labels
from whydeep.networks import mlp
from whydeep.optimization.backprop import Backprop

SOLVER = Backprop(torch.optim.Adam, lr=1e-2, epochs=20, batch_size=20)
INSTRUMENTS = [heldout_certificate.instrument, capacity_bound.instrument, random_labels.instrument]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend, self.out = (
            nn.Linear(1, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x[:, :, None])
        return self.out(self.attend(z, z, z, need_weights=False)[0].mean(1))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3)),
        nn.Conv1d(1, 4, 3, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def subject(make: type[nn.Module] | object = None, **changes: object) -> Subject:
    make = make or (lambda: mlp((3, 10, 3)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = make()
    problem = Problem(start, blobs(60), blobs(300).take(torch.arange(210, 300)))  # the first samples are the same
    training = SOLVER.train(problem)
    trained = Subject(problem.with_model(training.model), SOLVER, make, start, training, "by construction")
    return replace(trained, **changes)


def seen(instrument: Instrument, subject: Subject) -> tuple[Observation, Answer]:
    budget = {name: min(value, 40) for name, value in instrument.budgets["quick"].items()}
    found = instrument.run(subject, budget, torch.Generator().manual_seed(0))
    section = Section.of(instrument, found, command="", python="", seconds=0.0)
    json.dumps([plain(found.measurements), plain(found.exhibits), plain(found.findings)], allow_nan=False)
    return found, section.answer


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
@pytest.mark.parametrize("make", [None, Attention, convolutional], ids=["mlp", "attention", "cnn"])
def test_any_network_is_examined_or_told_why_not(instrument: Instrument, make: type[nn.Module] | None) -> None:
    case = subject(make)
    before = [value.clone() for value in case.problem.model.state_dict().values()]
    state = torch.random.get_rng_state()
    reason = instrument.applies(case)
    if reason is not None:
        assert instrument is capacity_bound.instrument
        assert "Attention" in reason
        return
    _, answer = seen(instrument, case)
    assert answer.sentence.endswith(".")
    assert len(answer.sentence.split()) <= 40
    after = case.problem.model.state_dict().values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.name)
def test_regression_is_not_applicable(instrument: Instrument) -> None:
    data = Data(torch.randn(10, 3), torch.randn(10, 2))
    case = subject(problem=Problem(mlp((3, 2)), data, data, loss="squared"))
    assert "regression" in (instrument.applies(case) or "")


def test_what_is_missing_is_named() -> None:
    alone = subject()
    alone = replace(alone, problem=replace(alone.problem, test=None))
    assert "--heldout" in (heldout_certificate.instrument.applies(alone) or "")
    assert "test samples" in (capacity_bound.instrument.applies(alone) or "")
    assert random_labels.instrument.applies(alone) is None
    assert "factory" in (random_labels.instrument.applies(replace(alone, factory=None)) or "")


def test_the_certificate_is_the_one_of_the_mistakes() -> None:
    case = subject()
    found, answer = seen(heldout_certificate.instrument, case)
    wrong = round(found["mistakes on held-out samples"].value)
    assert found["certified error"].value == binomial_tail_inverse(wrong, 90, 0.05)
    assert found["generalization gap"].value == found["test error"].value - found["training error"].value
    assert (answer.verdict, answer.tone, answer.headline) == ("certified", "good", "certified error")
    assert f"({wrong} of 90)" in answer.sentence


def test_independence_on_trust_is_not_certified() -> None:
    found, answer = seen(heldout_certificate.instrument, subject(independence="on trust"))
    assert (answer.verdict, answer.tone) == ("on trust", "caution")
    assert answer.sentence.startswith("If the test data were not used in training")
    assert not any("certified" in measurement.name for measurement in found.measurements)


def test_test_samples_among_the_training_samples_are_not_certified() -> None:
    # Two of 90 are more than a hundredth.
    case = subject()
    test = case.problem.test
    assert isinstance(case.problem.train.x, Tensor)
    assert test is not None
    assert isinstance(test.x, Tensor)
    x = test.x.clone()
    x[:2] = case.problem.train.x[:2]
    for known, verdict in ((test, "certified"), (replace(test, x=x), "on trust")):
        found, answer = seen(heldout_certificate.instrument, replace(case, problem=replace(case.problem, test=known)))
        assert answer.verdict == verdict
        assert found[heldout_certificate.COPIES].value == (0 if verdict == "certified" else 2)
    assert answer.sentence.startswith("If 2 test samples that repeat others, or training samples, are draws of their")


def test_a_network_that_guesses_is_not_certified_either() -> None:
    case = subject()
    problem = replace(case.problem, test=replace(blobs(90), y=(blobs(90).targets + 1) % 3))
    _, answer = seen(heldout_certificate.instrument, replace(case, problem=problem))
    assert (answer.verdict, answer.tone) == ("vacuous", "bad")


def test_a_capacity_bound_above_one_is_vacuous_and_says_by_how_much() -> None:
    found, answer = seen(capacity_bound.instrument, subject())
    (finding,) = found.findings
    assert finding.id == "capacity_bound"
    assert finding.verdict is Verdict.VACUOUS
    assert found["smallest capacity bound"].value > 1
    assert answer.verdict == "vacuous"
    assert f"{found['smallest capacity bound'].value:.2g}" in answer.sentence


def test_a_capacity_bound_below_one_is_judged_on_its_merits() -> None:
    many = blobs(30_000)
    case = subject(lambda: nn.Sequential(nn.Linear(3, 3)))
    case = replace(case, problem=Problem(case.problem.model, many, blobs(90)))
    found, answer = seen(capacity_bound.instrument, case)
    assert found.findings[0].verdict is Verdict.HOLDS
    assert answer.verdict == "not vacuous"


def test_random_labels_say_what_was_measured() -> None:
    base = [exact("passes allowed", 9), exact("samples", 50), exact("training error, random labels", 0.3)]
    answer = random_labels.answer(Observation((*base, exact("passes to fit true labels", 4))))
    assert answer.verdict == "random labels not fitted"
    assert "within 9 passes (30 % still wrong; true labels: 4)" in answer.sentence
    answer = random_labels.answer(Observation((*base, exact("passes to fit random labels", 8))))
    assert answer.verdict == "fits random labels"
    assert "in 8 passes (true labels: not within 9)" in answer.sentence


def test_random_labels_take_another_solver_than_back_propagation() -> None:
    class Other:
        def train(self, problem: Problem, **rest: object) -> None:
            raise AssertionError("the instrument retrains by back-propagation")

    found, _ = seen(random_labels.instrument, subject(solver=Other()))
    assert found["training error, true labels"].value < 0.7
