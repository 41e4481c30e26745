"""The main job on planted instruments: what is run, what is written, what happens when one fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import blobs
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whydeep as wd
from whydeep.core import registry
from whydeep.core.instrument import Answer, Budget, Instrument, Observation, Subject
from whydeep.core.measurement import exact
from whydeep.networks import mlp
from whydeep.optimization import Backprop

SHORT = Backprop(torch.optim.Adam, lr=1e-2, epochs=2, batch_size=16)


def planted(name: str, question: str = "optimization", rank: int = 1, **changes: object) -> Instrument:
    def run(subject: Subject, budget: Budget, generator: torch.Generator) -> Observation:
        draw = float(torch.rand((), generator=generator))
        return Observation((exact("draw", draw), exact("samples", budget["samples"])))

    fields: dict[str, object] = {
        "name": name,
        "question": question,
        "title": f"The {name}",
        "lecture": "It says so.",
        "source": "slide 1",
        "rule": "always fine",
        "caveat": "None.",
        "rank": rank,
        "budgets": {"quick": {"samples": 1}, "full": {"samples": 2}},
        "applies": lambda subject: None,
        "run": run,
        "answer": lambda seen: Answer(f"{name} drew {seen['draw'].value:.3f}.", "fine", "good", "draw"),
    }
    return Instrument(**(fields | changes))  # type: ignore[arg-type]


def plant(monkeypatch: pytest.MonkeyPatch, *instruments: Instrument) -> None:
    monkeypatch.setattr(registry, "instruments", lambda: {i.name: i for i in instruments})


def factory() -> nn.Module:
    return mlp((3, 5, 3))


def fault(*arguments: object) -> Observation:
    raise RuntimeError("planted fault\nsecond line")


def test_running_one_instrument_alone_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, planted("first"), planted("second", rank=2))
    both = wd.examine(factory, blobs(), blobs(30), solver=SHORT)
    alone = wd.examine(factory, blobs(), blobs(30), solver=SHORT, only=["second"])
    assert list(alone.record.questions) == ["optimization"]
    assert alone.record.questions["optimization"].sections[0].observation == (
        both.record.questions["optimization"].sections[1].observation
    )
    other = wd.examine(factory, blobs(), blobs(30), solver=SHORT, generator=torch.Generator().manual_seed(1))
    assert other.answer("optimization") != both.answer("optimization")


def test_the_first_rank_that_succeeds_is_the_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, planted("broken", run=fault), planted("sound", rank=2))
    examination = wd.examine(factory, blobs(), solver=SHORT)
    question = examination.record.questions["optimization"]
    assert [s.instrument for s in question.sections] == ["sound"]
    assert [(f.instrument, f.reason) for f in question.failed] == [("broken", "RuntimeError: planted fault")]
    assert "second line" in examination.tracebacks["broken"]
    assert question.verdict == "fine"


def test_an_instrument_that_does_not_apply_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, planted("never", applies=lambda subject: "no test data"))
    record = wd.examine(factory, blobs(), solver=SHORT).record.to_json()
    question = record["questions"]["optimization"]
    assert question["inapplicable"] == [{"instrument": "never", "title": "The never", "reason": "no test data"}]
    assert question["headline"] is None
    assert question["verdict"] == "not answered"


def test_ctrl_c_in_an_instrument_keeps_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*arguments: object) -> Observation:
        raise KeyboardInterrupt

    plant(monkeypatch, planted("a"), planted("b", run=interrupt), planted("c"))
    examination = wd.examine(factory, blobs(), solver=SHORT)
    question = examination.record.questions["optimization"]
    assert [s.instrument for s in question.sections] == ["a"]
    assert [(f.instrument, f.reason) for f in question.failed] == [("b", "interrupted"), ("c", "not run: interrupted")]
    examination.save(tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 0


def test_save_writes_page_record_and_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, planted("a"))
    examination = wd.examine(factory, blobs(), blobs(30), solver=SHORT, budget="full")
    page = examination.save(tmp_path / "new")
    assert page == tmp_path / "new" / "report.html"
    assert sorted(file.name for file in page.parent.iterdir()) == ["report.html", "report.json", "weights.safetensors"]
    record = json.loads((page.parent / "report.json").read_text())
    assert record["version"] == 1
    assert record["budget"] == {"a": {"samples": 2}}
    assert record["questions"]["optimization"]["headline"]["name"] == "draw"
    again = factory()
    wd.networks.load_weights(again, page.parent / "weights.safetensors")
    for name, value in examination.subject.problem.model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_given_network_is_examined_as_it_is_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Subject] = []
    plant(monkeypatch, planted("a", applies=lambda subject: seen.append(subject)))
    model = factory()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wd.examine(model, blobs(), blobs(30))
    wd.examine(model, blobs(), blobs(30), heldout=True, factory=factory)
    wd.examine(model, blobs(), blobs(30), solver=SHORT)
    assert [s.independence for s in seen] == ["on trust", "declared", "by construction"]
    assert [s.factory is None for s in seen] == [True, False, True]
    assert [s.training is None for s in seen] == [True, True, False]
    assert model.training
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
        assert torch.equal(value, seen[0].problem.model.state_dict()[name])


def test_arrays_tensors_and_loaders_are_taken() -> None:
    data = blobs()
    assert isinstance(data.x, torch.Tensor)
    forms = [
        (data.x, data.targets),
        (data.x.double().numpy(), data.targets.numpy()),
        DataLoader(TensorDataset(data.x, data.targets), batch_size=7),
    ]
    for form in forms:
        taken = wd.data.as_data(form)
        assert torch.equal(taken.x[torch.arange(len(taken))], data.x)
        assert torch.equal(taken.targets, data.targets)
        assert taken.classes == 3


def test_test_data_have_the_classes_of_the_training_data() -> None:
    train = blobs()
    test = wd.data.as_data((np.zeros((2, 3), dtype=np.float32), np.array([0, 1])), like=train)
    assert test.classes == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wd.examine(factory, blobs(), budget="huge"), "unknown budget 'huge'; give quick or full"),
        (lambda: wd.examine(factory, blobs(), only=["nothing"]), "unknown question or instrument nothing; give any of"),
        (lambda: wd.examine(lambda: 3, blobs()), "the factory returned int; let it return a torch.nn.Module"),  # type: ignore[arg-type, return-value]
        (lambda: wd.examine(factory, 5), "data of type int; give Data, a pair (x, y) or a DataLoader"),
        (lambda: wd.examine(lambda: mlp((3, 2)), blobs()), "let it return (2, 3), one score a class"),
        (lambda: wd.examine(lambda: mlp((4, 3)), blobs()), "the model cannot take samples of shape (n, 3)"),
    ],
)
def test_bad_input_is_one_sentence(call: object, words: str) -> None:
    with pytest.raises(wd.InputError) as caught:
        call()  # type: ignore[operator]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_diverging_training_is_one_sentence() -> None:
    solver = Backprop(torch.optim.SGD, lr=1e38, epochs=5)
    with pytest.raises(wd.InputError, match=r"the training diverged: .*; give a smaller step size"):
        wd.examine(factory, blobs(), solver=solver)


def test_a_training_that_was_stopped_is_named_and_not_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, planted("a"))
    examination = wd.examine(factory, blobs(), solver=SHORT, watch=lambda phase, step: phase == "training")
    assert examination.record.subject["network"].endswith("training interrupted")
    assert [f.reason for f in examination.record.questions["optimization"].failed] == ["not run: interrupted"]


def test_a_network_of_ones_own_is_called_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(x)
            return out

    plant(monkeypatch, planted("a"))
    assert wd.examine(Own(), blobs()).record.subject["network"].startswith("Own, ")
