"""A training in sweeps on disk: what a run that was cut off needs to go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from whydeep.core.errors import InputError
from whydeep.core.record import plain, write

NOT_COMPARED = ("sweeps", "epochs", "checkpoint", "group", "streaming", "block_size")
"""Settings that a run may change when it goes on: where it is computed, and how long."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training in sweeps is saved, how often, and whether it goes on from what is there.

    path: a safetensors file, written whole or not at all by the process of rank 0, every `every` sweeps and at the end.
    resume: begin from the file, which every process must be able to read; the settings may differ in the number of
    sweeps and in where it is computed, also in the number of processes.

    Kept are the last and the best weights, the history, and how often the run was taken back. States and multipliers
    are not: a run that goes on starts from the forward pass at the last weights, rounded to the type of the model, with
    the method's own start of its multipliers, as after a roll-back. It is therefore another path than the uninterrupted
    one; for a method without such variables it is the same.

    Raises `ValueError` when `every` is below 1.
    """

    path: Path
    every: int = 5
    resume: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if self.every < 1:
            raise ValueError(f"every={self.every}; give at least 1")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds. last, best: weights W_1..W_N. score: the risk of the best. settings: of the solver."""

    last: tuple[Tensor, ...]
    best: tuple[Tensor, ...]
    score: float
    history: Mapping[str, list[float]]
    done: int
    restarts: int
    settings: Mapping[str, Any]


def settings_of(solver: Any, name: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same in a run that goes on: the solver's settings, and counts that tell the problem."""
    own = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver) if f.name not in NOT_COMPARED}
    kept = {key: plain(value) if isinstance(value, bool | int | float | str | tuple) else str(value)
            for key, value in own.items()}  # fmt: skip
    return {"solver": name, **kept, **counts}


def save_checkpoint(path: Path, saved: Saved) -> None:
    """Write a checkpoint; raises `InputError` when the folder cannot be written."""
    tensors = {
        f"{kind}.{index}": weight.detach().cpu().contiguous().clone()  # best and last may share memory
        for kind, weights in (("last", saved.last), ("best", saved.best))
        for index, weight in enumerate(weights)
    }
    told = {key: getattr(saved, key) for key in ("score", "history", "done", "restarts", "settings")}
    write(path, save(tensors, metadata={"training": json.dumps(plain(told))}))


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> Saved:
    """Read a checkpoint; raises `InputError` when there is none, when it is damaged or of another training."""
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}", "start the run without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["training"])
            names = sorted(file.keys(), key=lambda name: int(name.partition(".")[2]))
            last, best = (
                tuple(file.get_tensor(name) for name in names if name.startswith(kind)) for kind in ("last", "best")
            )
        saved = Saved(
            last=last,
            best=best,
            score=float(told["score"]),
            history=told["history"],
            done=told["done"],
            restarts=told["restarts"],
            settings=told["settings"],
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as fault:
        raise InputError(f"{path} is no checkpoint of a training", "start the run without --resume") from fault
    now = plain(dict(settings))
    for key in {**saved.settings, **now}:
        if saved.settings.get(key) != now.get(key):
            raise InputError(
                f"{path} is a checkpoint of another training: {key} is {saved.settings.get(key)} there and "
                f"{now.get(key)} here",
                "give the same network, data and settings, or start without --resume",
            )
    if not all(bool(torch.isfinite(weight).all()) for weight in (*saved.last, *saved.best)):
        raise InputError(f"the weights in {path} are not finite", "start the run without --resume")
    return saved
