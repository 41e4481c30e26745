from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from problems import blobs
from torch import nn

from whydeep.core import Data, InputError, Outcome, Problem, Progress, Status, Training, global_seed
from whydeep.networks import mlp
from whydeep.optimization import ADMM, SGLD, Backprop
from whydeep.optimization.comparison import Candidate, Entry, Run, Start, compare, corrected, entry, lasting


@dataclass(frozen=True)
class Planted:
    """Answers at once: every pass takes `pace` seconds; the held-back risk ends at `risk`."""

    epochs: int = 4
    pace: float = 1.0
    risk: float = 1.0
    reason: str = ""
    validation: float = 0.0
    started: ClassVar[list] = []

    def train(self, problem, *, generator=None, callback=None):
        if self.reason:
            raise InputError(self.reason, "name another")
        self.started.append((self, problem.vector(), torch.rand((), generator=generator)))
        stopped = callback is not None and callback(Progress(1, self.epochs))
        passes = torch.arange(1.0 + self.epochs, dtype=torch.float64)
        history = {"loss": 1 / (1 + passes), "error": 1 / (1 + passes), "seconds": self.pace * passes}
        history["validation"] = self.risk + 1 / (1 + passes)
        outcome = Outcome(Status.INTERRUPTED if stopped else Status.BUDGET_SPENT)
        return Training(problem.copy(), history, outcome, self.pace * self.epochs)


@pytest.fixture(autouse=True)
def forget():
    Planted.started.clear()


def fresh(stream):
    with global_seed(stream):
        return mlp((3, 4, 3), activation="sigmoid")


def planted(name, *solvers):
    return Entry(name, tuple(Candidate(f"number {k}", solver) for k, solver in enumerate(solvers)))


def compared(*entries, seeds=2, **options):
    options = {"train": blobs(), "test": blobs(30), "loss": "cross_entropy"} | options
    starts = options.pop("starts", [Start("one", fresh)])
    return compare(entries, starts, seeds=seeds, generator=torch.Generator().manual_seed(0), **options)


def test_the_setting_with_the_least_held_back_risk_is_taken():
    found = compared(planted("a", Planted(risk=3.0), Planted(risk=1.0), Planted(risk=2.0)))
    assert found.settings == {("a", "one"): "number 1"}
    assert {run.setting for run in found.runs} == {"number 1"}


def test_at_equal_seconds_each_makes_the_passes_that_fit_the_slowest():
    slow, fast, faster = Planted(pace=3.0), Planted(pace=1.0), Planted(pace=0.01)
    found = compared(planted("slow", slow), planted("fast", fast), planted("faster", faster))
    assert found.time == {"one": 12.0}
    passes = {(run.solver, run.equal): run.passes for run in found.runs}
    assert passes == {
        ("slow", "passes"): 4,
        ("fast", "passes"): 4,
        ("faster", "passes"): 4,
        ("slow", "seconds"): 4,
        ("fast", "seconds"): 12,
        ("faster", "seconds"): 20,  # five times as many and no more
    }
    # The slowest is not trained again: two seeds of each at equal passes, of the other two at equal seconds.
    assert len(Planted.started) == 3 * 2 + 2 * 2


def test_all_solvers_share_the_networks_and_the_random_numbers_of_a_seed():
    compared(planted("a", Planted()), planted("b", Planted(risk=2.0)), equal_seconds=False)
    (_, w1, r1), (_, w2, r2), (_, w3, r3), (_, w4, r4) = Planted.started  # seed by seed, solver by solver
    assert torch.equal(w1, w2)
    assert torch.equal(w3, w4)
    assert not torch.equal(w1, w3)
    assert r1 == r2 != r3 == r4


def test_who_else_takes_part_changes_no_number():
    real = Entry("real", (Candidate("", Backprop(torch.optim.Adam, lr=1e-2, epochs=2)),))
    alone = compared(real, equal_seconds=False)
    beside = compared(planted("a", Planted(), Planted()), real, planted("b", Planted()), equal_seconds=False)
    for one, other in zip(alone.of("real", "one"), beside.of("real", "one"), strict=True):
        assert torch.equal(one.history["loss"], other.history["loss"])
        assert one.score == other.score


def test_a_solver_that_cannot_take_the_network_is_left_out_with_its_reason():
    found = compared(planted("no", Planted(reason="it has a kink")), planted("yes", Planted()))
    assert found.refused == {"no": "it has a kink"}
    assert {run.solver for run in found.runs} == {"yes"}
    # Also where it is found out in the middle.
    relu = [Start("one", fresh), Start("two", lambda stream: mlp((3, 4, 3), activation="relu"))]

    @dataclass(frozen=True)
    class Smooth(Planted):
        def train(self, problem, *, generator=None, callback=None):
            if any(isinstance(module, nn.ReLU) for module in problem.model.modules()):
                raise InputError("ReLU", "give sigmoid")
            return Planted.train(self, problem, generator=generator, callback=callback)

    found = compared(planted("smooth", Smooth()), planted("yes", Planted()), starts=relu)
    assert found.refused == {"smooth": "ReLU"}
    assert {run.solver for run in found.runs} == {"yes"}


def test_an_interruption_keeps_what_is_there():
    told = []

    def tell(what, progress):
        told.append(what)
        return len(told) == 4

    found = compared(planted("a", Planted()), planted("b", Planted(pace=2.0)), tell=tell)
    assert not found.complete
    assert [(run.solver, run.seed) for run in found.runs] == [("a", 1), ("b", 1), ("a", 2)]
    assert told[0] == "equal passes, seed 1: a, one"


def test_the_score_is_the_test_error_or_the_test_risk():
    found = compared(planted("a", Planted()), seeds=1, equal_seconds=False)
    (run,) = found.runs
    _, weights, _ = Planted.started[0]
    problem = Problem(fresh(torch.Generator().manual_seed(9)), blobs(), blobs(30)).at(weights)
    wrong = problem.model(blobs(30).x).argmax(1) != blobs(30).targets
    assert run.score == pytest.approx(float(wrong.double().mean()))
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(3))
    data = Data(x, x[:, :1] ** 2)
    zero = Start("zero", lambda stream: _zeroed(mlp((3, 4, 1))))
    found = compared(planted("a", Planted()), train=data, test=data, loss="squared", starts=[zero], seeds=1)
    # A network that returns zero has the risk mean(target^2)/2.
    assert found.runs[0].score == pytest.approx(float(data.targets.square().mean() / 2), rel=1e-6)


def _zeroed(model):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def test_entries_have_the_settings_that_the_specification_leaves_open():
    rates = [c.solver.lr for c in entry("adam", samples=1000, passes=7).candidates]
    assert len(rates) > 1
    assert {c.solver.epochs for c in entry("adam", samples=1000, passes=7).candidates} == {7}
    (only,) = entry("adam?lr=0.02", samples=1000, passes=7).candidates
    assert (only.solver.lr, only.solver.validation) == (0.02, 0.1)
    assert {c.solver.sweeps for c in entry("admm", samples=1000, passes=7).candidates} == {7}
    # All start from the same weights, unless a rescaled start is asked for.
    assert {c.solver.spread for c in entry("admm", samples=1000, passes=7).candidates} == {None}
    assert {c.solver.spread for c in entry("admm?spread=0.5", samples=1000, passes=7).candidates} == {0.5}
    assert {c.solver.spread for c in entry("parle", samples=1000, passes=7).candidates} == {0.0}  # not ADMM's field
    with pytest.raises(InputError, match="sets sweeps itself; give one number of passes for all"):
        entry("admm?sweeps=9", samples=1000, passes=7)
    with pytest.raises(InputError, match="unknown solver 'newton'; give one of"):
        entry("newton", samples=1000, passes=7)


def test_lasting_sets_passes_and_the_held_back_part():
    assert lasting(ADMM(sweeps=3), 8) == ADMM(sweeps=8, validation=0.1)
    steps = Backprop(SGLD, lr=1e-3, steps=50, options={"beta": 1.0})
    assert (lasting(steps, 8).steps, lasting(steps, 8).epochs) == (None, 8)

    @dataclass(frozen=True)
    class Timeless:
        def train(self, problem, *, generator=None, callback=None): ...

    with pytest.raises(InputError, match="Timeless has no number of passes"):
        lasting(Timeless(), 8)


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        ("sigmoid", 4 * (2 / 500) ** 0.5),  # gain sqrt(2 / (in + out))
        ("tanh", (2 / 500) ** 0.5),
        ("relu", (2 / 200) ** 0.5),  # sqrt(2 / in)
    ],
)
def test_the_corrected_start_keeps_signals_of_their_size(activation, wanted):
    model = mlp((200, 300, 200, 2), activation=activation)
    before = model[1].weight.detach().clone()
    made = corrected(model, torch.Generator().manual_seed(0))
    assert torch.equal(model[1].weight, before)
    # Standard error of a standard deviation from 60,000 draws: 0.3 %; of the output's 400: 3.5 %.
    assert made[1].weight.std().item() == pytest.approx(wanted, rel=0.02)
    assert made[5].weight.std().item() == pytest.approx((2 / 202) ** 0.5, rel=0.15)
    assert all(not made[k].bias.detach().any() for k in (1, 3, 5))


def test_no_corrected_start_is_known_for_other_networks():
    with pytest.raises(InputError, match="no corrected start is known for softplus"):
        corrected(mlp((3, 4, 3), activation="softplus"), torch.Generator())
    with pytest.raises(InputError, match="the corrected start"):
        corrected(nn.Conv2d(1, 1, 3), torch.Generator())


def test_between_passes_the_error_is_interpolated():
    history = {
        "seconds": torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64),
        "error": torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64),
    }
    run = Run("a", "one", 1, "passes", "", history, Outcome(Status.BUDGET_SPENT), 3.0, 0.1)
    assert run.at(0.5) == pytest.approx(0.7)
    assert run.at(2.0) == pytest.approx(0.3)
    assert run.at(9.0) == pytest.approx(0.1)
    assert run.passes == 2
