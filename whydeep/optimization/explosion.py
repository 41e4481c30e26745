"""A training that made all its passes and ended far above its start has not spent a budget: it has diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from whydeep.core.problem import Problem
from whydeep.core.training import Outcome, Status

TIMES = 10.0
"""Diverged is a training whose last risk is more than so many times that of its start, or of outputs zero.

A choice, not a theorem: a first sweep from a good start may double the risk, and a hot chain sits at some multiple of
the least one, but ten times the risk of a network that says nothing is far from any targets."""
ROWS = 10_000
"""Targets that the risk of outputs zero is taken on, the first ones."""


def exploded(outcome: Outcome, history: Mapping[str, Sequence[float]], problem: Problem) -> Outcome:
    """Return the outcome of a training; DIVERGED where it ended by itself with a risk far above that of its start.

    With r_0 and r the first and the last of `history["loss"]`, and s the risk of outputs zero, it is
    r > `TIMES` max(r_0, s). s is the scale of the targets: a start of risk near 0, from which anything is many times as
    far, is left in peace; it does not count where it is not finite.
    A method returns where it ended, so that what came between does not matter; but with `history["validation"]` it
    returns the best iterate there, and nothing has diverged where that is better than the start. Outcomes that are the
    user's (INTERRUPTED) or a criterion's (CONVERGED) stay.
    """
    if outcome.status not in (Status.BUDGET_SPENT, Status.STOPPED_EARLY):
        return outcome
    held = history.get("validation")
    if held is not None and min(held) < held[0]:
        return outcome
    first, last = history["loss"][0], history["loss"][-1]
    if last <= TIMES * max(first, _risk_of_zero(problem)):
        return outcome
    return Outcome(Status.DIVERGED, f"{outcome.reason}, and the risk rose from {first:.3g} to {last:.3g}")


def _risk_of_zero(problem: Problem) -> float:
    targets, classes = problem.train.targets[:ROWS], problem.train.classes
    if classes is None:
        output = torch.zeros_like(targets)
    else:
        dtype = next((value.dtype for value in problem.model.parameters()), None)
        output = torch.zeros(len(targets), classes, dtype=dtype, device=targets.device)
    with torch.no_grad():
        risk = float(problem.per_sample(output, targets).double().mean().cpu())
    return risk if math.isfinite(risk) else 0.0
