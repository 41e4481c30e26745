"""On an accelerator: MNIST to .98 beside Adam, wide layers by the precision of the products, a ResNet-18's spectrum.

    .venv/bin/python benchmarks/bench_device.py [mnist|wide|resnet] [--device cuda] [--small]

mnist: 784-3x300-10 sigmoid, Xavier with gain 4, all 60,000 images on the device; after each pass the test accuracy,
its time not counted. StochasticADMM with its defaults; Adam with batches of 128 and of 1,024 (a device is idle with
small ones), cosine schedule over ten passes, each with the better step size of two on the last 10,000 training images.
wide: a full-batch ADMM sweep of 784-2x8192-10 on 8,192 random samples, the matrix products in float32, TF32 and
bfloat16 (`torch.set_float32_matmul_precision`; Gram matrices stay in float64): seconds a sweep, and how far the
augmented Lagrangian after the sweeps is from that in float32.
resnet: the report of `spectrum` (ten largest eigenvalues, trace, density) of a ResNet-18 at CIFAR's size, 11 million
weights, random images: seconds, products, gradients' worth of a product, peak memory.
--small: sizes for a look on a CPU. Nothing here was run on a GPU yet; the figures wait for one.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whydeep as wd
from whydeep.core.training import Progress, Solver
from whydeep.networks import mlp
from whydeep.optimization import ADMM, Backprop, StochasticADMM, landscape

PRECISIONS = {"highest": "float32", "high": "TF32", "medium": "bfloat16"}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(device: str, call: Callable[[], object]) -> float:
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def accuracy(model: nn.Module, data: wd.Data) -> float:
    with torch.no_grad():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in data.batches(10_000)) / len(data)


def adam(lr: float, batch_size: int, epochs: int) -> Backprop:
    options = {"fused": True}
    return Backprop(torch.optim.Adam, lr=lr, epochs=epochs, batch_size=batch_size, schedule="cosine", options=options)


def mnist(device: str, folder: str, small: bool) -> None:
    train, test = wd.data.load(f"mnist:{folder}")
    if small:
        train = train.take(torch.arange(6000))
    train, test = train.to(device), test.to(device)
    cut = len(train) * 5 // 6
    inner, held = train.take(torch.arange(cut)), train.take(torch.arange(cut, len(train)))

    def start(data: wd.Data) -> wd.Problem:
        generator = torch.Generator().manual_seed(0)
        model = mlp((784, 300, 300, 300, 10), activation="sigmoid", init="xavier", gain=4.0, generator=generator)
        return wd.Problem(model.to(device), data)

    passes = 2 if small else 10
    solvers: dict[str, Callable[[int], Solver]] = {"StochasticADMM": lambda epochs: StochasticADMM(epochs=epochs)}
    for batch_size in (128, 1024):
        grid = (1e-3, 3e-3) if batch_size == 128 else (3e-3, 1e-2)
        found = {lr: accuracy(adam(lr, batch_size, passes).train(start(inner)).model, held) for lr in grid}
        best = max(grid, key=lambda lr: found[lr])
        solvers[f"Adam, batches of {batch_size}, lr {best:g}"] = partial(adam, best, batch_size)
    print("| method | passes | seconds | test accuracy |\n| --- | --- | --- | --- |")
    for name, solver in solvers.items():
        # A schedule ends at its last pass, so every number of passes is a run of its own.
        for epochs in (1, passes) if small else (1, 2, 3, 5, passes):
            training = solver(epochs).train(start(train), generator=torch.Generator().manual_seed(0))
            print(f"| {name} | {epochs} | {training.seconds:.2f} | {accuracy(training.model, test):.4f} |", flush=True)


def wide(device: str, small: bool) -> None:
    width, n, sweeps = (256, 512, 3) if small else (8192, 8192, 5)
    generator = torch.Generator().manual_seed(0)
    data = wd.Data(torch.rand(n, 784, generator=generator), torch.randint(10, (n,), generator=generator), classes=10)
    model = mlp((784, width, width, 10), activation="sigmoid", init="xavier", gain=2.0, generator=generator)
    problem = wd.Problem(model.to(device), data.to(device), loss="squared")
    print(f"784-2x{width}-10, {n} samples\n| products in | seconds a sweep | objective, from that of float32 |")
    print("| --- | --- | --- |")
    before, exact = torch.get_float32_matmul_precision(), float("nan")
    try:
        for precision, name in PRECISIONS.items():
            torch.set_float32_matmul_precision(precision)
            history = ADMM(sweeps=sweeps).train(problem).history
            reached = float(history["objective"][-1])
            exact = reached if precision == "highest" else exact
            sweep = float(history["seconds"].diff()[1:].min())  # the first also forms the Gram matrix of the samples
            print(f"| {name} | {sweep:.3f} | {reached / exact - 1:+.1e} |", flush=True)
    finally:
        torch.set_float32_matmul_precision(before)


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation, around which the input goes (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.around = short if stride > 1 or before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.around(x))


def resnet18(classes: int = 10, width: int = 64) -> nn.Module:
    widths, layers = [width, width, 2 * width, 4 * width, 8 * width], list[nn.Module]()
    for stage, (before, after) in enumerate(pairwise(widths)):
        layers += [Block(before, after, 1 if stage == 0 else 2), Block(after, after, 1)]
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes))


def resnet(device: str, small: bool) -> None:
    n, batch_size, width = (32, 16, 8) if small else (2048, 256, 64)
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator)
    data = wd.Data(x, labels, classes=10)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # PyTorch's layers know no other generator at their start
        model = resnet18(width=width)
    problem = wd.Problem(model.to(device), data.to(device))

    def gradient() -> None:
        for x, y in problem.train.batches(batch_size):
            loss = F.cross_entropy(model(x), y)
            torch.autograd.grad(loss, list(model.parameters()))

    model.eval()  # as the spectrum is taken
    gradient()
    one = min(seconds(device, gradient) for _ in range(3))
    told: list[Progress] = []
    began = time.perf_counter()
    found = landscape.spectrum(
        problem,
        top=10,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(0),
        callback=told.append,
        steps=10 if small else None,
    )
    wait(device)
    took = time.perf_counter() - began
    on_gpu = device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(value.numel() for value in model.parameters())
    print(f"ResNet-18, {size:,} weights, {n} images of 3x32x32\n")
    print("| seconds | products | a product, gradients | largest | residual | trace | peak memory, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {took:.1f} | {found.products} | {took / found.products / one:.2f} | {float(found.eigenvalues[0]):.4g} "
        f"| {float(found.residuals[0]):.1e} | {found.trace:.4g} +- {found.trace_error:.2g} | {peak / 1e9:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["mnist", "wide", "resnet", "all"], default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", default=os.path.join(os.environ.get("WHYDEEP_DATA", "../shared/data"), "mnist"))
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    options = parser.parse_args()
    small = options.small or options.device == "cpu"
    if small and not options.small:
        print("no GPU here: small sizes, which say nothing about one\n")
    if options.part in ("mnist", "all"):
        mnist(options.device, options.data, small)
    if options.part in ("wide", "all"):
        wide(options.device, small)
    if options.part in ("resnet", "all"):
        resnet(options.device, small)


if __name__ == "__main__":
    main()
