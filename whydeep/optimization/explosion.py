"""A training that made all its passes and ended far above its start has not spent a budget: it has diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from whydeep.core.problem import Problem
from whydeep.core.training import Outcome, Status

TIMES = 10.0
"""Diverged is a training whose last risk is more than so many times that of its start, or of the best constant output.

A choice, not a theorem: a first sweep from a good start may double the risk, and a hot chain sits at some multiple of
the least one, but ten times the risk of a network that says nothing is far from any targets."""
ROWS = 10_000
"""Targets that the risk of a constant output is taken on, spread evenly over all."""


def exploded(outcome: Outcome, history: Mapping[str, Sequence[float]], problem: Problem) -> Outcome:
    """Return the outcome of a training; DIVERGED where it ended by itself with a risk far above that of its start.

    With r_0 and r the first and the last of `history["loss"]`, and s the risk of a constant output, it is

        r > `TIMES` max(|r_0|, |s|).

    s is the scale of the targets: a start of risk near 0, from which anything is many times as far, is left in peace.
    The constant is 0, or for regression the mean of the targets where that is better: years are some 2,000, and still
    differ by tens only. s does not count where it is not finite, or where the loss refuses the constant. Magnitudes are
    compared, since the negative logarithm of a density may be below 0.
    A method returns where it ended, so that what came between does not matter; but with `history["validation"]` it
    returns the best iterate there, and nothing has diverged where that is better than the start: then only the reason
    tells of the end. Outcomes that are the user's (INTERRUPTED) or a criterion's (CONVERGED) stay.
    """
    if outcome.status not in (Status.BUDGET_SPENT, Status.STOPPED_EARLY):
        return outcome
    first, last = history["loss"][0], history["loss"][-1]
    if last <= TIMES * max(abs(first), abs(_risk_of_a_constant(problem))):
        return outcome
    rose = f"{outcome.reason}, and the risk rose from {first:.3g} to {last:.3g}"
    held = history.get("validation")
    if held is not None and min(held) < held[0]:
        return replace(outcome, reason=f"{rose}; an iterate of before that is returned")
    return Outcome(Status.DIVERGED, rose)


def _risk_of_a_constant(problem: Problem) -> float:
    """Return the risk s above, 0 where there is none."""
    data = problem.train
    targets = data.targets[:: math.ceil(len(data) / ROWS)]
    if data.classes is not None:
        dtype = next((value.dtype for value in problem.model.parameters()), None)
        scores = torch.zeros(len(targets), data.classes, dtype=dtype, device=targets.device)
        return _risk(problem, scores, targets) or 0.0
    zero = _risk(problem, torch.zeros_like(targets), targets)
    # On the CPU, as MPS has no doubles.
    mean = _risk(problem, targets.cpu().double().mean(0).to(targets).expand_as(targets), targets)
    if zero is None or mean is None:
        return zero or mean or 0.0
    # Of targets that are all the same the mean is right to rounding, and that is no scale of anything.
    return mean if torch.finfo(targets.dtype).eps * abs(zero) < abs(mean) < abs(zero) else zero


def _risk(problem: Problem, output: Tensor, targets: Tensor) -> float | None:
    """Return the risk of these outputs, None where it is not finite or the loss cannot be taken there."""
    try:
        with torch.no_grad():
            risk = float(problem.per_sample(output, targets).cpu().double().mean())
    except (RuntimeError, ValueError):  # a loss may want outputs that are positive, say
        return None
    return risk if math.isfinite(risk) else None
