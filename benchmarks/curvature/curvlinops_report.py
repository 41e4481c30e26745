"""The report of curvlinops, with SciPy's eigsh for the ends."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .report import TOP, Report, Task, peer, seeded, spread


def curvlinops(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    """settings: tolerance of eigsh; trace (method, products); density (runs, steps)."""
    tool = peer("curvlinops")
    slq = peer("curvlinops.papyan2020traces.spectrum")
    linalg = peer("scipy.sparse.linalg")
    torch.manual_seed(seed)
    operator = tool.HessianLinearOperator(
        job.model, nn.CrossEntropyLoss(), job.weights, [(job.x, job.y)], check_deterministic=False
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
            estimate = tool.hutchpp_trace if method == "hutch++" else tool.hutchinson_trace
            trace = float(estimate(operator, num_matvecs=number))
        if "density" in settings:
            runs, steps = settings["density"]
            found = [slq.fast_lanczos(operator, steps) for _ in range(runs)]
            nodes = torch.cat([values for values, _ in found])
            weights = spread(torch.stack([vectors[0] ** 2 for _, vectors in found]))
    finally:
        kind._matmat = original
    return Report(values, vectors, bottom, trace, nodes, weights, count[0])
