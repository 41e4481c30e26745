"""One ADMM sweep against the matrix products that it does, timed alone in the same run, and against plain updates.

    .venv/bin/python benchmarks/bench_admm.py [--width 300] [--depth 3] [--samples 10000] [--double]

The limit counts, for every layer of n samples with a inputs and b outputs, in the type of the states: the
pre-activation at the old weights, the product of the gradient with the inputs, and the pre-activation at the new ones
(2 n a b each); and for a hidden state below it the three of its step (2 n a b each) and the Gram matrix in float64
(n a^2; that of the samples is formed once in a training). Each is timed as one product of these shapes, best of three;
factorisations, casts and elementwise passes are not in it. A step behind a kink needs no product more.

The plain updates are those of `plain/admm.py`: the published formulas for sigmoids in the type of the states, explicit
inverses, on the same BLAS. Its operations in matrix products are counted beside those of the solver, which does the
n a^2 of a Gram matrix in float64; a float64 operation counts once. The sweeps of the two alternate, and each is the
best of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from plain import admm as plain

import whydeep as wd
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import target_rows


def best(call: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def product(n: int, a: int, b: int, dtype: torch.dtype) -> float:
    """Seconds of an (n, a) x (a, b) product."""
    left, right = torch.randn(n, a, dtype=dtype), torch.randn(a, b, dtype=dtype)
    return best(lambda: left @ right)


def limit(n: int, widths: list[int], dtype: torch.dtype) -> float:
    total = 0.0
    for index, (a, b) in enumerate(pairwise(widths)):
        total += (6 if index else 3) * product(n, a, b, dtype)
        if index:
            total += product(a, n, a, torch.float64) / 2
    return total


def operations(widths: list[int], n: int) -> float:
    """In the matrix products of one sweep of the solver, that of the samples' Gram matrix left out."""
    pairs = enumerate(pairwise(widths))
    return sum(2.0 * n * a * b * (6 if index else 3) + (n * a * a if index else 0) for index, (a, b) in pairs)


def beside_plain(problem: wd.Problem, widths: list[int], dtype: torch.dtype) -> str:
    n, chain = len(problem.train), Chain.of(problem.model)
    ours = ADMMIteration(wd.optimization.ADMM(ridge=1.0, dtype=dtype), problem, chain, problem.train)
    variables = plain.start(chain.weights(dtype), chain.rows(problem.train, dtype).T.contiguous())
    y = target_rows(problem.train.targets, 10).T.to(dtype).contiguous()
    ours.sweep()  # forms the Gram matrix of the samples
    times = [(best(ours.sweep, 1), best(lambda: plain.sweep(variables, y, 1.0, 1.0), 1)) for _ in range(3)]
    mine, theirs = min(time[0] for time in times), min(time[1] for time in times)
    fewer = plain.products(widths, n) / operations(widths, n)
    return f"| {theirs:.3f} | {mine:.3f} | {theirs / mine:.2f} | {fewer:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--double", action="store_true", help="states in float64")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(options.samples, 784, generator=generator)
    data = wd.Data(x, torch.randint(10, (options.samples,), generator=generator), classes=10)
    widths = [784, *[options.width] * options.depth, 10]
    dtype = torch.float64 if options.double else torch.float32
    print(f"{'-'.join(map(str, widths))}, n={options.samples}, {dtype}, {torch.get_num_threads()} threads")
    print("| | one sweep (best of 4), s | its products alone, s | ratio |\n| --- | --- | --- | --- |")
    for activation in ("sigmoid", "relu"):
        start = torch.Generator().manual_seed(0)
        model = wd.networks.mlp(widths, activation=activation, init="xavier", gain=2.0, generator=start)
        problem = wd.Problem(model, data, loss="squared")
        least = limit(options.samples, widths, dtype)
        # The first sweep also forms the Gram matrix of the samples.
        seconds = wd.optimization.ADMM(sweeps=5, dtype=dtype).train(problem).history["seconds"].diff()[1:]
        sweep = float(seconds.min())
        print(f"| {activation} | {sweep:.3f} | {least:.3f} | {sweep / least:.2f} |")
    sigmoid = wd.networks.mlp(widths, activation="sigmoid", init="xavier", gain=2.0, generator=start)
    print("\n| plain sweep, s | the solver's, s | ratio | operations of the plain one over the solver's |")
    print("| --- | --- | --- | --- |")
    print(beside_plain(wd.Problem(sigmoid, data, loss="squared"), widths, dtype))


if __name__ == "__main__":
    main()
