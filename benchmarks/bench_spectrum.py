"""The full Hessian report beside PyHessian, hessian-eigenthings and curvlinops, at equal accuracy, in CPU time.

    python benchmarks/bench_spectrum.py [--network mlp|cnn] [--seeds 3] [--pyhessian FOLDER] [--full] [--memory]

Asked of every tool: the 10 largest eigenvalues and the smallest with residuals of at most 1e-4 of the largest, the
trace to 2 % standard error, and the density (smoothed by 1 % of the range) as near in L1 to a long reference run as
whydeep's. Each tool's settings are swept, every part by itself, to the cheapest that reach this on pilot seeds: steps
of Lanczos' method, probes of Hutchinson's or of Hutch++, runs and steps of the quadrature by one plan for all, since
they are the same algorithms; tolerances tool by tool. Then the report is timed with time.process_time over the seeds,
building graphs and tracing included. Where a tool can take one part from another (the ends from a density's Lanczos
run, the same products for both ends), it is granted. The errors reached are in the table. The tools are installed by
hand beside torch (with `-c constraints.txt`); one that is not there is left out. PyHessian's released version fails
on the density: give a checkout of its repository with --pyhessian.

Also: the cost of a product in gradients, and with --memory the peak of resident memory on larger networks.
"""

from __future__ import annotations

import argparse
import importlib
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import whydeep as wd
from whydeep.optimization.landscape import Hessian, spectrum
from whydeep.optimization.landscape.spectra.block_lanczos import Projection, block_lanczos

TOP, RESIDUAL, TRACE = 10, 1e-4, 0.02


@dataclass
class Report:
    """What a tool found: eigenvalues with vectors (rows), the bottom, the trace, and a quadrature of the density."""

    values: Tensor
    vectors: Tensor
    bottom: float
    trace: float
    nodes: Tensor
    weights: Tensor  # one row a run or column, each of sum 1
    products: int


@dataclass
class Task:
    model: nn.Module
    problem: wd.Problem
    x: Tensor
    y: Tensor

    @property
    def weights(self) -> list[Tensor]:
        return list(self.model.parameters())


def task(network: str) -> Task:
    train, _ = wd.data.load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if network == "mlp":
            model, samples = wd.networks.mlp((64, 256, 242, 10)), 1000
        else:
            model, samples = (
                nn.Sequential(
                    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                    nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
                    nn.Flatten(), nn.Linear(1024, 42), nn.ReLU(), nn.Linear(42, 10),
                ),
                256,
            )  # fmt: skip
    data = train.take(torch.arange(samples)).in_memory()
    solver = wd.optimization.Backprop(torch.optim.Adam, lr=1e-3, epochs=10)
    trained = solver.train(wd.Problem(model, data)).model.eval()
    return Task(trained, wd.Problem(trained, data), data.x, data.targets)


class Counted:
    """Counts the products of a peer's operator."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.count = function, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        return self.function(*arguments, **named)


# whydeep --------------------------------------------------------------------------------------------------------------


def ours(job: Task, seed: int, _settings: Any = None) -> Report:
    seen = spectrum(job.problem, top=TOP, tolerance=RESIDUAL, trace_tolerance=TRACE, generator=seeded(seed))
    rule = seen.quadrature
    return Report(
        seen.eigenvalues, seen.eigenvectors, seen.smallest, seen.trace, rule.nodes, rule.weights, seen.products
    )


# hessian-eigenthings --------------------------------------------------------------------------------------------------


def eigenthings(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    peer = importlib.import_module("hessian_eigenthings")
    loss = peer.supervised_loss(nn.CrossEntropyLoss())
    operator = peer.HessianOperator(job.model, [(job.x, job.y)], loss)
    operator.matvec = counted = Counted(operator.matvec)
    values = vectors = nodes = weights = torch.empty(0)
    bottom = trace = math.nan
    if "steps" in settings:
        # One run for both ends: the basis and tridiagonal matrix are public, so that no second run is needed.
        start = torch.randn(operator.size, generator=seeded(seed))
        run = peer.lanczos_tridiagonal(operator, start, settings["steps"], reorthogonalize=True)
        off = run.betas[: len(run.alphas) - 1]
        theta, s = torch.linalg.eigh(torch.diag(run.alphas) + torch.diag(off, 1) + torch.diag(off, -1))
        chosen = torch.cat([s[:, -TOP:].flip(1), s[:, :1]], 1)
        basis = torch.stack(run.basis)
        both = chosen.T @ basis
        values, vectors, bottom = theta[-TOP:].flip(0), both, float(theta[0])
    if "trace" in settings:
        method, count = settings["trace"]
        trace = peer.trace(operator, num_matvecs=count, method=method, seed=seed).estimate
    if "density" in settings:
        runs, steps = settings["density"]
        found = peer.spectral_density(
            operator, num_runs=runs, lanczos_steps=steps, num_grid_points=10, seed=1000 * seed
        )
        nodes, weights = found.raw_eigenvalues.reshape(-1), spread(found.raw_weights)
    return Report(values, vectors, bottom, trace, nodes, weights, counted.count)


# curvlinops -----------------------------------------------------------------------------------------------------------


def curvlinops(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    peer = importlib.import_module("curvlinops")
    slq = importlib.import_module("curvlinops.papyan2020traces.spectrum")
    linalg = importlib.import_module("scipy.sparse.linalg")
    torch.manual_seed(seed)
    data = [(job.x, job.y)]
    operator = peer.HessianLinearOperator(
        job.model, nn.CrossEntropyLoss(), job.weights, data, check_deterministic=False
    )
    kind = type(operator)
    original, count = kind._matmat, [0]

    def matmat(self: Any, columns: Any) -> Any:
        count[0] += columns[0].shape[-1]
        return original(self, columns)

    kind._matmat = matmat
    values = vectors = nodes = weights = torch.empty(0)
    bottom = trace = math.nan
    try:
        if "tolerance" in settings:
            scipy_operator = operator.to_scipy(dtype="float32")
            start = torch.randn(operator.shape[0], generator=seeded(seed)).numpy()
            # "BE" takes both ends in one run: half of k from each; two calls with k = 10 and 1 cost less here.
            found, columns = linalg.eigsh(scipy_operator, k=TOP, which="LA", tol=settings["tolerance"], v0=start)
            low, low_column = linalg.eigsh(scipy_operator, k=1, which="SA", tol=settings["tolerance"], v0=start)
            values = torch.from_numpy(found.copy()).flip(0)
            vectors = torch.cat([torch.from_numpy(columns.T.copy()).flip(0), torch.from_numpy(low_column.T.copy())])
            bottom = float(low[0])
        if "trace" in settings:
            method, number = settings["trace"]
            estimate = peer.hutchpp_trace if method == "hutch++" else peer.hutchinson_trace
            trace = float(estimate(operator, num_matvecs=number))
        if "density" in settings:
            runs, steps = settings["density"]
            found = [slq.fast_lanczos(operator, steps) for _ in range(runs)]
            nodes = torch.cat([values for values, _ in found])
            weights = spread(torch.stack([vectors[0] ** 2 for _, vectors in found]))
    finally:
        kind._matmat = original
    return Report(values, vectors, bottom, trace, nodes, weights, count[0])


# PyHessian ------------------------------------------------------------------------------------------------------------


def pyhessian(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    peer = importlib.import_module("pyhessian")
    inner = importlib.import_module("pyhessian.hessian")
    torch.manual_seed(seed)
    original = inner.hessian_vector_product
    inner.hessian_vector_product = counted = Counted(original)
    values = vectors = nodes = weights = torch.empty(0)
    bottom = trace = math.nan
    try:
        tool = peer.hessian(job.model, nn.CrossEntropyLoss(), data=(job.x, job.y), cuda=False)
        if "power" in settings:
            tolerance, most = settings["power"]
            found, directions = tool.eigenvalues(maxIter=most, tol=tolerance, top_n=TOP)
            order = sorted(range(TOP), key=lambda k: -found[k])
            values = torch.tensor([found[k] for k in order])
            vectors = torch.stack([torch.cat([part.reshape(-1) for part in directions[k]]) for k in order])
        if "trace" in settings:
            _, count = settings["trace"]
            trace = statistics.fmean(tool.trace(maxIter=count, tol=0.0))
        if "density" in settings:
            runs, steps = settings["density"]
            lists, shares = tool.density(iter=steps, n_v=runs)
            nodes = torch.tensor(lists).reshape(-1)
            weights = spread(torch.tensor(shares).abs())
            bottom = float(nodes.min())  # it has no search for the bottom; the density's run knows one
    finally:
        inner.hessian_vector_product = original
        for value in job.weights:
            value.grad = None
    return Report(values, vectors, bottom, trace, nodes, weights, counted.count)


# Sweeps and the table -------------------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread(rows: Tensor) -> Tensor:
    """Weights of separate runs (r, k) as rows over all nodes (r, r k)."""
    runs, steps = rows.shape
    out = torch.zeros(runs, runs * steps)
    for index, row in enumerate(rows):
        out[index, index * steps : (index + 1) * steps] = row
    return out


@dataclass
class Reference:
    grid: Tensor
    width: float
    density: Tensor
    trace: float
    largest: float
    bottom: float
    product: Hessian

    def density_of(self, report: Report) -> Tensor:
        bumps = torch.exp(-0.5 * ((self.grid - report.nodes.double()[:, None]) / self.width) ** 2)
        return report.weights.double().mean(0) @ bumps / (self.width * math.sqrt(2 * math.pi))

    def distance(self, report: Report) -> float:
        step = float(self.grid[1] - self.grid[0])
        return float((self.density_of(report) - self.density).abs().sum()) * step

    def residual(self, report: Report) -> float:
        """The largest |H v - (v H v) v|, as a part of the largest eigenvalue."""
        worst = 0.0
        for row in report.vectors:
            row = row / row.norm()
            image = self.product(row)
            worst = max(worst, float((image - (row @ image) * row).norm()) / self.largest)
        return worst


def reference(job: Task, rounds: int) -> Reference:
    """Independent long runs: pooled over the rounds; the trace by 60 probes beside each basis."""
    seen = [
        spectrum(job.problem, top=TOP, tolerance=1e-6, trace_tolerance=0.0, probes=60, generator=seeded(10_000 + k))
        for k in range(rounds)
    ]
    low, high = min(s.smallest for s in seen), max(s.largest for s in seen)
    width = 0.01 * (high - low)
    grid = torch.linspace(low - 5 * width, high + 5 * width, 2000, dtype=torch.float64)
    density = torch.stack([s.density(grid, width=width).value for s in seen]).mean(0)
    trace = statistics.fmean(s.trace for s in seen)
    return Reference(grid, width, density, trace, high, low, Hessian(job.problem))


TOOLS = {"hessian-eigenthings": eigenthings, "curvlinops": curvlinops, "PyHessian": pyhessian}
MODULES = {"hessian-eigenthings": "hessian_eigenthings", "curvlinops": "curvlinops", "PyHessian": "pyhessian"}
DENSITIES = sorted([(r, m) for r in (1, 2, 3, 4, 6, 8) for m in (10, 15, 20, 30, 40)], key=lambda rm: rm[0] * rm[1])
POWER = ((1e-3, 100), (1e-4, 200), (1e-5, 400), (1e-6, 800))
SCIPY = (1e-2, 1e-3, 1e-4, 1e-5)


def plan_ends(truth: Reference, pilots: int) -> int:
    """Return the fewest steps of Lanczos' method with one vector that bring both ends to the residual."""
    product = truth.product
    needed = []
    for seed in range(500, 500 + pilots):

        def reached(seen: Projection) -> bool:
            if len(seen.matrix) <= TOP:
                return False
            residuals = seen.ritz()[2]
            return float(torch.cat([residuals[-TOP:], residuals[:1]]).max()) <= RESIDUAL * truth.largest

        start = torch.randn(1, product.size, generator=seeded(seed))
        needed.append(block_lanczos(product, start, steps=300, stop=reached).steps)
    return max(needed)


def plan_trace(truth: Reference) -> tuple[int, int]:
    """Return the products that Hutchinson's method and Hutch++ need for the standard error, from their variances."""
    product, goal = truth.product, TRACE * abs(truth.trace)

    def signs(count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (count, product.size), generator=generator).float() * 2 - 1

    generator = seeded(77)
    probes = signs(100, generator)
    plain = math.ceil(float((probes * product(probes)).sum(1).var()) / goal**2)
    sketch, rest = product(signs(80, generator)), signs(24, generator)
    for third in (4, 8, 12, 16, 20, 25, 30, 35, 40, 50, 60, 80):
        basis = torch.linalg.qr(sketch[:third].T)[0]
        left = rest - (rest @ basis) @ basis.T
        if float((left * product(left)).sum(1).var()) / third <= goal**2:
            return plain, 3 * third
    return plain, 10**9


def plan_density(truth: Reference, wanted: float) -> tuple[int, int]:
    """Return the cheapest (runs, steps) of stochastic Lanczos quadrature that come as near as `wanted` on average."""
    product, seeds, most = truth.product, 3, max(steps for _, steps in DENSITIES)
    # One run of the most steps holds the shorter ones: their matrices are its leading blocks.
    matrices = [
        [
            block_lanczos(product, torch.randn(1, product.size, generator=seeded(1000 * seed + run)), steps=most).matrix
            for run in range(max(runs for runs, _ in DENSITIES))
        ]
        for seed in range(600, 600 + seeds)
    ]
    blank = torch.empty(0)
    for runs, steps in DENSITIES:
        distances = []
        for found in matrices:
            parts = [torch.linalg.eigh(matrix[:steps, :steps]) for matrix in found[:runs]]
            nodes = torch.cat([values for values, _ in parts])
            weights = spread(torch.stack([vectors[0].square() for _, vectors in parts]))
            distances.append(truth.distance(Report(blank, blank, 0.0, 0.0, nodes, weights, 0)))
        if statistics.fmean(distances) <= wanted:
            return runs, steps
    return DENSITIES[-1]


def sweep(job: Task, name: str, truth: Reference, plans: dict[str, Any], pilots: int) -> dict[str, Any]:
    """Return the cheapest settings with the accuracy: of the parts that are the same algorithm by the common plan."""
    settings = dict(plans)
    if name == "hessian-eigenthings":
        return settings
    del settings["steps"]
    tool, key, ladder = (curvlinops, "tolerance", SCIPY) if name == "curvlinops" else (pyhessian, "power", POWER)
    if name == "PyHessian":
        settings["trace"] = ("hutchinson", plans["hutchinson"])
    for value in ladder:
        settings[key] = value
        if all(truth.residual(tool(job, seed, {key: value})) <= RESIDUAL for seed in range(500, 500 + pilots)):
            break
    return settings


def rms(values: Any) -> float:
    squares = [value**2 for value in values]
    return math.sqrt(statistics.fmean(squares))


def measured(job: Task, tool: Callable[..., Report], settings: Any, seeds: int, truth: Reference) -> dict[str, float]:
    seconds, reports = [], []
    for seed in range(seeds):
        began = time.process_time()
        reports.append(tool(job, seed, settings))
        seconds.append(time.process_time() - began)
    return {
        "products": statistics.fmean(r.products for r in reports),
        "seconds": statistics.median(seconds),
        "residual": max(truth.residual(r) for r in reports),
        "bottom": max(abs(r.bottom - truth.bottom) / truth.largest for r in reports),
        "trace": rms(r.trace / truth.trace - 1 for r in reports),
        "density": statistics.fmean(truth.distance(r) for r in reports),
    }


def product_cost(job: Task) -> tuple[float, float, float]:
    """CPU seconds of a gradient and of a product in a block of 4, and the median of their ratios, taken in turns."""
    hessian = Hessian(job.problem)
    block = torch.randn(4, hessian.size, generator=seeded(0))
    weights = [value.detach().requires_grad_() for value in job.weights]
    names = [name for name, _ in job.model.named_parameters()]

    def gradient() -> None:
        output = torch.func.functional_call(job.model, dict(zip(names, weights, strict=True)), (job.x,))
        torch.autograd.grad(nn.functional.cross_entropy(output, job.y), weights)

    pairs = []
    for _ in range(15):
        times = []
        for call in (gradient, gradient, gradient, gradient, lambda: hessian(block)):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        pairs.append((statistics.median(times[:4]), times[4] / 4))
    return (
        *(statistics.median(column) for column in zip(*pairs, strict=True)),
        statistics.median(b / a for a, b in pairs),
    )


def peak_memory(width: int) -> tuple[int, float]:
    """Parameters, and the peak of resident memory of a fresh process in bytes, of a network 784-width-width-10."""
    script = (
        "import torch, whydeep as wd\n"
        "from whydeep.optimization.landscape import spectrum\n"
        f"model = wd.networks.mlp((784, {width}, {width}, 10), init='he', generator=torch.Generator().manual_seed(0))\n"
        "data = wd.Data(torch.rand(256, 784), torch.arange(256) % 10, classes=10)\n"
        "seen = spectrum(wd.Problem(model, data), tolerance=0.0, probes=12)\n"
        "assert seen.products == 152\n"  # every step of the default, and the trace's probes
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    size = 784 * width + width * width + 10 * width + 2 * width + 10
    return size, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pilots", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="long runs that make the reference")
    parser.add_argument("--pyhessian", help="folder of a checkout of PyHessian's repository")
    parser.add_argument("--only", help="one peer by name")
    parser.add_argument("--full", action="store_true", help="both networks, 10 seeds, 3 pilots, 10 rounds")
    parser.add_argument("--memory", action="store_true", help="only the peak of memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory:
        print("| parameters | peak of resident memory, GB | vectors of that length |\n| --- | --- | --- |")
        for width in (300, 700, 1400):
            size, peak = peak_memory(width)
            print(f"| {size:,} | {peak / 1e9:.2f} | {peak / (4 * size):.0f} |", flush=True)
        return
    if options.pyhessian:
        sys.path.insert(0, options.pyhessian)
    if options.full:
        options.seeds, options.pilots, options.rounds = 10, 3, 10
    for network in ("mlp", "cnn") if options.full else (options.network,):
        compare(network, options)


def compare(network: str, options: argparse.Namespace) -> None:
    job = task(network)
    size = sum(value.numel() for value in job.weights)
    gradient, product, ratio = product_cost(job)
    print(f"{network}, {size:,} parameters, {len(job.x)} samples, torch {torch.__version__}, one thread")
    print(f"gradient {1e3 * gradient:.1f} ms, product in a block of 4 {1e3 * product:.1f} ms: {ratio:.2f} gradients")
    truth = reference(job, options.rounds)
    own = measured(job, ours, None, options.seeds, truth)
    plain, better = plan_trace(truth)
    plans: dict[str, Any] = {
        "steps": plan_ends(truth, options.pilots),
        "trace": ("hutch++", better) if better < plain else ("hutchinson", plain),
        "hutchinson": plain,
        "density": plan_density(truth, own["density"]),
    }
    print("| tool | settings | products | CPU s | times ours | residual | bottom | trace, rms | density, L1 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    line("whydeep", "as they come", own, own)
    for name, module in MODULES.items():
        if options.only not in (None, name):
            continue
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"| {name} | not installed | | | | | | | |")
            continue
        settings = sweep(job, name, truth, plans, options.pilots)
        shown = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "hutchinson").replace("'", "")
        line(name, shown, measured(job, TOOLS[name], settings, options.seeds, truth), own)


def line(name: str, settings: str, seen: dict[str, float], own: dict[str, float]) -> None:
    errors = f"{seen['residual']:.1e} | {seen['bottom']:.1e} | {seen['trace']:.3f} | {seen['density']:.4f}"
    times = seen["seconds"] / own["seconds"]
    print(
        f"| {name} | {settings} | {seen['products']:.0f} | {seen['seconds']:.2f} | {times:.1f} | {errors} |", flush=True
    )


if __name__ == "__main__":
    main()
