"""Weights on disk: safetensors, or a plain state dict; never a pickled network."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from whydeep.core.errors import InputError
from whydeep.core.record import write

SHOWN = 5
"""How many names an error lists."""


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write parameters and buffers as safetensors, whole or not at all.

    Every name of the state dict is written, tied weights under each of their names, counters of batch norm included.
    Raises `InputError` when the file cannot be written, or when the state dict holds something that is no tensor.
    """
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise InputError(f"{_list(other)} in the state dict is no tensor", "leave it out, or make it a buffer")
    # safetensors refuses tensors that share memory, so each is copied.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write(Path(path), safetensors.torch.save(plain))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read weights into `model`: all of them, or none when they do not fit.

    path: a .safetensors file, or what `torch.save(model.state_dict(), path)` wrote; this is read with
    weights_only=True, which executes nothing, and a pickled network is refused. A name that is missing because its
    tensor is tied to another one in the file is filled from that.

    Raises `InputError` when the file cannot be read, when names are missing or left over, when shapes differ, when a
    weight is NaN or inf, or when one of two tied weights would overwrite the other.
    """
    given = _read(Path(path))
    own = model.state_dict()
    given |= {name: given[twin] for name, twin in _twins(own, set(own) - set(given), given).items()}
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing or extra:
        parts = [f"lacks {_list(missing)}"] * bool(missing) + [f"has {_list(extra)} too many"] * bool(extra)
        raise InputError(f"{path} {' and '.join(parts)}", "give weights that were saved from this network")
    shapes = [
        f"{name} is {tuple(given[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if given[name].shape != value.shape
    ]
    if shapes:
        raise InputError(f"shapes in {path} differ: {_list(shapes)}", "give weights of a network of the same widths")
    bad = [name for name, value in given.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise InputError(f"{_list(bad)} in {path} holds NaN or inf", "give weights of a training that did not diverge")
    _copy(model, given, path)


def _copy(model: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(given)
        after = model.state_dict()
        lost = [
            name for name, value in given.items() if not torch.equal(after[name].cpu(), value.to(after[name].dtype))
        ]
        if lost:
            raise InputError(
                f"{_list(lost)} in {path} differs from a weight that it is tied to", "give weights that agree"
            )
    except BaseException:
        model.load_state_dict(before)
        raise


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"there is no file {path}", "name a .safetensors file or a saved state dict")
    if path.suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError) as fault:
            raise InputError(f"{path} is no safetensors file: {fault}", "fetch or save it again") from fault
    try:
        with warnings.catch_warnings():
            # On a pickle of another protocol PyTorch asks to report it to its authors; here it is refused below.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise InputError(
            f"{path} holds more than tensors, or no tensors", "save model.state_dict() alone, best as .safetensors"
        ) from fault
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as fault:
        text = str(fault).strip().splitlines()
        raise InputError(
            f"{path} cannot be read: {text[0] if text else type(fault).__name__}", "fetch or save it again"
        ) from fault
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        holds = (
            f"a dict of {_list([str(key) for key in state])}" if isinstance(state, Mapping) else type(state).__name__
        )
        raise InputError(f"{path} holds {holds}", "save model.state_dict() alone, names to tensors")
    return dict(state)


def _twins(own: Mapping[str, Tensor], missing: set[str], given: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each missing name another one that is given and is the same tensor in the network."""

    def place(value: Tensor) -> tuple[object, ...]:
        return (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)

    places = {place(value): name for name, value in own.items() if name in given and value.numel()}
    return {name: places[place(own[name])] for name in missing if place(own[name]) in places}


def _list(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
