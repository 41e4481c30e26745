"""ADMM on several processes, each with its share of the samples: seconds and bytes of a sweep, and the model of both.

    .venv/bin/python benchmarks/bench_distributed.py [--width 300] [--depth 3] [--samples 12000] [--processes 1 2]
    .venv/bin/python benchmarks/bench_distributed.py --full      60,000 samples; widths 300 and 1500
    .venv/bin/python benchmarks/bench_distributed.py --layers    solves of the layers in threads, instead
    .venv/bin/python benchmarks/bench_distributed.py --streaming states in files beside states in memory, instead

Every process computes with one thread, so that two of them on two cores have what one on one core has. A sweep counts
with what is watched after it. The rate of products in the model is that of the run with one process; the rate of solves
is timed alone; that of the link is a round number. Beyond the processes that were run, the table is the model.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

import whydeep as wd
from whydeep.optimization.alternating.gram import steady_factor
from whydeep.optimization.distributed.group import joined
from whydeep.optimization.distributed.traffic import (
    Machine,
    Shapes,
    bytes_of_a_sweep,
    operations_of_a_sample,
    operations_of_the_solves,
    seconds_of_a_sweep,
)

LINK = 1.25e9  # ten gigabits a second
MODELLED = (4, 8, 16, 64, 256, 1000)


def problem(widths: Sequence[int], samples: int) -> wd.Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, widths[0], generator=generator)
    data = wd.Data(x, torch.randint(10, (samples,), generator=generator), classes=10)
    model = wd.networks.mlp(widths, activation="sigmoid", init="xavier", gain=2.0, generator=generator)
    return wd.Problem(model, data, loss="squared")


def member(widths: Sequence[int], samples: int, sweeps: int, double: bool) -> None:
    """One process of the run: print the seconds from sweep to sweep, the bytes, and the loss at the end."""
    torch.set_num_threads(1)
    dtype = torch.float64 if double else torch.float32
    with joined() as group:
        times, sent = [], []

        def tell(progress: object) -> None:
            times.append(time.perf_counter())
            sent.append(getattr(group, "sent", 0))

        solver = wd.optimization.ADMM(sweeps=sweeps, group=group, dtype=dtype)
        training = solver.train(problem(widths, samples), callback=tell)
        # The first sweep has the Gram matrix of the samples besides, and does not count.
        found = {
            "seconds": [b - a for a, b in pairwise(times)],
            "bytes": sent[-1] - sent[-2],
            "loss": float(training.history["loss"][-1]),
        }
    if group.rank == 0:
        print(json.dumps(found))


def run(processes: int, widths: Sequence[int], samples: int, sweeps: int, double: bool) -> dict[str, object]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--member", *map(str, widths), "--samples", str(samples), "--sweeps", str(sweeps)]
    arguments += ["--double"] if double else []
    members = []
    for rank in range(processes):
        own = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {key: str(value) for key, value in own.items()} | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *arguments]
        members.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    told = [one.communicate()[0] for one in members]
    if any(one.returncode for one in members):
        raise SystemExit("a process of the benchmark failed")
    return dict(json.loads(told[0]))


def best(call: Callable[[], object], repeats: int = 2) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def solves(shapes: Shapes) -> list[Callable[[], object]]:
    """The factorisation of every layer's Gram matrix and its use, as calls."""
    calls = []
    for outputs, inputs in shapes.layers:
        generator = torch.Generator().manual_seed(0)
        rows = torch.rand(2 * inputs, inputs, dtype=torch.float64, generator=generator)
        matrix, right = rows.T @ rows, torch.rand(inputs, outputs, dtype=torch.float64, generator=generator)
        calls.append(lambda m=matrix, r=right: torch.cholesky_solve(r, steady_factor(m, 1.0)))
    return calls


def table(widths: Sequence[int], samples: int, sweeps: int, counts: Sequence[int], double: bool) -> None:
    torch.set_num_threads(1)
    shapes = replace(Shapes.of_widths(*widths), itemsize=8 if double else 4)
    weights = sum(inputs**3 / 3 + 2.0 * inputs**2 * outputs for outputs, inputs in shapes.layers)
    rate_of_solves = weights / sum(best(call) for call in solves(shapes))
    found = {count: run(count, widths, samples, sweeps, double) for count in counts}
    alone = min(found[1]["seconds"])
    solving = operations_of_the_solves(shapes, 1) / rate_of_solves
    rate = samples * operations_of_a_sample(shapes) / max(alone - solving, 1e-9)
    machine = Machine(products=rate, solves=rate_of_solves, link=LINK)
    print(f"\n{'-'.join(map(str, widths))}, sigmoid, n={samples}, {'float64' if double else 'float32'}, best of "
          f"{sweeps - 1} sweeps, one thread a process; products {rate / 1e9:.0f} and solves {rate_of_solves / 1e9:.0f} "
          f"GF/s a process; {LINK / 1e9:g} GB/s link")  # fmt: skip
    print("| processes | seconds a sweep | efficiency | model, seconds | model, efficiency | MB a sweep | predicted "
          "| loss, relative to one process |\n| --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    first = seconds_of_a_sweep(shapes, samples, 1, machine)
    predicted = bytes_of_a_sweep(shapes) / 1e6
    for count in (*counts, *(more for more in MODELLED if more not in counts)):
        model = seconds_of_a_sweep(shapes, samples, count, machine)
        row = [str(count), "", "", f"{model:.3g}", f"{first / (count * model):.2f}", "", f"{predicted:.1f}", ""]
        if count in found:
            seconds = min(found[count]["seconds"])
            difference = found[count]["loss"] / found[1]["loss"] - 1
            row[1:3] = f"{seconds:.3g}", f"{alone / (count * seconds):.2f}"
            row[5], row[7] = f"{found[count]['bytes'] / 1e6:.1f}" if count > 1 else "0", f"{difference:+.1e}"
        print(f"| {' | '.join(row)} |", flush=True)


def layers(widths: Sequence[int]) -> None:
    """All layers' solves one after another, with one thread and with all, and one in each of two threads."""
    calls, cores = solves(Shapes.of_widths(*widths)), os.cpu_count() or 1

    def in_turn() -> None:
        for call in calls:
            call()

    def side_by_side() -> None:
        left = list(range(len(calls)))

        def work() -> None:
            while left:
                calls[left.pop()]()

        workers = [threading.Thread(target=work) for _ in range(cores)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    print(f"\nsolves of {'-'.join(map(str, widths))}, {cores} cores\n| how | seconds |\n| --- | --- |")
    for name, threads, how in (
        ("in turn, one thread", 1, in_turn),
        (f"in turn, {cores} threads inside", cores, in_turn),
        (f"{cores} layers side by side, one thread each", 1, side_by_side),
    ):
        torch.set_num_threads(threads)
        print(f"| {name} | {best(how):.3f} |", flush=True)


def streaming(widths: Sequence[int], samples: int, sweeps: int) -> None:
    case = problem(widths, samples)
    print(f"\n{'-'.join(map(str, widths))}, n={samples}\n| states | seconds a sweep (best) |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, where in (("in memory", False), ("in files", folder)):
            training = wd.optimization.ADMM(sweeps=sweeps, streaming=where).train(case)
            print(f"| {name} | {float(training.history['seconds'].diff()[1:].min()):.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--double", action="store_true", help="states in float64: the processes agree to rounding")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--member", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    widths = [784, *[options.width] * options.depth, 10]
    counts = sorted({1, *options.processes})
    if options.member:
        member(options.member, options.samples, options.sweeps, options.double)
    elif options.layers:
        layers(widths)
    elif options.streaming:
        streaming(widths, options.samples, options.sweeps)
    elif options.full:
        for width in (300, 1500):
            table([784, *[width] * options.depth, 10], 60_000, options.sweeps, counts, options.double)
    else:
        table(widths, options.samples, options.sweeps, counts, options.double)


if __name__ == "__main__":
    main()
