"""Where the states of an alternating method are kept: in memory, or in files that are read block by block."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from whydeep.core.errors import InputError


class Storage(Protocol):
    """Makes the tensors with one row a sample."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor whose entries are still to be written."""


class InMemory:
    """Tensors on the device."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor whose entries are still to be written."""
        return torch.empty(tuple(shape), dtype=dtype, device=device)


@dataclass(frozen=True)
class InFiles:
    """Tensors that are views of files (memory maps) in a folder of their own under `folder`.

    The system reads and writes pages as they are used and drops them when memory is short, so that only the samples
    that are worked on need fit in it. A file loses its name at once: it is gone when the tensor, or the process, is.
    Worth it on a local disk. A folder that lives in memory (tmpfs) saves nothing.

    Raises `InputError` when the folder cannot be written, the disk has no room, or the network is not on the CPU.
    """

    folder: Path

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor whose entries are still to be written."""
        if device.type != "cpu":
            raise InputError(
                f"states in files are worked on by the CPU, and the network is on {device}",
                "move it to the CPU, or spread the samples over processes with a GPU each",
            )
        count = prod(shape)
        size = max(1, count * torch.empty((), dtype=dtype, device=device).element_size())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".whydeep-states-")
        except OSError as fault:
            raise InputError(f"cannot write into {self.folder}: {fault.strerror}", "name another folder") from fault
        try:
            # Room is taken now: a map of a file that the disk has no room for ends the process when it is written.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                os.truncate(handle, size)
            return torch.from_file(name, shared=True, size=count, dtype=dtype, device="cpu").view(tuple(shape))
        except OSError as fault:
            free = shutil.disk_usage(self.folder).free
            raise InputError(
                f"the states take {size / 1e9:.3g} GB in a file, and {self.folder} has {free / 1e9:.3g} GB left",
                "name a folder on a larger disk",
            ) from fault
        finally:
            os.close(handle)
            os.unlink(name)


IN_MEMORY = InMemory()


def storage(streaming: bool | str | Path) -> Storage:
    """Return where states are kept: False in memory, True in files of the system's folder for them, or of a folder.

    >>> storage(False).empty((2, 3), torch.float32, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    if streaming is False:
        return IN_MEMORY
    return InFiles(Path(tempfile.gettempdir()) if streaming is True else Path(streaming))
