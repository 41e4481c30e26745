"""One ADMM sweep against the matrix products that it cannot do without, timed alone in the same run.

    .venv/bin/python benchmarks/bench_admm.py [--width 300] [--depth 3] [--samples 10000]

The limit counts, for every layer of n samples with a inputs and b outputs, in float64: the Gram matrix (2 n a^2), the
product of the gradient with the inputs (2 n a b), the forward product at the new weights (2 n a b), and for a hidden
state the forward product above (2 n a b), the product with the weights above (2 n a b) and the solve (2 n a^2).
Each is timed as one product of these shapes, best of three; factorisations and elementwise passes are not in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch

import whydeep as wd


def best(call: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def product(n: int, a: int, b: int) -> float:
    """Seconds of an (a, n) x (n, b) product in float64."""
    left, right = torch.randn(n, a, dtype=torch.float64), torch.randn(n, b, dtype=torch.float64)
    return best(lambda: left.T @ right)


def limit(n: int, widths: list[int]) -> float:
    total = 0.0
    for index, (a, b) in enumerate(pairwise(widths)):
        total += product(n, a, a) + 2 * product(n, a, b)
        if index:  # the state below this layer is a variable
            total += product(n, a, a) + 2 * product(n, a, b)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(options.samples, 784, generator=generator)
    data = wd.Data(x, torch.randint(10, (options.samples,), generator=generator), classes=10)
    widths = [784, *[options.width] * options.depth, 10]
    model = wd.networks.mlp(widths, activation="sigmoid", init="xavier", gain=4.0, generator=generator)
    problem = wd.Problem(model, data, loss="squared")
    seconds = wd.optimization.ADMM(sweeps=4).train(problem).history["seconds"].diff()
    sweep, least = float(seconds.min()), limit(options.samples, widths)
    print(f"{'-'.join(map(str, widths))}, n={options.samples}, float64, {torch.get_num_threads()} threads")
    print("| | seconds |\n| --- | --- |")
    print(f"| one sweep (best of 4) | {sweep:.3f} |\n| its products alone | {least:.3f} |")
    print(f"| ratio | {sweep / least:.2f} |")


if __name__ == "__main__":
    main()
