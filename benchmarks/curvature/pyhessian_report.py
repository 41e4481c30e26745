"""The report of PyHessian: of a checkout of its repository, since the released version fails on the density."""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from torch import nn

from .report import TOP, Counted, Report, Task, peer, spread


def pyhessian(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    """settings: power (tolerance, most products) of its iteration; trace (_, products); density (runs, steps)."""
    inner = peer("pyhessian.hessian")
    torch.manual_seed(seed)
    original = inner.hessian_vector_product
    inner.hessian_vector_product = counted = Counted(original)
    values = vectors = nodes = weights = torch.empty(0)
    bottom = trace = math.nan
    try:
        tool = peer("pyhessian").hessian(job.model, nn.CrossEntropyLoss(), data=(job.x, job.y), cuda=False)
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
