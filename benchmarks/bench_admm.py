"""One ADMM sweep against the matrix products that it does, timed alone in the same run, and against plain updates.

    .venv/bin/python benchmarks/bench_admm.py [--width 300] [--depth 3] [--samples 10000] [--double]

The limit counts, for every layer of n samples with a inputs and b outputs, in the type of the states: the
pre-activation at the old weights, the product of the gradient with the inputs, and the pre-activation at the new ones
(2 n a b each); and for a hidden state below it the three of its step (2 n a b each) and the Gram matrix in float64
(n a^2; that of the samples is formed once in a training). Each is timed as one product of these shapes, best of three;
factorisations, casts and elementwise passes are not in it. A step behind a kink needs no product more.

The plain updates are those of `plain/admm.py`: the published formulas for sigmoids in the type of the states, explicit
inverses, on the same BLAS. Their operations in matrix products are counted beside those of the solver, once with all
operations alike, and once with those in float64 as two: the solver does the n a^2 of a Gram matrix in float64, where
the published updates have it in the type of the states. That this is what the plain updates gain is measured by two
rows more, with both in float64 and with both in the type of the states (which is no setting of the solver: saturated
states are singular to it). Sweeps of all four alternate, and each is the best of its own. The last line has the
products of both timed alone: those of the plain updates, whose samples are columns, may run at a higher rate.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from unittest import mock

import torch
from plain import admm as plain

import whydeep as wd
from whydeep.optimization.alternating.admm import weights
from whydeep.optimization.alternating.admm.iteration import ADMMIteration
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.proximal import target_rows
from whydeep.optimization.alternating.quadratic_blocks import gram


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


def plain_limit(n: int, widths: list[int], dtype: torch.dtype) -> float:
    """Seconds of the products of the plain updates, timed alone in their layout: samples are columns."""
    total = 0.0
    for index, (a, b) in enumerate(pairwise(widths)):
        hidden, weight = index < len(widths) - 2, torch.randn(b, a, dtype=dtype)
        below, above = torch.randn(a, n, dtype=dtype), torch.randn(b, n, dtype=dtype)
        up = best(lambda w=weight, v=below: w @ v)  # type: ignore[misc]
        total += best(lambda v=below: v @ v.T) + best(lambda u=above, v=below: u @ v.T)  # type: ignore[misc]
        total += (4 if hidden else 2) * up  # W P twice, the multiplier and C; for the output the last two
        if index:
            square = torch.randn(a, a, dtype=dtype)
            total += best(lambda m=square, v=below: m @ v) + (2 if hidden else 0) * up  # type: ignore[misc]
            total += best(lambda w=weight, u=above: w.T @ u)  # type: ignore[misc]
    return total


def operations(widths: list[int], n: int, *, double: float) -> float:
    """In the matrix products of one sweep of the solver, that of the samples' Gram matrix left out.

    double: what an operation of the Gram matrices counts.
    """
    pairs = enumerate(pairwise(widths))
    return sum(2.0 * n * a * b * (6 if index else 3) + (double * n * a * a if index else 0) for index, (a, b) in pairs)


def plain_grams(widths: list[int], n: int) -> float:
    """Operations of the plain updates in P P'; those of the samples are formed in every sweep."""
    return sum(2.0 * n * a * a for a in widths[:-1])


def beside_plain(problem: wd.Problem, widths: list[int], dtype: torch.dtype) -> None:
    n, chain = len(problem.train), Chain.of(problem.model)
    y = target_rows(problem.train.targets, 10).T.to(dtype).contiguous()

    def solver() -> ADMMIteration:
        return ADMMIteration(wd.optimization.ADMM(ridge=1.0, dtype=dtype), problem, chain, problem.train)

    def published() -> object:
        return plain.start(chain.weights(dtype), chain.rows(problem.train, dtype).T.contiguous())

    def coarse() -> None:
        # With a shift that outweighs any rounding a Gram matrix is formed in the type of the states.
        with mock.patch.object(weights, "gram", partial(gram, shift=math.inf)):
            loose.sweep()

    ours, loose, theirs, wide = solver(), solver(), published(), published()
    calls = {
        "solver": ours.sweep,
        "solver, coarse": coarse,
        "plain": lambda: plain.sweep(theirs, y, 1.0, 1.0),
        "plain, double": lambda: plain.sweep(wide, y, 1.0, 1.0, torch.float64),
    }
    for one in (ours, loose):
        one.sweep()  # forms the Gram matrix of the samples
    rounds = [{name: best(call, 1) for name, call in calls.items()} for _ in range(3)]
    least = {name: min(times[name] for times in rounds) for name in calls}
    done, twice = plain.products(widths, n), 2.0 if dtype is torch.float32 else 1.0
    doubled = done + (twice - 1) * plain_grams(widths, n)
    single = str(dtype).removeprefix("torch.")
    rows = [
        (f"{single}, float64: as they are", "plain", "solver", done, twice),
        ("float64, float64", "plain, double", "solver", doubled, twice),
        (f"{single}, {single}", "plain", "solver, coarse", done, 1.0),
    ]
    head = "Gram matrices: plain, solver | plain sweep, s | the solver's, s | ratio"
    print(f"\n| {head} | operations, all alike | those in float64 twice |\n|{' --- |' * 6}")
    alone, own = plain_limit(n, widths, dtype), limit(n, widths, dtype)
    few = operations(widths, n, double=1.0)
    for words, one, other, counted, double in rows:
        print(
            f"| {words} | {least[one]:.3f} | {least[other]:.3f} | {least[one] / least[other]:.2f} "
            f"| {done / few:.2f} | {counted / operations(widths, n, double=double):.2f} |"
        )
    print(f"\nproducts alone: the plain updates' {alone:.3f} s, the solver's {own:.3f} s, ratio {alone / own:.2f}")


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
    beside_plain(wd.Problem(sigmoid, data, loss="squared"), widths, dtype)


if __name__ == "__main__":
    main()
