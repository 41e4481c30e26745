"""BCD against the matrix products that it cannot do without, against the plain updates, and its accuracy on MNIST.

    .venv/bin/python benchmarks/bench_bcd.py [--samples 10000] [--width 1500] [--depth 3]      speed
    .venv/bin/python benchmarks/bench_bcd.py --accuracy [--data DIR] [--samples 10000] [--sweeps 20] [--seeds 1]
    .venv/bin/python benchmarks/bench_bcd.py --full [three|ten|published|minibatches] [--data DIR]
                                             [--checkpoint FILE --minutes 7]

--full takes 60,000 images and the published networks, of which the last twelfth is held back. With a checkpoint it ends
after so many minutes and goes on from there when it is called again, on the same path, since its states begin at the
forward pass in every sweep; "published" has the published settings, whose states a checkpoint would lose.
"minibatches" is StochasticBCD on the ten layers, in one go; --sweeps are its passes.

The limit counts, for every layer of n samples with a inputs and b outputs, the product of the residuals with the
inputs (2 n a b operations), the forward product (2 n a b; 2 n b b where b < a behind a hidden state), and for a hidden
state its Gram matrix (n a a, the symmetric half; in double precision where single would be too coarse for alpha) and
two products with the weights above it (2 n a b each). Each is timed alone in the same run, best of three.
Factorisations and elementwise passes are not in it; at 10,000 images those of 1,500 columns are a tenth of a sweep.

Tried for ten layers and not kept (held-back accuracy, ten layers of 50, 8,000 images, identity start; GRADED has .850
after eight sweeps, and a last layer refitted by least squares would have .852):
- penalties equal in all layers that grow by 1.3 or fall by 0.75 a sweep: .66, .63 after twelve, .68 without growth; the
  refit stays at .71, that of the random first layer, since no hidden layer moves;
- the last layer refitted after every sweep: .850;
- steps enlarged to the best of 1, 1.5, 2, 3, 4: a tenth less training error a sweep, for two forward passes more;
- momentum .5 with the refit: .844 after four sweeps in place of .837, level after eight; .8 swings;
- two sweeps between forward passes: .830 after six in place of .846; the cross-entropy: level.
What held all of these back is the step across the kink (`alternating.bcd.stochastic`): one hidden layer of 50 on 4,000
images is stuck at a risk of .142, and with steps on their own side goes on to .044 in twelve sweeps. Ten layers of 50,
8,000 images, held back, StochasticBCD in six passes: minibatches of 1,000, damping .1 .887, damping .3 .892; of 500
.902; of 250 .911, damping 1 .922. A constant share in place of the cosine: .907 for .902 at 500. With the step across
the kink, 1,000: .848. Grading .0075 at 250: .860; three layers of 100 from He's start: .905 at 1e-4, .879 at .0075.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from plain import bcd as plain

import whydeep as wd
from whydeep.optimization.alternating.bcd.bcd import BCD
from whydeep.optimization.alternating.bcd.stochastic import StochasticBCD
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.quadratic_blocks import enough
from whydeep.optimization.distributed.checkpoint import Checkpoint

Solver = BCD | StochasticBCD
# Chosen on images that were held back, with ten layers of 200 and 10,000 images.
GRADED = BCD(gamma=0.1, rho=0.003, alpha=0.001, grading=1e-4, damping=0.1, resynchronise=1, validation=1 / 12)


# Chosen at ten layers of 50 and 8,000 images; larger minibatches for the factorisations of 600 columns.
MINIBATCHES = StochasticBCD(batch_size=2000, damping=0.3, validation=1 / 12)


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


def limit(n: int, widths: list[int], grams: list[torch.dtype]) -> tuple[float, float]:
    """Seconds of the necessary products, and their operations; grams: the type of each hidden state's Gram matrix."""
    seconds = operations = 0.0
    for index, (a, b) in enumerate(pairwise(widths)):
        seconds += product(n, a, b) + (product(n, min(a, b) if index else a, b, tall=False))
        operations += 2.0 * n * b * (a + (min(a, b) if index else a))
        if index:
            seconds += product(n, a, a, dtype=grams[index - 1]) / 2
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
    chain = Chain.of(model)
    hidden = chain.states(chain.weights(torch.float32), x)[1:-1]
    traces = [float(v.square().sum()) + n for v in hidden]
    single = [
        enough(torch.float32, v.shape[1] + 1, trace=t, shift=5.0, times=4) for v, t in zip(hidden, traces, strict=True)
    ]
    least, operations = limit(n, widths, [torch.float32 if fits else torch.float64 for fits in single])
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


def accuracy(options: argparse.Namespace, rows: list[tuple[str, list[int], str, Solver]]) -> None:
    """Train on the first images; where a solver has a validation split it keeps back its share of them."""
    began = time.perf_counter()
    train, test = wd.data.load(f"mnist:{options.data}")
    train = train.take(torch.arange(options.samples))
    head = ["network", "start", "method", "seed", "train by sweep", "test at the end", "test, best by validation"]
    print(f"| {' | '.join([*head, 'seconds a sweep'])} |\n|{' --- |' * 8}")
    for name, widths, start, solver in rows:
        for seed in range(options.seeds):
            problem = wd.Problem(network(widths, start, seed), train, test, loss="squared")
            if options.checkpoint and isinstance(solver, BCD):
                path = Path(f"{options.checkpoint}-{name.replace(' ', '')}-{seed}.safetensors")
                solver = replace(solver, checkpoint=Checkpoint(path, every=1, resume=path.exists()))
            training = solver.train(
                problem,
                generator=torch.Generator().manual_seed(seed),
                callback=lambda _: time.perf_counter() - began > 60 * options.minutes,
            )
            found = [f"{1 - error:.4f}" for error in training.history["error"].tolist()]
            shown = ("to go on", "")
            if training.outcome.status is not wd.core.Status.INTERRUPTED:
                right = f"{1 - float(wd.core.errors(training.model, test).double().mean()):.4f}"
                shown = ("", right) if solver.validation else (right, "")
            seconds = training.seconds / max(1, len(found) - 1)
            cells = (name, start, words(solver), seed, " ".join(found[1:]), *shown, f"{seconds:.1f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def words(solver: Solver) -> str:
    if isinstance(solver, StochasticBCD):
        return f"minibatches of {solver.batch_size}, damping {solver.damping:g}, {solver.epochs} passes"
    told = f"gamma {solver.gamma:g}, rho {solver.rho:g}, alpha {solver.alpha:g}, {solver.sweeps} sweeps"
    if solver.grading < 1 or solver.damping:
        told += f", grading {solver.grading:g}, damping {solver.damping:g}"
    return told + (f", re-synchronised every {solver.resynchronise}" if solver.resynchronise else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--sweeps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=5.0)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--rho", type=float, default=1.0)
    parser.add_argument("--grading", type=float, default=1.0)
    parser.add_argument("--damping", type=float, default=0.0)
    parser.add_argument("--validation", type=float, default=0.0)
    parser.add_argument("--resynchronise", type=int, default=0)
    parser.add_argument("--start", choices=("published", "he", "identity"), default="published")
    parser.add_argument("--data", default=os.environ.get("WHYDEEP_DATA", "../shared/data") + "/mnist")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--full", nargs="?", choices=("all", "three", "ten", "published", "minibatches"), const="all")
    parser.add_argument("--checkpoint")
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    options.samples = options.samples or (60_000 if options.full else 10_000)
    widths = [784, *[options.width] * options.depth, 10]
    if options.full:
        widths = {"three": [784, 1500, 1500, 1500, 10], "ten": [784, *[600] * 10, 10]}
        graded = replace(GRADED, sweeps=options.sweeps or 10)
        rows = {
            "three": ("3 x 1500", widths["three"], "identity", graded),
            "ten": ("10 x 600", widths["ten"], "identity", graded),
            "minibatches": ("10 x 600", widths["ten"], "identity", replace(MINIBATCHES, epochs=options.sweeps or 6)),
            "published": ("3 x 1500", widths["three"], "published", BCD(sweeps=options.sweeps or 50)),
        }
        accuracy(options, list(rows.values()) if options.full == "all" else [rows[options.full]])
    elif options.accuracy:
        solver = BCD(
            sweeps=options.sweeps or 20,
            gamma=options.gamma,
            rho=options.rho,
            alpha=options.alpha,
            grading=options.grading,
            damping=options.damping,
            resynchronise=options.resynchronise,
            validation=options.validation,
        )
        accuracy(options, [(f"{options.depth} x {options.width}", widths, options.start, solver)])
    else:
        speed(options.samples, widths)


if __name__ == "__main__":
    main()
