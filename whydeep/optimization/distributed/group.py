"""Processes that train one network together: each holds some of the samples, and sums are taken over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError

PATIENCE = 300.0
"""Seconds that a process waits for the others: far above the difference of their times for a sweep, as shares are equal
to one sample; a process that ends is noticed at once."""


class LostProcess(RuntimeError):
    """Another process of the group has ended or no longer answers: the sums over all samples cannot be taken."""


class Group(Protocol):
    """The processes of a training. Every one of them makes the same calls, in the same order."""

    @property
    def rank(self) -> int:
        """Which one of 0..size-1 this process is; 0 writes the files."""

    @property
    def size(self) -> int:
        """How many there are."""

    def add(self, tensors: Sequence[Tensor], *, symmetric: Sequence[Tensor] = ()) -> None:
        """Replace each float64 tensor by its sum over the processes, all in one message; also symmetric matrices."""

    def maximum(self, tensor: Tensor) -> None:
        """Replace each entry by its maximum over the processes."""

    def hand_out(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Replace each tensor by that of the process that owns it."""


@dataclass(frozen=True)
class Alone:
    """A group of one: nothing is sent. All are equal, so that solvers with the same settings are."""

    rank: ClassVar[int] = 0
    size: ClassVar[int] = 1

    def add(self, tensors: Sequence[Tensor], *, symmetric: Sequence[Tensor] = ()) -> None:
        """Leave the tensors as they are."""

    def maximum(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""

    def hand_out(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Leave the tensors as they are."""

    def __repr__(self) -> str:
        return "ALONE"


ALONE = Alone()


class Processes:
    """The processes of `torch.distributed` in its initialised default group, gloo or nccl.

    sent: bytes that this process has handed to collective operations, see `traffic`. Of a symmetric matrix the lower
    triangle travels. Raises `LostProcess` where the others do not answer.
    """

    def __init__(self) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "no process group of torch.distributed is initialised",
                "call torch.distributed.init_process_group first, or use `with joined() as group`",
            )
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.sent = 0
        self._backend = str(dist.get_backend())

    def __repr__(self) -> str:
        return f"Processes(rank {self.rank} of {self.size}, {self._backend})"

    def add(self, tensors: Sequence[Tensor], *, symmetric: Sequence[Tensor] = ()) -> None:
        """Replace each float64 tensor by its sum over the processes, all in one message; also symmetric matrices."""
        triangles = [torch.tril_indices(len(m), len(m), device=m.device).unbind() for m in symmetric]
        packed = [matrix[lower] for matrix, lower in zip(symmetric, triangles, strict=True)]
        parts = [*tensors, *packed]
        flat = torch.cat([part.reshape(-1) for part in parts])
        self._reduce(flat, dist.ReduceOp.SUM)
        pieces = torch.split(flat, [part.numel() for part in parts])
        for tensor, piece in zip(tensors, pieces, strict=False):
            tensor.copy_(piece.view_as(tensor))
        for matrix, (row, column), piece in zip(symmetric, triangles, pieces[len(tensors) :], strict=True):
            matrix[row, column] = piece
            matrix[column, row] = piece

    def maximum(self, tensor: Tensor) -> None:
        """Replace each entry by its maximum over the processes; NaN counts as infinite, so that none misses it."""
        tensor.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        self._reduce(tensor, dist.ReduceOp.MAX)

    def hand_out(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Replace each tensor by that of the process that owns it."""
        for tensor, owner in zip(tensors, owners, strict=True):
            buffer = self._buffer(tensor)
            with self._answered(buffer):
                dist.broadcast(buffer, owner)
            tensor.copy_(buffer)

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        buffer = self._buffer(tensor)
        with self._answered(buffer):
            dist.all_reduce(buffer, operation)
        tensor.copy_(buffer)

    def _buffer(self, tensor: Tensor) -> Tensor:
        # Gloo works on the memory of the CPU, nccl on that of this process's GPU.
        return (tensor.cpu() if self._backend == "gloo" else tensor.cuda()).contiguous()

    @contextmanager
    def _answered(self, buffer: Tensor) -> Iterator[None]:
        try:
            yield
        except RuntimeError as fault:
            why = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            raise LostProcess(
                f"process {self.rank} of {self.size} has lost another one ({why}); start the run again, with --resume "
                "where it writes checkpoints"
            ) from fault
        self.sent += buffer.numel() * buffer.element_size()


@contextmanager
def joined(*, device: str = "cpu", patience: float = PATIENCE) -> Iterator[Group]:
    """Join the processes that torchrun started, for the block; `ALONE` where it started none.

    device: where the training computes; "cuda" takes nccl, anything else gloo. patience: seconds to wait for others.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    backend = "gloo"
    if device.startswith("cuda"):
        backend = "nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, timeout=timedelta(seconds=patience))
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


def share(group: Group, data: Data | None) -> Data | None:
    """Return the samples of this process: the rank-th of `size` stretches that differ by one sample at most.

    None where there are none for it. A lazily read set stays lazy: each process reads its own samples only.
    """
    if group.size == 1 or data is None:
        return data
    cuts = [len(data) * k // group.size for k in (group.rank, group.rank + 1)]
    return data.take(torch.arange(*cuts, device=data.targets.device)) if cuts[0] < cuts[1] else None


def neighbours(group: Group) -> int:
    """Return how many processes of the group run on this machine and share its memory: as torchrun tells, or all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", group.size)) if group.size > 1 else 1


def dealt(costs: Sequence[float], size: int) -> tuple[int, ...]:
    """Return which of `size` processes does which task: the costliest first, each to the one with least to do.

    >>> dealt([1.0, 5.0, 3.0, 3.0], 2)
    (0, 0, 1, 1)
    """
    busy, owners = [0.0] * size, [0] * len(costs)
    for task in sorted(range(len(costs)), key=lambda task: -costs[task]):
        owners[task] = busy.index(min(busy))
        busy[owners[task]] += costs[task]
    return tuple(owners)


def any_of(group: Group, flag: bool) -> bool:
    """Return whether the flag is set in any process: what one decides, all do."""
    if group.size == 1:
        return flag
    told = torch.tensor([float(flag)], dtype=torch.float64)
    group.maximum(told)
    return bool(told[0])


def check_same(group: Group, numbers: Tensor) -> None:
    """Raise `InputError`, in every process, unless all have the same numbers (to 1e-9: machines may sum in any order).

    numbers: (k,) float64 that tell the problem: counts and sums of weights and targets.
    """
    if group.size == 1:
        return
    ends = torch.cat([numbers, -numbers])
    group.maximum(ends)
    high, low = ends.chunk(2)
    if bool(((high + low).abs() > 1e-9 * high.abs().clamp_min(1.0)).any()):
        raise InputError(
            "the processes were given different networks, data or seeds",
            "give all of them the same: each takes its part",
        )
