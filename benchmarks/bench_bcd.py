"""BCD against the matrix products that it cannot do without, against the plain updates, and its accuracy on MNIST.

    .venv/bin/python benchmarks/bench_bcd.py [--samples 10000] [--width 1500] [--depth 3]      speed
    .venv/bin/python benchmarks/bench_bcd.py --accuracy [--data DIR] [--samples 10000] [--sweeps 20] [--seeds 1]
    .venv/bin/python benchmarks/bench_bcd.py --full [three|ten] [--data DIR]       60,000 images, published networks

The limit counts, for every layer of n samples with a inputs and b outputs, the product of the residuals with the
inputs (2 n a b operations), the forward product (2 n a b; 2 n b b where b < a behind a hidden state), and for a hidden
state its Gram matrix in double precision (n a a, the symmetric half) and two products with the weights above it
(2 n a b each). Each is timed alone in the same run, best of three. Factorisations and elementwise passes are not in it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from plain import bcd as plain

import whydeep as wd
from whydeep.optimization.alternating.bcd.bcd import BCD


def best(call: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def product(n: int, a: int, b: int, *, tall: bool = True, dtype: torch.dtype = torch.float32) -> float:
    """Seconds of (a, n) x (n, b), or of (n, a) x (a, b)."""
    left, right = torch.randn(n, a, dtype=dtype), torch.randn(n if tall else a, b, dtype=dtype)
    return best(lambda: (left.T if tall else left) @ right)


def limit(n: int, widths: list[int]) -> tuple[float, float]:
    """Seconds of the necessary products, and their operations."""
    seconds = operations = 0.0
    for index, (a, b) in enumerate(pairwise(widths)):
        seconds += product(n, a, b) + (product(n, min(a, b) if index else a, b, tall=False))
        operations += 2.0 * n * b * (a + (min(a, b) if index else a))
        if index:
            seconds += product(n, a, a, dtype=torch.float64) / 2
            seconds += product(n, a, b, tall=False) + product(n, b, a, tall=False)
            operations += 1.0 * n * a * a + 4.0 * n * a * b
    return seconds, operations


def network(widths: list[int], start: str, seed: int) -> torch.nn.Sequential:
    """The published start (normal of deviation 0.01, biases 0.1), He's, or He's with hidden squares at the identity.

    States of rectifiers are not negative, so that they pass through identities unchanged: however deep, the network
    starts as one with a single hidden layer.
    """
    generator = torch.Generator().manual_seed(seed)
    model = wd.networks.mlp(widths, init="he", generator=generator)
    with torch.no_grad():
        if start == "published":
            for value in model.parameters():
                drawn = 0.01 * torch.randn(value.shape, generator=generator)
                value.copy_(drawn if value.ndim == 2 else torch.full_like(value, 0.1))
        elif start == "identity":
            for layer in [module for module in model if isinstance(module, torch.nn.Linear)][1:-1]:
                torch.nn.init.eye_(layer.weight)
    return model


def speed(n: int, widths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, widths[0], generator=generator), torch.randint(10, (n,), generator=generator)
    model = network(widths, "he", 0)
    training = BCD(sweeps=3).train(wd.Problem(model, wd.Data(x, y, classes=10), loss="squared"))
    ours = float(training.history["seconds"].diff().min())
    least, operations = limit(n, widths)
    linears = [module for module in model if isinstance(module, torch.nn.Linear)]
    parameters = [layer.weight.detach() for layer in linears], [layer.bias.detach() for layer in linears]
    variables = plain.start(*parameters, x.T)
    targets = torch.nn.functional.one_hot(y, 10).float().T
    theirs = best(lambda: plain.sweep(variables, targets, 1.0, 1.0, 5.0), 2)
    counted = plain.products(widths, n)
    print(f"{'-'.join(map(str, widths))}, n = {n}, float32, {torch.get_num_threads()} threads\n")
    print("| | seconds a sweep | over its products | 1e9 operations |\n| --- | --- | --- | --- |")
    print(f"| the products alone | {least:.2f} | 1 | {operations / 1e9:.0f} |")
    print(f"| BCD | {ours:.2f} | {ours / least:.2f} | {operations / 1e9:.0f} |")
    print(f"| plain updates | {theirs:.2f} | {theirs / least:.2f} | {counted / 1e9:.0f} |")
    print(
        f"\nfaster than the plain updates by {theirs / ours:.2f}; products saved {counted / operations:.2f}\n",
        flush=True,
    )


def accuracy(options: argparse.Namespace, rows: list[tuple[str, list[int], str, BCD]]) -> None:
    """Train on the first images; where a solver has a validation split it keeps back its share of them."""
    train, test = wd.data.load(f"mnist:{options.data}")
    train = train.take(torch.arange(options.samples))
    print("| network | start | method | seed | train | test at the end | test, best by validation | seconds a sweep |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, widths, start, solver in rows:
        for seed in range(options.seeds):
            problem = wd.Problem(network(widths, start, seed), train, test, loss="squared")
            training = solver.train(problem, generator=torch.Generator().manual_seed(seed))
            error = float(wd.core.errors(training.model, test).double().mean())
            fitted = float(training.history["error"][-1])
            shown = ("", f"{1 - error:.4f}") if solver.validation else (f"{1 - error:.4f}", "")
            seconds = training.seconds / (len(training.history["seconds"]) - 1)
            cells = (name, start, words(solver), seed, f"{1 - fitted:.4f}", *shown, f"{seconds:.1f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def words(solver: BCD) -> str:
    again = f", re-synchronised every {solver.resynchronise}" if solver.resynchronise else ""
    return f"gamma {solver.gamma:g}, rho {solver.rho:g}, alpha {solver.alpha:g}, {solver.sweeps} sweeps{again}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--sweeps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=5.0)
    parser.add_argument("--rho", type=float, default=1.0)
    parser.add_argument("--resynchronise", type=int, default=0)
    parser.add_argument("--start", choices=("published", "he", "identity"), default="published")
    parser.add_argument("--data", default=os.environ.get("WHYDEEP_DATA", "../shared/data") + "/mnist")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--full", nargs="?", choices=("all", "three", "ten"), const="all")
    options = parser.parse_args()
    options.samples = options.samples or (60_000 if options.full else 10_000)
    widths = [784, *[options.width] * options.depth, 10]
    if options.full:
        published = ("3 x 1500", [784, 1500, 1500, 1500, 10], "published", BCD(sweeps=options.sweeps or 50))
        # Chosen on the last 10,000 training images, trained on 10,000 others.
        deep = BCD(sweeps=options.sweeps or 50, rho=0.1, alpha=1.0, validation=1 / 12)
        ten = ("10 x 600", [784, *[600] * 10, 10], "identity", deep)
        accuracy(options, {"all": [published, ten], "three": [published], "ten": [ten]}[options.full])
    elif options.accuracy:
        solver = BCD(
            sweeps=options.sweeps or 20,
            rho=options.rho,
            alpha=options.alpha,
            resynchronise=options.resynchronise,
        )
        accuracy(options, [(f"{options.depth} x {options.width}", widths, options.start, solver)])
    else:
        speed(options.samples, widths)


if __name__ == "__main__":
    main()
