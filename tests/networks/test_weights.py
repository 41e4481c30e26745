"""Weights to a file and back."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from whydeep.core import InputError
from whydeep.networks import cnn, load_weights, mlp, save_weights


class Tied(nn.Module):
    """Reads out by the embedding's own matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.embedding(x))
        return scores


def used_cnn() -> nn.Module:
    """A network with batch norm that has seen data, so that its statistics and counters are not the initial ones."""
    model = cnn((1, 8, 8), 10, channels=(3, 4), batch_norm=True)
    for _ in range(3):
        model(torch.randn(4, 1, 8, 8))
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("make", [used_cnn, Tied, lambda: mlp((3, 4, 2)).double()])
def test_what_was_saved_is_read_back(tmp_path: Path, make: type[nn.Module]) -> None:
    model, other = make(), make()
    for value in other.parameters():
        nn.init.zeros_(value)
    save_weights(model, tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert same(state(model), state(other))


def test_batch_norm_counters_are_kept(tmp_path: Path) -> None:
    save_weights(used_cnn(), tmp_path / "a.safetensors")
    assert int(safetensors.torch.load_file(tmp_path / "a.safetensors")["1.num_batches_tracked"]) == 3


def test_tied_weights_stay_tied_and_may_be_stored_once(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    safetensors.torch.save_file({"head.weight": model.head.weight.detach()}, tmp_path / "once.safetensors")
    load_weights(other, tmp_path / "once.safetensors")
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert other.head.weight is other.embedding.weight


def test_tied_weights_that_disagree_are_refused(tmp_path: Path) -> None:
    model = Tied()
    before = state(model)
    weight = model.head.weight.detach()
    safetensors.torch.save_file({"head.weight": weight + 1, "embedding.weight": weight + 2}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="differs from a weight that it is tied to"):
        load_weights(model, tmp_path / "a.safetensors")
    assert same(before, state(model))


def test_a_state_dict_of_torch_is_read(tmp_path: Path) -> None:
    model, other = used_cnn(), used_cnn()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    load_weights(other, tmp_path / "a.pt")
    assert same(state(model), state(other))


def changed(model: nn.Module, **values: Tensor | None) -> dict[str, Tensor]:
    content = state(model) | values
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"1.weight": None}, r"lacks 1\.weight"),
        ({"extra": torch.zeros(1)}, r"has extra too many"),
        ({"1.weight": None, "extra": torch.zeros(1)}, r"lacks 1\.weight and has extra too many"),
        ({"3.weight": torch.zeros(2, 5)}, r"3\.weight is \(2, 5\) for \(2, 4\)"),
        ({"3.bias": torch.tensor([0.0, torch.nan])}, r"3\.bias in .* holds NaN or inf"),
        ({"3.bias": torch.tensor([0.0, torch.inf])}, r"3\.bias in .* holds NaN or inf"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path: Path, values: dict[str, Tensor], message: str) -> None:
    model = mlp((3, 4, 2))
    content = changed(mlp((3, 4, 2)), **values)
    before = state(model)
    safetensors.torch.save_file(content, tmp_path / "a.safetensors")
    torch.save(content, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(InputError, match=message):
            load_weights(model, tmp_path / name)
        assert same(before, state(model))


def test_only_the_first_names_are_listed(tmp_path: Path) -> None:
    safetensors.torch.save_file({"extra": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"lacks 1\.bias, 1\.weight, 3\.bias, 3\.weight, 5\.bias and 1 more and has"):
        load_weights(mlp((3, 4, 4, 2)), tmp_path / "a.safetensors")


class Trap:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_pickled_network_is_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    torch.save(mlp((3, 4, 2)), tmp_path / "whole.pt")
    torch.save({"1.weight": Trap(tmp_path / "executed")}, tmp_path / "trap.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    for name in ("whole.pt", "trap.pt", "plain.pkl"):
        with pytest.raises(InputError, match=r"save model\.state_dict\(\) alone") as caught:
            load_weights(mlp((3, 4, 2)), tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_lists_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": mlp((3, 4, 2)).state_dict()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="holds a dict of epoch, weights; save"):
        load_weights(mlp((3, 4, 2)), tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", bytes(100)])
def test_a_broken_file_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        load_weights(mlp((3, 4, 2)), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_weights(mlp((3, 4, 2)), tmp_path / "none.safetensors")


def test_saving_to_nowhere_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        save_weights(mlp((3, 4, 2)), tmp_path / "file" / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_saving_leaves_the_model_alone(tmp_path: Path) -> None:
    model = used_cnn()
    before = copy.deepcopy(model.state_dict())
    save_weights(model, tmp_path / "a.safetensors")
    assert same(before, state(model))
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "text"

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(InputError, match="_extra_state in the state dict is no tensor"):
        save_weights(Odd(2, 2), tmp_path / "a.safetensors")
