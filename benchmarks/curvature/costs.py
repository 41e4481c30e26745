"""What a product costs in gradients, and the memory of a whole report."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from whydeep.optimization.landscape import Hessian

from .report import Task, seeded

BLOCKS = (1, 2, 4, 8)


def product_cost(job: Task, rounds: int = 15) -> tuple[float, dict[int, float]]:
    """CPU seconds of a gradient, and what a product costs in gradients by the size of its block: medians, in turns."""
    hessian = Hessian(job.problem)
    blocks = {size: torch.randn(size, hessian.size, generator=seeded(0)) for size in BLOCKS}
    weights = [value.detach().requires_grad_() for value in job.weights]
    names = [name for name, _ in job.model.named_parameters()]

    def gradient() -> None:
        output = torch.func.functional_call(job.model, dict(zip(names, weights, strict=True)), (job.x,))
        torch.autograd.grad(nn.functional.cross_entropy(output, job.y), weights)

    gradients: list[float] = []
    ratios: dict[int, list[float]] = {size: [] for size in BLOCKS}
    for _ in range(rounds):
        times = []
        for call in (gradient, gradient, gradient, *(lambda b=block: hessian(b) for block in blocks.values())):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        gradients.append(statistics.median(times[:3]))
        for size, seconds in zip(BLOCKS, times[3:], strict=True):
            ratios[size].append(seconds / size / gradients[-1])
    return statistics.median(gradients), {size: statistics.median(column) for size, column in ratios.items()}


def peak_memory(width: int) -> tuple[int, float, float]:
    """Parameters, peak of resident memory of a fresh process in bytes, and its CPU seconds: 784-width-width-10."""
    script = (
        "import torch, whydeep as wd\n"
        "from whydeep.optimization.landscape import spectrum\n"
        "torch.set_num_threads(1)\n"
        f"model = wd.networks.mlp((784, {width}, {width}, 10), init='he', generator=torch.Generator().manual_seed(0))\n"
        "data = wd.Data(torch.rand(256, 784), torch.arange(256) % 10, classes=10)\n"
        "seen = spectrum(wd.Problem(model, data), tolerance=0.0, trace_tolerance=0.0, probes=12)\n"
        "assert seen.products == 152\n"  # every step of the default, and the trace's probes
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    size = 784 * width + width * width + 10 * width + 2 * width + 10
    return size, 1024 * after.ru_maxrss, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
