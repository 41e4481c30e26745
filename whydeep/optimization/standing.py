"""Who is ahead in a comparison of solvers, by how much, and whether the seeds can tell; with its curves and table."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from whydeep.core.exhibit import Cell, Curve, Line, Table
from whydeep.core.measurement import Measurement, mean
from whydeep.core.numbers import interval, percent, plain

from .comparison import Comparison, Run

CONFIDENCE = 0.95
POINTS = 60  # of a curve over seconds


@dataclass(frozen=True)
class Standing:
    """Solvers in the order of their scores, best first, each from its better start.

    starts: the better start of each. scores: mean over seeds with Student's interval. leads: of the first over each
    rival, with intervals that hold jointly over all pairs of solvers. verdict: in plain words.
    """

    order: tuple[str, ...]
    starts: Mapping[str, str]
    scores: Mapping[str, Measurement]
    leads: Mapping[str, Measurement]
    verdict: str


def standing(comparison: Comparison, equal: str, *, samples: int, classes: bool) -> Standing:
    """Return who is ahead at equal "passes" or "seconds"; samples: size of the test set.

    A solver counts with the start from which its held-back risk is least on average. With d_s the difference of two
    solvers' scores at seed s, k seeds and p pairs of solvers, their lead is mean(d) +- t s/sqrt(k), where t is
    Student's quantile at 1 - 0.05/(2p) with k - 1 degrees of freedom: by Bonferroni all p intervals hold together with
    95 %, so that picking the first after the fact is allowed for. s is at least 1/samples, one test sample: seeds that
    happen to agree do not make a lead certain. The first is ahead of a rival when the interval lies above 0.
    """
    found: dict[str, tuple[str, list[Run]]] = {}
    starts = list(dict.fromkeys(run.start for run in comparison.runs))
    for solver in dict.fromkeys(run.solver for run in comparison.runs):
        runs = {start: list(comparison.of(solver, start, equal)) for start in starts}
        runs = {start: some for start, some in runs.items() if some}
        if runs:
            best = min(runs, key=lambda start: statistics.fmean(_held_back(run) for run in runs[start]))
            found[solver] = (best, runs[best])
    unit = "fraction" if classes else ""
    name = "test error" if classes else "test risk"
    scores = {
        solver: mean(f"{name} at equal {equal}: {solver}, {start}", [run.score for run in runs], unit=unit)
        for solver, (start, runs) in found.items()
    }
    order = tuple(sorted(scores, key=lambda solver: scores[solver].value))
    pairs = len(order) * (len(order) - 1) // 2
    floor = 1 / samples if classes else 0.0
    leads = {
        rival: _lead(f"lead of {order[0]} over {rival} at equal {equal}", found[order[0]][1], found[rival][1],
                     pairs, floor, "fraction difference" if classes else "")
        for rival in order[1:]
    }  # fmt: skip
    return Standing(order, {s: start for s, (start, _) in found.items()}, scores, leads, _words(order, leads))


def _held_back(run: Run) -> float:
    return float(run.history.get("validation", run.history["loss"]).min())


def _lead(name: str, first: Sequence[Run], rival: Sequence[Run], pairs: int, floor: float, unit: str) -> Measurement:
    theirs = {run.seed: run.score for run in rival}
    differences = [theirs[run.seed] - run.score for run in first if run.seed in theirs]
    count = len(differences)
    centre = statistics.fmean(differences) if count else 0.0
    half = math.inf
    if count > 1:
        spread = max(statistics.stdev(differences), floor)
        quantile = float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * pairs), count - 1))
        half = quantile * spread / math.sqrt(count)
    method = f"Student, {count} seeds, jointly over {pairs} pairs"
    return Measurement(name, centre, centre - half, centre + half, confidence=CONFIDENCE, unit=unit, method=method)


def _words(order: Sequence[str], leads: Mapping[str, Measurement]) -> str:
    if not order:
        return "no run"
    if not leads:
        return f"{order[0]} alone"
    if any(math.isinf(lead.high) for lead in leads.values()):
        return "one seed: undecided"
    beaten = [rival for rival, lead in leads.items() if lead.low > 0]
    level = [rival for rival in leads if rival not in beaten]
    if not beaten:
        return "level"
    return f"{order[0]} ahead" if not level else f"{order[0]} ahead of {_list(beaten)}, level with {_list(level)}"


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentence(seen: Standing, equal: str, amount: str, *, classes: bool) -> str:
    """Return the scores and the lead in words, composed from what was measured; amount: how much was equal."""
    if not seen.order:
        return f"No solver finished a run at equal {equal}."
    value = percent if classes else plain
    listed = _list([f"{solver} {value(seen.scores[solver].value)}" for solver in seen.order])
    text = f"Test {'error' if classes else 'risk'} at equal {equal} ({amount}): {listed}"
    if not seen.leads:
        return f"{text}."
    rival, lead = next(iter(seen.leads.items()))
    if math.isinf(lead.high):
        return f"{text}; one seed cannot tell them apart."
    by = interval(lead.value, lead.low, lead.high, lead.unit)
    return f"{text}; {seen.order[0]} over {rival}: {by}{'' if lead.low > 0 else ', which is level'}."


def scores(comparison: Comparison, *, classes: bool) -> Curve:
    """Return the test score of every solver, by start and by what was equal, as dots with Student's intervals."""
    solvers = tuple(dict.fromkeys(run.solver for run in comparison.runs))
    groups = list(dict.fromkeys((run.start, run.equal) for run in comparison.runs))
    factor, lines, told = 100 if classes else 1, [], []
    for start, equal in groups:
        x, y, low, high = [], [], [], []
        for place, solver in enumerate(solvers):
            runs = comparison.of(solver, start, equal)
            if not runs:
                continue
            seen = mean("score", [factor * run.score for run in runs])
            known = len(runs) > 1
            x.append(float(place))
            y.append(seen.value)
            low.append(max(0.0, seen.low) if known else seen.value)
            high.append(seen.high if known else seen.value)
            told.append(f"{solver} {plain(seen.value, 3)} ({start}, equal {equal})")
        lines.append(Line(f"{start}, equal {equal}", x, y, low, high, marks=True))
    name = "test error (%)" if classes else "test risk"
    return Curve(
        title="At the end",
        x_label="solver",
        y_label=name,
        lines=tuple(lines),
        alt=f"{name[0].upper()}{name[1:]}, means over seeds with 95 % intervals: {'; '.join(told)}.",
        x_ticks=solvers,
    )


def progress(groups: Mapping[str, Sequence[Run]], over: str, title: str) -> Curve:
    """Return the training error (risk for regression) over "passes" or "seconds", a line a group of runs.

    Each line is the median over the group's seeds, and its band reaches from the lowest to the highest of them.
    """
    groups = {label: runs for label, runs in groups.items() if runs}
    classes = any("error" in run.history for runs in groups.values() for run in runs)
    factor, lines, ends = 100 if classes else 1, [], []
    for label, runs in groups.items():
        if over == "seconds":
            x = np.linspace(0, statistics.median(run.seconds for run in runs), POINTS)
            rows = [np.array([run.at(float(t)) for t in x]) for run in runs]
        else:
            longest = max(run.passes for run in runs)
            x = np.arange(longest + 1.0)
            # A run that ended early stays where it ended.
            rows = [np.interp(x, np.arange(run.passes + 1.0), run.progress.numpy()) for run in runs]
        if len(runs) == 1 and over == "seconds":  # the passes themselves
            x, rows = runs[0].history["seconds"].numpy(), [runs[0].progress.numpy()]
        values = factor * np.stack(rows)
        middle = np.median(values, 0)
        several = len(runs) > 1
        low, high = (values.min(0).tolist(), values.max(0).tolist()) if several else (None, None)
        lines.append(Line(label, x.tolist(), middle.tolist(), low, high))
        ends.append(f"{label} {plain(float(middle[-1]), 3)}")
    name = "training error (%)" if classes else "training risk"
    return Curve(
        title=title,
        x_label="seconds of training" if over == "seconds" else "passes over the training data",
        y_label=name,
        lines=tuple(lines),
        alt=f"{title}: {name} against {over}, medians over seeds; at the end {'; '.join(ends)}.",
        y_log=not classes,
    )


def table(comparison: Comparison, *, classes: bool, note: str = "") -> Table:
    """Return one row a solver and start: what was chosen, and the test scores at equal passes and at equal seconds."""
    what = "test error (%)" if classes else "test risk"
    groups = dict.fromkeys((run.solver, run.start) for run in comparison.runs)
    rows = []
    for solver, start in groups:
        cells: list[Cell] = [solver, start, comparison.settings[solver, start]]
        ended: list[str] = []
        for equal in ("passes", "seconds"):
            runs = comparison.of(solver, start, equal)
            ended += [run.outcome.status.value for run in runs]
            if not runs:
                cells += [None, None, None, None]
                continue
            factor = 100 if classes else 1
            seen = mean("score", [factor * run.score for run in runs])
            between = f"{plain(max(0.0, seen.low), 3)} to {plain(seen.high, 3)}" if len(runs) > 1 else "unknown"
            cells += [
                statistics.median(run.passes for run in runs),
                round(statistics.median(run.seconds for run in runs), 2),
                float(f"{seen.value:.3g}"),
                between,
            ]
        counts = [f"{ended.count(status)} {status}" for status in dict.fromkeys(ended)]
        rows.append((*cells, ", ".join(counts)))
    columns = [f"{column}, equal {equal}" for equal, column in itertools.product(
        ("passes", "seconds"), ("passes", "seconds", what, "95 % interval"))]  # fmt: skip
    return Table("All runs", ("solver", "start", "chosen", *columns, "runs ended"), tuple(rows), note)
