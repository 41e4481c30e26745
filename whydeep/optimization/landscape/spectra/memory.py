"""Memory that a spectrum needs, told before the start."""

from __future__ import annotations

from pathlib import Path

import torch

from whydeep.core.errors import InputError

from .trace import AT_ONCE


def available(device: torch.device) -> int | None:
    """Return the bytes that are free on `device`; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    free = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free) if free else None


def spectrum_bytes(size: int, *, block: int, steps: int, kept: int, width: int) -> int:
    """Return the bytes that block Lanczos and the trace hold at most: basis, vectors returned, and a few blocks.

    size: parameters p; width: bytes a number; kept: eigenvectors returned. The basis and the vectors are there to the
    end; beside them, for each of b vectors of a block or of the `AT_ONCE` probes, what it is multiplied from and to,
    two copies on the way, and two for orthogonality; and the network with its gradient: 6 b + 3.
    The graph of the products is not in it: it grows with the batch, not with the basis.
    """
    return (min(size, block * steps) + _beside(block, kept)) * size * width


def check(size: int, *, block: int, steps: int, kept: int, width: int, limit: int | None) -> int:
    """Return `spectrum_bytes`; raise `InputError` when it exceeds `limit`, saying the steps that would fit."""
    needed = spectrum_bytes(size, block=block, steps=steps, kept=kept, width=width)
    if limit is None or needed <= limit:
        return needed
    beside = _beside(block, kept)
    fits = (limit // (size * width) - beside) // block
    given = f"a spectrum of {size:,} parameters by {steps} steps of {block} vectors needs {needed / 1e9:.3g} GB"
    least = max(5, -(-kept // block))
    if fits >= least:
        remedy = f"give steps={fits}, which fits, at the price of larger residuals"
    else:
        most = limit // (width * (least * block + beside))
        remedy = f"give at most {most:,} parameters (freeze layers, or per_layer=True), or a smaller block"
    raise InputError(f"{given}, and {limit / 1e9:.3g} GB are free", remedy)


def _beside(block: int, kept: int) -> int:
    """Return the vectors that are held beside the basis."""
    return kept + 6 * max(block, AT_ONCE) + 3
