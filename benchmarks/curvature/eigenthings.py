"""The report of hessian-eigenthings."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .report import TOP, Counted, Report, Task, peer, seeded, spread


def eigenthings(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    """settings: steps of Lanczos' method for the ends; trace (method, products); density (runs, steps)."""
    tool = peer("hessian_eigenthings")
    operator = tool.HessianOperator(job.model, [(job.x, job.y)], tool.supervised_loss(nn.CrossEntropyLoss()))
    operator.matvec = counted = Counted(operator.matvec)
    values = vectors = nodes = weights = torch.empty(0)
    bottom = trace = math.nan
    if "steps" in settings:
        # One run for both ends: the basis and tridiagonal matrix are public, so that no second run is needed.
        start = torch.randn(operator.size, generator=seeded(seed))
        run = tool.lanczos_tridiagonal(operator, start, settings["steps"], reorthogonalize=True)
        off = run.betas[: len(run.alphas) - 1]
        theta, s = torch.linalg.eigh(torch.diag(run.alphas) + torch.diag(off, 1) + torch.diag(off, -1))
        chosen = torch.cat([s[:, -TOP:].flip(1), s[:, :1]], 1)
        values, vectors, bottom = theta[-TOP:].flip(0), chosen.T @ torch.stack(run.basis), float(theta[0])
        nodes, weights = theta, s[:1].square()  # the density from the same run, where no other is asked for
    if "trace" in settings:
        method, count = settings["trace"]
        trace = tool.trace(operator, num_matvecs=count, method=method, seed=seed).estimate
    if "density" in settings:
        runs, steps = settings["density"]
        found = tool.spectral_density(
            operator, num_runs=runs, lanczos_steps=steps, num_grid_points=10, seed=1000 * seed
        )
        nodes, weights = found.raw_eigenvalues.reshape(-1), spread(found.raw_weights)
    return Report(values, vectors, bottom, trace, nodes, weights, counted.count)
