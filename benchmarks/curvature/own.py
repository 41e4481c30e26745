"""The report of this library, with its settings as they come but for what is asked to be otherwise."""

from __future__ import annotations

from typing import Any

import torch

from whydeep.optimization.landscape import spectrum

from .report import RESIDUAL, TOP, TRACE, Report, Task, seeded


def own(job: Task, seed: int, settings: dict[str, Any]) -> Report:
    """settings: nothing, or columns."""
    asked: dict[str, Any] = {"top": TOP, "tolerance": RESIDUAL, "trace_tolerance": TRACE} | settings
    seen = spectrum(job.problem, generator=seeded(seed), **asked)
    vectors = torch.cat([seen.eigenvectors, seen.softest[None]])
    rule = seen.quadrature
    return Report(seen.eigenvalues, vectors, seen.smallest, seen.trace, rule.nodes, rule.weights, seen.products)
