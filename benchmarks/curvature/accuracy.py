"""What a report's errors are measured against, and the cheapest settings of a peer that reach what is asked."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whydeep.optimization.landscape import Hessian, spectrum
from whydeep.optimization.landscape.spectra.block_lanczos import Projection, block_lanczos

from .report import RESIDUAL, TOP, TRACE, Report, Task, Tool, seeded, spread

DENSITIES = sorted([(r, m) for r in (1, 2, 3, 4, 6, 8) for m in (10, 15, 20, 30, 40)], key=lambda rm: rm[0] * rm[1])
LADDERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "curvlinops": ("tolerance", (1e-2, 1e-3, 1e-4, 1e-5)),
    "PyHessian": ("power", ((1e-3, 100), (1e-4, 200), (1e-5, 400), (1e-6, 800))),
}
"""Settings of the ends that are a tool's own, in the order of their cost."""


@dataclass
class Reference:
    """Pooled over long independent runs: density on a grid (smoothed by `width`), trace, ends."""

    grid: Tensor
    width: float
    density: Tensor
    trace: float
    trace_error: float
    largest: float
    bottom: float

    def distance(self, report: Report) -> float:
        """The L1 distance of the smoothed density."""
        bumps = torch.exp(-0.5 * ((self.grid - report.nodes.double()[:, None]) / self.width) ** 2)
        density = report.weights.double().mean(0) @ bumps / (self.width * math.sqrt(2 * math.pi))
        return float((density - self.density).abs().sum()) * float(self.grid[1] - self.grid[0])

    def residual(self, report: Report, product: Hessian) -> float:
        """The largest |H v - (v H v) v| over the vectors, as a part of the largest eigenvalue."""
        worst = 0.0
        for row in report.vectors:
            row = row / row.norm()
            image = product(row)
            worst = max(worst, float((image - (row @ image) * row).norm()) / self.largest)
        return worst

    def errors(self, report: Report, product: Hessian) -> dict[str, float]:
        return {
            "residual": self.residual(report, product),
            "bottom": abs(report.bottom - self.bottom) / self.largest,
            "trace": report.trace / self.trace - 1,
            "density": self.distance(report),
        }


def reference(job: Task, rounds: int) -> Reference:
    """Run the library's report to 1e-6 with 60 probes of the trace, so many times."""
    seen = [
        spectrum(job.problem, top=TOP, tolerance=1e-6, trace_tolerance=0.0, probes=60, generator=seeded(10_000 + k))
        for k in range(rounds)
    ]
    low, high = min(s.smallest for s in seen), max(s.largest for s in seen)
    width = 0.01 * (high - low)
    grid = torch.linspace(low - 5 * width, high + 5 * width, 2000, dtype=torch.float64)
    density = torch.stack([s.density(grid, width=width).value for s in seen]).mean(0)
    traces = [s.trace for s in seen]
    error = math.sqrt(statistics.fmean(s.trace_error**2 for s in seen) / rounds)
    return Reference(grid, width, density, statistics.fmean(traces), error, high, low)


def plan(job: Task, truth: Reference, own: Tool, pilots: int) -> dict[str, Any]:
    """Return the settings of the parts that are the same algorithms in all peers, from pilot seeds."""
    product = Hessian(job.problem)
    wanted = statistics.fmean(truth.distance(own(job, seed, {})) for seed in range(500, 500 + max(3, pilots)))
    plain, better = _trace(product, truth)
    return {
        "steps": _ends(product, truth, pilots),
        "trace": ("hutch++", better) if better < plain else ("hutchinson", plain),
        "hutchinson": plain,
        "density": _density(product, truth, wanted),
    }


def settings_of(
    name: str, job: Task, tool: Tool, truth: Reference, plans: dict[str, Any], pilots: int
) -> dict[str, Any]:
    """Return the plan, and the cheapest of the tool's own settings that bring the ends to the residual."""
    settings = {key: value for key, value in plans.items() if key != "hutchinson"}
    if name not in LADDERS:
        return settings
    del settings["steps"]
    if name == "PyHessian":
        settings["trace"] = ("hutchinson", plans["hutchinson"])
    key, ladder = LADDERS[name]
    product = Hessian(job.problem)
    for value in ladder:
        settings[key] = value
        reports = (tool(job, seed, {key: value}) for seed in range(500, 500 + pilots))
        if all(truth.residual(report, product) <= RESIDUAL for report in reports):
            break
    return settings


def _ends(product: Hessian, truth: Reference, pilots: int) -> int:
    """Return the fewest steps of Lanczos' method with one vector that bring both ends to the residual."""

    def reached(seen: Projection) -> bool:
        if len(seen.matrix) <= TOP:
            return False
        residuals = seen.ritz()[2]
        return float(torch.cat([residuals[-TOP:], residuals[:1]]).max()) <= RESIDUAL * truth.largest

    starts = (torch.randn(1, product.size, generator=seeded(seed)) for seed in range(500, 500 + pilots))
    return max(block_lanczos(product, start, steps=300, stop=reached).steps for start in starts)


def _trace(product: Hessian, truth: Reference) -> tuple[int, int]:
    """Return the products that Hutchinson's method and Hutch++ need for the standard error, from their variances."""
    goal = TRACE * abs(truth.trace)
    generator = seeded(77)

    def signs(count: int) -> Tensor:
        return torch.randint(2, (count, product.size), generator=generator).float() * 2 - 1

    probes = signs(100)
    plain = math.ceil(float((probes * product(probes)).sum(1).var()) / goal**2)
    sketch, rest = product(signs(80)), signs(24)
    for third in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 35, 40, 50, 60, 80):
        basis = torch.linalg.qr(sketch[:third].T)[0]
        left = rest - (rest @ basis) @ basis.T
        if float((left * product(left)).sum(1).var()) / third <= goal**2:
            return plain, 3 * third
    return plain, 10**9


def _density(product: Hessian, truth: Reference, wanted: float) -> tuple[int, int]:
    """Return the cheapest (runs, steps) of stochastic Lanczos quadrature that come as near as `wanted` on average."""
    seeds, most = range(600, 603), max(steps for _, steps in DENSITIES)
    matrices: dict[int, list[Tensor]] = {seed: [] for seed in seeds}
    blank = torch.empty(0)
    for runs, steps in DENSITIES:
        distances = []
        for seed, found in matrices.items():
            # One run of the most steps holds the shorter ones: their matrices are its leading blocks.
            for run in range(len(found), runs):
                start = torch.randn(1, product.size, generator=seeded(1000 * seed + run))
                found.append(block_lanczos(product, start, steps=most).matrix)
            parts = [torch.linalg.eigh(matrix[:steps, :steps]) for matrix in found[:runs]]
            nodes = torch.cat([values for values, _ in parts])
            weights = spread(torch.stack([vectors[0].square() for _, vectors in parts]))
            distances.append(truth.distance(Report(blank, blank, 0.0, 0.0, nodes, weights, 0)))
        if statistics.fmean(distances) <= wanted:
            return runs, steps
    return DENSITIES[-1]
