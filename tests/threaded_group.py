"""A group of processes whose members are threads of one: sums, maxima and hand-outs through common memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Member:
    """What one thread sees of the group; `calls` are the kinds of its messages, in their order."""

    def __init__(self, rank: int, size: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._slots, self._barrier = rank, size, slots, barrier
        self.calls: list[str] = []

    def _all(self, mine: Any) -> list[Any]:
        self._slots[self.rank] = mine
        self._barrier.wait(timeout=20)
        found = list(self._slots)
        self._barrier.wait(timeout=20)
        return found

    def add(self, tensors: Sequence[Tensor], *, symmetric: Sequence[Tensor] = ()) -> None:
        self.calls.append("add")
        mine = [*tensors, *symmetric]
        for tensor, theirs in zip(mine, zip(*self._all([t.clone() for t in mine]), strict=True), strict=True):
            tensor.copy_(torch.stack(theirs).sum(0))

    def maximum(self, tensor: Tensor) -> None:
        self.calls.append("maximum")
        tensor.copy_(torch.stack(self._all(tensor.clone())).amax(0))

    def hand_out(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        self.calls.append("hand out")
        everything = self._all([t.clone() for t in tensors])
        for index, (tensor, owner) in enumerate(zip(tensors, owners, strict=True)):
            tensor.copy_(everything[owner][index])


def together(size: int, work: Callable[[Member], Any]) -> list[Any]:
    """Return what `work` gives in each of `size` threads; raises what the first of them that failed raised."""
    slots, barrier = [None] * size, threading.Barrier(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Member(rank, size, slots, barrier))
        except Exception as fault:
            found[rank] = fault
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = [one for one in found if isinstance(one, Exception)]
    for fault in sorted(faults, key=lambda fault: isinstance(fault, threading.BrokenBarrierError)):
        raise fault
    return found
