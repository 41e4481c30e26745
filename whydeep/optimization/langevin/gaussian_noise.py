"""The noise of Langevin dynamics: a fresh Gaussian vector as long as the network at every step.

For a network of some hundred thousand weights this vector costs as much as forward and backward pass together, so it
is drawn by the faster of two exact ways and, where a second core is there, while the network computes its gradient.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

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


class GaussianNoise:
    """Standard normal tensors shaped like given ones, in memory that is kept.

    generator: draws for every device and type but float32 on the CPU; those are drawn by `BoxMuller`, seeded by the
    generator's next draw at the first use. The numbers do not depend on whether they were drawn ahead.
    Memory: as much as the tensors; twice that where a second core can draw ahead.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.fast: BoxMuller | None = None
        self._shapes: tuple[tuple[torch.Size, Kind], ...] = ()
        self._draws: list[_Draw] = []
        self._thread: _Thread | None = None

    def like(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return one standard normal tensor for each, drawn in their order; they hold until the next call."""
        shapes = tuple((value.shape, (value.device, value.dtype)) for value in tensors)
        if shapes != self._shapes or (self._thread is not None and self._thread.lost):
            self._arrange(shapes)
        drawn: list[Tensor] = [NOTHING] * len(tensors)
        for draw in self._draws:
            for position, piece in zip(draw.positions, self._fill(draw), strict=True):
                drawn[position] = piece
        return drawn

    def _arrange(self, shapes: tuple[tuple[torch.Size, Kind], ...]) -> None:
        """Keep memory for tensors of other shapes; what was drawn ahead for the last ones is taken back."""
        self._take_back()
        self._shapes, self._draws = shapes, []
        for kind in dict.fromkeys(kind for _, kind in shapes):
            positions = [n for n, (_, other) in enumerate(shapes) if other == kind]
            self._draws.append(_Draw(kind, positions, [shapes[n][0] for n in positions], self.generator.device))

    def _fill(self, draw: _Draw) -> list[Tensor]:
        """Return the pieces of a fresh draw."""
        if not draw.fast:
            # A generator draws only on its own device; for tensors elsewhere the draw is copied.
            draw.buffers[0].normal_(generator=self.generator)
            return draw.pieces[0] if draw.at_home else draw.elsewhere()
        fast = self._fast()
        if self._thread is not None and self._thread.busy:
            self._thread.wait()
        else:
            fast.fill(draw.arrays[draw.turn])
        return draw.pieces[draw.turn]

    def draw_ahead(self) -> None:
        """Let a second thread draw what the next call of `like` returns, where that is worth it.

        The numbers returned last are not disturbed. Called when they have been used, so that both threads do not
        compete for the memory.
        """
        for draw in self._draws:
            if len(draw.buffers) == 2 and self.fast is not None and (self._thread is None or not self._thread.busy):
                draw.turn = 1 - draw.turn
                if self._thread is None:
                    self._thread = _Thread()
                self._thread.begin(self.fast, draw.arrays[draw.turn])

    def _take_back(self) -> None:
        """Return the fast generator to before what was drawn ahead and not used."""
        if self._thread is None or self.fast is None:
            return
        busy, before = self._thread.busy, self._thread.before
        if self._thread.lost:
            # The thread may have held the lock of the fast generator at the fork, and nobody here releases it.
            self._thread, fast = None, BoxMuller(0)
            fast.bits.state = before if busy else self.fast.bits.state
            self.fast = fast
        elif busy:
            self._thread.wait()
            self.fast.bits.state = before

    def _fast(self) -> BoxMuller:
        if self.fast is None:
            self.fast = BoxMuller(int(torch.randint(2**62, (), generator=self.generator)))
        return self.fast

    def state(self) -> tuple[Tensor, Tensor | None]:
        """Return the state of `generator`, and the fast one's where it was used; what was drawn ahead is not spent."""
        if self.fast is None:
            return self.generator.get_state(), None
        ahead = self._thread is not None and self._thread.busy
        state = self._thread.before if ahead and self._thread is not None else self.fast.bits.state
        return self.generator.get_state(), _words(state)

    def restore(self, state: Tensor, fast: Tensor | None) -> None:
        """Go on where `state` was taken."""
        self._take_back()
        # Checkpoints are often read onto an accelerator; a generator's state lives on the CPU.
        self.generator.set_state(state.cpu())
        self.fast = None
        if fast is not None:
            self.fast = BoxMuller(0)
            # Words of 32 bits are never drawn alone, so no half of one is left over.
            words = fast.cpu().numpy().view(np.uint64)
            self.fast.bits.state = self.fast.bits.state | {"state": {"state": words}}


NOTHING = torch.empty(0)


class _Draw:
    """The memory of one device and type: a buffer, or two that take turns, with views shaped like the tensors."""

    def __init__(self, kind: Kind, positions: list[int], shapes: list[torch.Size], home: torch.device) -> None:
        device, dtype = kind
        self.positions, self.device, self.turn = positions, device, 0
        self.at_home = device == home
        self.fast = dtype is torch.float32 and device.type == "cpu" and self.at_home
        sizes = [shape.numel() for shape in shapes]
        length = sum(sizes) + (sum(sizes) % 2 if self.fast else 0)
        ahead = self.fast and length >= AHEAD_FROM and _cores() > 1
        self.shapes, self.sizes = shapes, sizes
        self.buffers = [torch.empty(length, dtype=dtype, device=home) for _ in range(2 if ahead else 1)]
        self.arrays = [buffer.numpy() for buffer in self.buffers] if self.fast else []
        self.pieces = [self._split(buffer) for buffer in self.buffers]

    def _split(self, buffer: Tensor) -> list[Tensor]:
        parts = torch.split(buffer[: sum(self.sizes)], self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def elsewhere(self) -> list[Tensor]:
        """Return the pieces of a copy on the tensors' device."""
        return self._split(self.buffers[0].to(self.device))


class _Thread:
    """A second thread that fills one array at a time; it ends with the object that it serves."""

    def __init__(self) -> None:
        jobs: SimpleQueue[tuple[BoxMuller, NDArray[np.float32]] | None] = SimpleQueue()
        done: SimpleQueue[Exception | None] = SimpleQueue()
        self._jobs, self._done, self._process = jobs, done, os.getpid()
        self.busy = False
        self.before: Any = None
        threading.Thread(target=_fill_until_none, args=(jobs, done), name="noise", daemon=True).start()
        weakref.finalize(self, jobs.put, None)

    @property
    def lost(self) -> bool:
        """Whether this process is a fork of the one that the thread lives in."""
        return self._process != os.getpid()

    def begin(self, fast: BoxMuller, array: NDArray[np.float32]) -> None:
        """Let the thread fill `array`; `before` keeps the generator's state until then."""
        self.before, self.busy = fast.bits.state, True
        self._jobs.put((fast, array))

    def wait(self) -> None:
        """Return when the array is filled; only in the process of the thread."""
        fault = self._done.get()
        self.busy = False  # an interrupted wait has not taken the answer: the next one does
        if fault is not None:
            raise fault


def _fill_until_none(
    jobs: SimpleQueue[tuple[BoxMuller, NDArray[np.float32]] | None], done: SimpleQueue[Exception | None]
) -> None:
    while (job := jobs.get()) is not None:
        fast, array = job
        try:
            fast.fill(array)
            done.put(None)
        except Exception as fault:  # handed to the thread that waits
            done.put(fault)


def _words(state: Any) -> Tensor:
    """The four words of SFC64's state, (4,) int64."""
    return torch.from_numpy(state["state"]["state"].view(np.int64).copy())


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
