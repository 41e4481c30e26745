"""The full Hessian report beside PyHessian, hessian-eigenthings and curvlinops, at equal accuracy, in CPU time.

    python benchmarks/bench_spectrum.py [--network mlp|cnn] [--tools NAME ..] [--seeds 3] [--first 0]
        [--folder DIR] [--pyhessian FOLDER] [--full] [--products] [--calibration] [--memory]

Asked of every tool: the 10 largest eigenvalues and the smallest with residuals of at most 1e-4 of the largest, the
trace to 2 % standard error, and the density (smoothed by 1 % of the range) as near in L1 to a long reference run as
whydeep's. Each tool's settings are swept, every part by itself, to the cheapest that reach this on pilot seeds: steps
of Lanczos' method, probes of Hutchinson's or of Hutch++, runs and steps of the quadrature by one plan for all, since
they are the same algorithms; tolerances tool by tool. Then, seed by seed, whydeep and the tool are timed in turns with
time.process_time, building graphs and tracing included; "times ours" is the median of the ratios, with the least and
the largest. Where a tool can take one part from another (the ends from a density's Lanczos run, the same products for
both ends), it is granted. The errors reached are in the table: the largest residual, the root mean square error of the
trace, the mean distance of the density. The tools are installed by hand beside torch (with `-c constraints.txt`); one
that is not there is left out. PyHessian's released version fails on the density: give a checkout of its repository
with --pyhessian.

The density's plan rests on three seeds, and may ask a peer for more or less than was needed: compare the distances in
the table. The reference's own distance, about a third of one run's, is part of all of them. Its products can be counted
out by hand, runs times steps.

The density of the CNN (mean of ten seeds): by one column .00051, hessian-eigenthings .00042 there; two columns bring
.00032 for 70 products in the place of 59. Without the moments of the trace's probes one column had .00052 to .00059,
the MLP .00012 where it now has .00008. Tried and not kept: two columns by default, which the MLP does not need and the
ratios pay for; nodes counted as one eigenvalue up to larger residuals, which changes nothing.

What was tried for the cost of a product, in gradients of the MLP (least times): the graph of the gradient kept, 1.85;
the same for a block at once (is_grads_batched), 2.1; vmap over the linearised gradient, 1.9 to 2.1. Operations say why:
a gradient of 64-256-242-10 takes 2, 3 and 3 matrix products at its layers and a product 2, 6 and 6, together 1.85. At
the CNN, where a gradient is less than its matrix products, 1.44 to 1.54.

--folder keeps the reference, the plan and every seed's result, so that a long run can be done in pieces (--network,
--tools, --seeds, --first); the table is then of all that is there. --tools without a name: whydeep alone.
--columns: whydeep with so many random vectors, for a finer density (keep it in a folder of its own). --full: 10 seeds,
3 pilots, 10 reference runs.
--products: what a product costs in gradients. --calibration: whether the trace errs as it states, over --seeds runs.
--memory: the peak of resident memory on networks of up to a million weights, with --full of ten million.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from curvature.accuracy import Reference, plan, reference, settings_of
from curvature.costs import peak_memory, product_cost
from curvature.curvlinops_report import curvlinops
from curvature.eigenthings import eigenthings
from curvature.own import own
from curvature.pyhessian_report import pyhessian
from curvature.report import TRACE, Task, Tool, seeded, task

from whydeep.optimization.landscape import Hessian, spectrum

TOOLS: dict[str, Tool] = {"hessian-eigenthings": eigenthings, "curvlinops": curvlinops, "PyHessian": pyhessian}
MODULES = {"hessian-eigenthings": "hessian_eigenthings", "curvlinops": "curvlinops", "PyHessian": "pyhessian"}


def prepared(job: Task, network: str, folder: Path, rounds: int, pilots: int) -> tuple[Reference, dict[str, Any]]:
    """Return the reference and the common plan, from the folder where they are there already."""
    stored, planned = folder / f"{network}-reference.pt", folder / f"{network}-plan.json"
    if not stored.exists():
        torch.save(vars(reference(job, rounds)), stored)
    truth = Reference(**torch.load(stored))
    if not planned.exists():
        planned.write_text(json.dumps({"common": plan(job, truth, own, pilots)}))
    return truth, json.loads(planned.read_text())


def timed(tool: Tool, job: Task, seed: int, settings: dict[str, Any]) -> tuple[float, Any]:
    began = time.process_time()
    report = tool(job, seed, settings)
    return time.process_time() - began, report


def measure(network: str, options: argparse.Namespace, folder: Path) -> None:
    """Time whydeep and every tool in turns over the seeds; one line of results a seed and tool."""
    job = task(network)
    truth, plans = prepared(job, network, folder, options.rounds, options.pilots)
    product = Hessian(job.problem)
    ours = {} if options.columns is None else {"columns": options.columns}
    alone = range(options.first, options.first + options.seeds) if not options.tools else range(0)
    for seed in alone:
        seconds, report = timed(own, job, seed, ours)
        entry = {"seconds": seconds, "products": report.products} | truth.errors(report, product)
        keep(network, folder, {"tool": "whydeep", "seed": seed, "own": entry})
    for name in options.tools:
        if importlib.util.find_spec(MODULES[name]) is None:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        if name not in plans:
            plans[name] = settings_of(name, job, TOOLS[name], truth, plans["common"], options.pilots)
            (folder / f"{network}-plan.json").write_text(json.dumps(plans))
        for seed in range(options.first, options.first + options.seeds):
            pair = (timed(own, job, seed, ours), timed(TOOLS[name], job, seed, plans[name]))
            rows = [
                {"seconds": seconds, "products": report.products} | truth.errors(report, product)
                for seconds, report in pair
            ]
            keep(network, folder, {"tool": name, "seed": seed, "own": rows[0], "its": rows[1]})


def keep(network: str, folder: Path, line: dict[str, Any]) -> None:
    with (folder / f"{network}-results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def table(network: str, folder: Path) -> None:
    """Print what the folder holds."""
    results = folder / f"{network}-results.jsonl"
    if not results.exists():
        return
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    plans = json.loads((folder / f"{network}-plan.json").read_text())
    truth = Reference(**torch.load(folder / f"{network}-reference.pt"))
    print(f"{network}; reference trace {truth.trace:.4g} +- {truth.trace_error:.2g}, torch {torch.__version__}\n")
    print("| tool | settings | seeds | products | CPU s | times ours | residual | bottom | trace, rms | density, L1 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    once = {line["seed"]: line["own"] for line in lines}
    seconds = [line["own"]["seconds"] for line in lines]
    row("whydeep", "as they come", [*once.values()], seconds, [])
    for name in TOOLS:
        its = [line for line in lines if line["tool"] == name]
        if its:
            ratios = [line["its"]["seconds"] / line["own"]["seconds"] for line in its]
            shown = ", ".join(f"{key} {value}" for key, value in plans[name].items()).replace("'", "")
            row(name, shown, [line["its"] for line in its], [line["its"]["seconds"] for line in its], ratios)
    print(flush=True)


def row(
    name: str, settings: str, seen: list[dict[str, float]], seconds: Sequence[float], ratios: Sequence[float]
) -> None:
    def column(key: str) -> list[float]:
        return [entry[key] for entry in seen]

    trace = math.sqrt(statistics.fmean(value**2 for value in column("trace")))
    times = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})" if ratios else "1"
    print(
        f"| {name} | {settings} | {len(seen)} | {statistics.fmean(column('products')):.0f} | "
        f"{statistics.median(seconds):.2f} | {times} | {max(column('residual')):.1e} | {max(column('bottom')):.1e} | "
        f"{trace:.3f} | {statistics.fmean(column('density')):.5f} |"
    )


def calibration(network: str, seeds: int, first: int) -> None:
    """Print how often the trace lies within 1 and 2 of its stated standard errors of the truth, and in its interval."""
    job = task(network)
    truth = reference(job, 4)
    within, covered, stated, probes = [0, 0], 0, [], []
    off = []
    for seed in range(first, first + seeds):
        seen = spectrum(job.problem, trace_tolerance=TRACE, generator=seeded(seed))
        error = math.hypot(seen.trace_error, truth.trace_error)
        off.append((seen.trace - truth.trace) / error)
        within = [count + (abs(off[-1]) <= k) for k, count in zip((1, 2), within, strict=True)]
        interval = seen.traced.measurement
        covered += interval.low <= truth.trace <= interval.high
        stated.append(seen.trace_error / truth.trace)
        probes.append(len(seen.traced.probes))
    print("| network | runs | within 1 error (68 %) | 2 (95 %) | in the 95 % interval | spread over stated | stated |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    spread = math.sqrt(statistics.fmean(value**2 for value in off))
    print(
        f"| {network} | {seeds} | {within[0]} | {within[1]} | {covered} | {spread:.2f} | "
        f"{statistics.fmean(stated):.4f}, {statistics.fmean(probes):.1f} probes |",
        flush=True,
    )


def products(network: str) -> None:
    job = task(network)
    gradient, ratios = product_cost(job)
    shown = ", ".join(f"{ratio:.2f} in a block of {size}" for size, ratio in ratios.items())
    print(f"{network}: a gradient {1e3 * gradient:.1f} ms of CPU; a product in gradients: {shown}", flush=True)


def memory(full: bool) -> None:
    print("| parameters | peak of resident memory, GB | vectors of that length | CPU s |\n| --- | --- | --- | --- |")
    for width in (300, 700, 2795) if full else (300, 700):
        size, peak, seconds = peak_memory(width)
        print(f"| {size:,} | {peak / 1e9:.2f} | {peak / (4 * size):.0f} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("mlp", "cnn"))
    parser.add_argument("--tools", nargs="*", choices=[*TOOLS], default=[*TOOLS])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--folder", type=Path, help="keeps results, to run in pieces")
    parser.add_argument("--columns", type=int, help="random vectors that whydeep starts from, in place of its default")
    parser.add_argument("--pyhessian", help="folder of a checkout of PyHessian's repository")
    parser.add_argument("--full", action="store_true", help="both networks, 10 seeds, 3 pilots, 10 reference runs")
    parser.add_argument("--products", action="store_true", help="only the cost of a product")
    parser.add_argument("--calibration", action="store_true", help="only whether the trace errs as it states")
    parser.add_argument("--memory", action="store_true", help="only the peak of memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory:
        memory(options.full)
        return
    networks = [options.network] if options.network else ["mlp", "cnn"] if options.full else ["mlp"]
    if options.pyhessian:
        sys.path.insert(0, options.pyhessian)
    options.pilots, options.rounds = (3, 10) if options.full else (1, 4)
    if options.seeds is None:
        options.seeds = 10 if options.full else 3
    for network in networks:
        if options.products:
            products(network)
        elif options.calibration:
            calibration(network, options.seeds, options.first)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                folder = options.folder or Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                measure(network, options, folder)
                table(network, folder)


if __name__ == "__main__":
    main()
