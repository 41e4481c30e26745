"""How much memory a training needs and how much there is: said before the start, with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.optimization.alternating.chain import Chain

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Return how many bytes can still be taken on a device; None where the system does not tell.

    On the CPU the least of: what the system calls available (free pages and caches it would drop), what a control group
    leaves of its limit, and what the limits of the process on its address space and its data leave. On a CUDA device
    what is free there.
    """
    kind = torch.device(device)
    if kind.type == "cuda":
        return int(torch.cuda.mem_get_info(kind)[0])
    if kind.type != "cpu":
        return None
    found = [amount for amount in (_of_the_system(), _of_the_control_group(), *_of_the_process()) if amount is not None]
    return max(0, min(found)) if found else None


def _of_the_system() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        return None


def _of_the_control_group() -> int | None:
    limit, used = ("".join(_lines(_CGROUP / name)).strip() for name in ("memory.max", "memory.current"))
    return int(limit) - int(used) if limit.isdigit() and used.isdigit() else None


def _of_the_process() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return []
    used = {line.split(":")[0]: line.split()[1] for line in _lines(Path("/proc/self/status")) if line.startswith("Vm")}
    found = []
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            found.append(soft - 1024 * int(used.get(name, "0")))
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def stored_bytes(chain: Chain, samples: int, *, copies: int, dtype: torch.dtype, own_samples: bool = True) -> int:
    """Return the bytes of samples, targets and states: n (d_0 + copies (d_1 + ... + d_N)) numbers and n d_N doubles.

    copies: variables of a method with one number a unit and sample, two for ADMM (V and Lambda).
    own_samples: whether the method keeps samples of its own; it uses a tensor of the right type as it is.

    >>> from torch import nn
    >>> chain = Chain.of(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    >>> stored_bytes(chain, 10, copies=2, dtype=torch.float32)  # 10 (4 (3 + 2 (5 + 2)) + 8 * 2)
    840
    """
    widths = [layer.linear.out_features for layer in chain.layers]
    numbers = own_samples * chain.layers[0].linear.in_features + copies * sum(widths)
    return samples * (numbers * dtype.itemsize + 8 * widths[-1])


def working_bytes(chain: Chain, *, rows: int, dtype: torch.dtype) -> int:
    """Return the most bytes of a sweep beside what is stored: temporaries of `rows` samples, and matrices of a layer.

    Some eight temporaries of the widest layer, and a residual of every layer for what is watched. In float64 the
    Gram matrices of all layers (A'A, its scaled copy, its factor: three of the widest beside one of each), and the
    products G'A of all layers twice.
    """
    shapes = [(layer.linear.out_features, layer.linear.in_features + layer.bias) for layer in chain.layers]
    widest = max(max(shape) for shape in shapes)
    temporaries = rows * (8 * widest + 4 * sum(outputs for outputs, _ in shapes)) * max(dtype.itemsize, 4)
    grams = sum(inputs**2 for _, inputs in shapes) + 3 * max(inputs for _, inputs in shapes) ** 2
    return temporaries + 8 * (grams + 2 * sum(outputs * inputs for outputs, inputs in shapes))


def check_memory(name: str, needed: int, *, samples: int, device: torch.device, remedy: str) -> None:
    """Raise `InputError` with both numbers when a training needs more memory than there is; `remedy`: what to do."""
    free = available_memory(device)
    if free is not None and needed > free:
        where = "" if device.type == "cpu" else f" on {device}"
        raise InputError(
            f"{name} needs about {gigabytes(needed)} for {samples:,} samples in this network and {gigabytes(free)} are "
            f"free{where}",
            remedy,
        )


def check_states(name: str, chain: Chain, data: Data, *, copies: int, dtype: torch.dtype | None) -> None:
    """Raise `InputError` when a method that keeps `copies` numbers a unit and sample in memory has not enough of it.

    Counted is one copy more, for temporaries of whole layers. dtype: of the states; None is that of the network.
    """
    chosen = dtype or chain.dtype
    given = isinstance(data.x, Tensor) and data.x.dtype == chosen
    needed = stored_bytes(chain, len(data), copies=copies + 1, dtype=chosen, own_samples=not given)
    needed += working_bytes(chain, rows=min(1024, len(data)), dtype=chosen)
    remedy = "take fewer samples, ADMM with streaming=True, or StochasticADMM"
    check_memory(name, needed, samples=len(data), device=chain.layers[0].linear.weight.device, remedy=remedy)


def gigabytes(size: float) -> str:
    """Return a size in words.

    >>> gigabytes(2.5e9), gigabytes(3e6)
    ('2.5 GB', '0.003 GB')
    """
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"
