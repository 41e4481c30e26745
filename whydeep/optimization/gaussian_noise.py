"""The noise of Langevin dynamics: a fresh Gaussian vector as long as the network at every step.

For a network of some hundred thousand weights this vector costs as much as forward and backward pass together, so it
is drawn by the faster of two exact ways and, where a second core is there, while the network computes its gradient.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AHEAD_FROM = 1 << 16
"""So many numbers are worth a second thread: below, handing over takes as long as drawing (about 50 microseconds)."""

Kind = tuple[torch.device, torch.dtype]


class BoxMuller:
    """Independent N(0, 1) numbers in float32: r cos(theta), r sin(theta) with r = sqrt(-2 ln u), theta uniform.

    u = k / 2^31 with k an odd integer of 31 bits, so it is never zero and |z| reaches sqrt(62 ln 2) = 6.55 (PyTorch's
    own reaches 5.77); theta = pi j / 2^31 with j an integer of 32 bits. Both bits come from SFC64, the fastest of
    NumPy's generators, seeded with `seed`.
    Source: Box and Muller 1958. Cost: half a random 64-bit word a number, four transcendental functions a pair, each
    in one vectorised pass: 1.6 times as fast as `Tensor.normal_` (270,000 numbers, one core).
    """

    def __init__(self, seed: int) -> None:
        self.bits = np.random.SFC64(seed)
        self._radius = self._angle = np.empty(0, dtype=np.float32)

    def fill(self, out: NDArray[np.float32]) -> None:
        """Fill `out` (2 m,): cosines in the first half, sines in the second."""
        m = len(out) // 2
        if len(self._radius) != m:
            self._radius, self._angle = np.empty(m, dtype=np.float32), np.empty(m, dtype=np.float32)
        radius, angle = self._radius, self._angle
        words = self.bits.random_raw(m).view(np.int32)
        first, second = words[:m], words[m:]
        np.bitwise_or(first, 1, out=first)
        np.multiply(first, np.float32(2.0**-31), out=radius, dtype=np.float32, casting="unsafe")
        np.abs(radius, out=radius)
        np.log(radius, out=radius)
        np.multiply(radius, np.float32(-2), out=radius)
        np.sqrt(radius, out=radius)
        np.multiply(second, np.float32(math.pi * 2.0**-31), out=angle, dtype=np.float32, casting="unsafe")
        np.cos(angle, out=out[:m])
        np.sin(angle, out=out[m:])
        np.multiply(out[:m], radius, out=out[:m])
        np.multiply(out[m:], radius, out=out[m:])

    @property
    def state(self) -> Tensor:
        """The four words of the generator's state, (4,) int64."""
        return torch.from_numpy(self.bits.state["state"]["state"].view(np.int64).copy())

    @state.setter
    def state(self, words: Tensor) -> None:
        # Words of 32 bits are never drawn alone, so no half of one is left over.
        self.bits.state = self.bits.state | {"state": {"state": words.cpu().numpy().view(np.uint64)}}


class GaussianNoise:
    """Standard normal tensors shaped like given ones, in memory that is kept.

    generator: draws for every device and type but float32 on the CPU; those are drawn by `BoxMuller`, seeded by the
    generator's next draw at the first use. The numbers do not depend on whether they were drawn ahead.
    Memory: as much as the tensors; twice that where the next numbers are drawn ahead.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.fast: BoxMuller | None = None
        self.buffers: dict[Kind, list[Tensor]] = {}
        self._next: Future[None] | None = None
        self._before: Tensor | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._process = 0

    def like(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return one standard normal tensor for each, drawn in their order; they hold until the next call."""
        pieces: dict[int, Tensor] = {}
        for kind in dict.fromkeys((value.device, value.dtype) for value in tensors):
            members = [n for n, value in enumerate(tensors) if (value.device, value.dtype) == kind]
            sizes = [tensors[n].numel() for n in members]
            drawn = self._draw(kind, sum(sizes))
            for n, piece in zip(members, torch.split(drawn[: sum(sizes)], sizes), strict=True):
                pieces[n] = piece.view(tensors[n].shape)
        return [pieces[n] for n in range(len(tensors))]

    def _draw(self, kind: Kind, size: int) -> Tensor:
        device, dtype = kind
        if dtype is not torch.float32 or device.type != "cpu" or self.generator.device.type != "cpu":
            # A generator draws only on its own device; for tensors elsewhere the draw is copied.
            (buffer,) = self._memory(kind, size, self.generator.device, copies=1)
            return buffer.normal_(generator=self.generator).to(device)
        even = size + size % 2
        ahead = even >= AHEAD_FROM and _cores() > 1
        waiting = self._memory(kind, even, device, copies=2 if ahead else 1)
        if self._next is not None:
            self._next.result()
            self._next = None
        else:
            self._fast().fill(waiting[0].numpy())
        drawn = waiting.pop(0)
        waiting.append(drawn)
        if ahead:
            self._begin(waiting[0])
        return drawn

    def _memory(self, kind: Kind, size: int, device: torch.device, *, copies: int) -> list[Tensor]:
        """Return the kept buffers; what was drawn ahead for another size is taken back."""
        kept = self.buffers.get(kind, [])
        if len(kept) != copies or len(kept[0]) != size or (self._next is not None and self._process != os.getpid()):
            self._take_back()
            kept = self.buffers[kind] = [torch.empty(size, dtype=kind[1], device=device) for _ in range(copies)]
        return kept

    def _begin(self, buffer: Tensor) -> None:
        fast = self._fast()
        if self._thread is None or self._process != os.getpid():  # threads do not survive a fork
            self._thread, self._process = ThreadPoolExecutor(1, thread_name_prefix="noise"), os.getpid()
        self._before = fast.state
        self._next = self._thread.submit(fast.fill, buffer.numpy())

    def _take_back(self) -> None:
        """Return the fast generator to before what was drawn ahead and not used."""
        if self._next is not None and self.fast is not None and self._before is not None:
            if self._process == os.getpid():
                self._next.result()
            self.fast.state = self._before
        self._next = None

    def _fast(self) -> BoxMuller:
        if self.fast is None:
            self.fast = BoxMuller(int(torch.randint(2**62, (), generator=self.generator)))
        return self.fast

    def state(self) -> tuple[Tensor, Tensor | None]:
        """Return the state of `generator`, and the fast one's where it was used; what was drawn ahead is not spent."""
        fast = None if self.fast is None else self.fast.state if self._next is None else self._before
        return self.generator.get_state(), None if fast is None else fast.clone()

    def restore(self, state: Tensor, fast: Tensor | None) -> None:
        """Go on where `state` was taken."""
        self._take_back()
        # Checkpoints are often read onto an accelerator; a generator's state lives on the CPU.
        self.generator.set_state(state.cpu())
        self.fast = None if fast is None else BoxMuller(0)
        if self.fast is not None and fast is not None:
            self.fast.state = fast


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
