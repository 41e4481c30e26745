from __future__ import annotations

import pytest
import torch
from torch import nn

from whydeep.core import Data, InputError
from whydeep.generalization import certify
from whydeep.generalization.certificates.preconditions import overlap, repeats
from whydeep.optimization import Backprop

X = torch.arange(24.0).reshape(12, 2)
DATA = Data(X, torch.arange(12) % 2, classes=2)


class Lazy:
    """Samples that are read one index at a time."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        return self.x[indices]


def test_overlap_counts_samples_whatever_their_type_label_or_place() -> None:
    held = Data(X[[11, 0, 5]].double(), torch.tensor([0, 0, 0]), classes=2)
    assert overlap(DATA.take(torch.arange(6)), held) == 2
    assert overlap(Data(Lazy(X[:6]), DATA.y[:6], classes=2), held) == 2
    assert overlap(Data(-0.0 * X[:1], DATA.y[:1], classes=2), Data(0.0 * X[:1], DATA.y[:1], classes=2)) == 1
    assert overlap(DATA, Data(X[:3].reshape(3, 1, 2, 1), torch.zeros(3, dtype=torch.int64), classes=2)) == 3
    assert overlap(DATA, Data(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), classes=2)) == 0


def test_overlap_is_refused_with_the_count() -> None:
    with pytest.raises(InputError, match="3 of the 7 held-out samples of data are among the training samples"):
        certify(nn.Linear(2, 2), DATA.take(torch.arange(5, 12)), train=DATA.take(torch.arange(8)))
    assert certify(nn.Linear(2, 2), DATA.take(torch.arange(8, 12)), train=DATA.take(torch.arange(8))).n == 4


def test_repeats_are_counted_whatever_their_label_or_place() -> None:
    order = torch.tensor([3, 0, 3, 5, 0, 3])
    assert repeats(Data(X[order], torch.arange(6) % 2, classes=2)) == 3
    assert repeats(Data(Lazy(X[order]), torch.arange(6) % 2, classes=2)) == 3
    assert repeats(DATA) == 0


@pytest.mark.parametrize("method", ["binomial", "kl"])
def test_a_held_out_set_written_down_twenty_times_is_a_condition(method: str) -> None:
    few = certify(nn.Linear(2, 2), DATA, method=method)
    many = certify(nn.Linear(2, 2), DATA.take(torch.arange(12).repeat(20)), method=method)
    assert few.notes == ()
    assert few.condition == ""
    assert many.sentence.startswith("If the 228 samples that repeat others are draws of their own and no copies, its")
    assert many.notes == ("228 of the 240 samples repeat another one exactly",)


def test_a_hundredth_of_repeated_samples_is_a_note() -> None:
    x = torch.arange(200.0)[:, None]
    for copies, condition in ((2, ""), (3, "the 3 samples that repeat others are draws of their own and no copies")):
        x[:copies] = x[-copies:]
        found = certify(lambda x: x[:, 0].long() % 2, (x, x[:, 0].long() % 2))
        assert found.notes == (f"{copies} of the 200 samples repeat another one exactly",)
        assert found.condition == condition


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(2)], ids=lambda layer: type(layer).__name__)
def test_a_network_that_changes_with_its_mode_is_refused_in_training_mode(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"training mode.*call model.eval\(\)"):
        certify(model, DATA)
    assert model.training
    assert certify(model.eval(), DATA).n == 12
    assert certify(nn.Sequential(nn.Dropout(0.0), nn.Linear(2, 2)), DATA).n == 12


def test_a_network_that_asks_for_its_mode_itself_is_refused_in_training_mode() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.bn = nn.Linear(2, 2), nn.BatchNorm1d(2)
            self.bn.eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.layer(self.bn(x)), training=self.training)

    model, before = Functional(), torch.random.get_rng_state()
    with pytest.raises(InputError, match=r"outputs are others than in evaluation mode; call model.eval\(\)"):
        certify(model, DATA)
    assert model.training
    assert not model.bn.training
    assert not bool(model.bn.running_mean.any())
    assert torch.equal(before, torch.random.get_rng_state())
    assert certify(model.eval(), DATA).n == 12


def test_a_network_that_is_random_in_evaluation_mode_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    before = torch.random.get_rng_state()
    with pytest.raises(InputError, match="differ from call to call"):
        certify(Noisy(), DATA)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_network_of_another_shape_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="cannot take samples"):
        certify(nn.Linear(3, 2), DATA)


@pytest.mark.parametrize("method", ["binomial", "pac-bayes-kl"])
def test_a_network_that_mixes_the_samples_of_a_batch_is_refused(method: str) -> None:
    # The mistakes of one batch then depend on each other, and alone a sample is classified otherwise.
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)).eval()
    train = Data(X + 100.0, DATA.y, classes=2)
    with pytest.raises(InputError, match="changes with the other samples of its batch"):
        certify(model, DATA, method=method, train=train, solver=Backprop(torch.optim.SGD, lr=0.1, epochs=1))
    layered = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)).eval()
    assert certify(layered, DATA).n == 12


def test_a_sample_alone_may_differ_by_rounding() -> None:
    # Products of one row and of eight take other kernels: the last digits differ.
    model = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2))
    assert certify(model, DATA).n == 12
