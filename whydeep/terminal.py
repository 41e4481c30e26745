"""What the command line shows: progress, the four answers, findings. Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from whydeep.core.claim import Claim, Finding
from whydeep.core.evaluation import errors
from whydeep.core.numbers import interval, percent
from whydeep.core.problem import Problem
from whydeep.core.record import NOT_RUN, Record
from whydeep.core.training import Progress as Step
from whydeep.core.training import Training
from whydeep.core.verdict import Verdict
from whydeep.generalization.certificates.certificate import Certificate

if TYPE_CHECKING:
    from whydeep.curvature import Curvature

MARKS = {
    Verdict.HOLDS: ("consistent with", "green"),
    Verdict.VIOLATED: ("VIOLATED", "red"),
    Verdict.INCONCLUSIVE: ("inconclusive", "yellow"),
    Verdict.INAPPLICABLE: ("inapplicable", "yellow"),
    Verdict.VACUOUS: ("vacuous", "yellow"),
}
TONES = {"good": "green", "caution": "yellow", "bad": "red", "neutral": "white"}


class Watch:
    """Shows progress, and turns the first Ctrl-C into a clean end.

    During a training the first Ctrl-C lets the present step finish; during an instrument it ends the instrument. What
    is there is then written. The second Ctrl-C stops at once.
    """

    def __init__(self, bars: Progress | None, quiet: bool) -> None:
        self.bars, self.quiet = bars, quiet
        self.interrupted = False
        self._phase = ""
        self._task: Any = None
        self._began = time.perf_counter()

    def __call__(self, phase: str, step: Step) -> bool:
        """Show how far `phase` is; return whether to stop."""
        if phase != self._phase:
            self._phase = phase
            if self.bars is None and not self.quiet and phase != "done":
                sys.stderr.write(f"{time.perf_counter() - self._began:6.1f} s  {phase.replace('_', ' ')}\n")
                sys.stderr.flush()
            if self.bars is not None:
                if self._task is not None:
                    self.bars.remove_task(self._task)
                self._task = self.bars.add_task(phase.replace("_", " "), total=step.total)
        if self.bars is not None and self._task is not None:
            self.bars.update(self._task, completed=step.done, total=step.total)
        return self.interrupted

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.interrupted = True
        if not self._phase.startswith(("training", "choosing", "equal")):  # of `examine`, and the runs of a race
            raise KeyboardInterrupt
        sys.stderr.write("\nfinishing this step, then writing what there is; Ctrl-C again stops at once\n")


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[Watch]:
    """Show progress on standard error inside the block; the handler of Ctrl-C is restored after it."""
    console = Console(stderr=True)
    bars = None
    if console.is_terminal and not quiet:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        bars = Progress(*columns, console=console, transient=True)
        bars.start()
    watch = Watch(bars, quiet)
    before = signal.signal(signal.SIGINT, watch.on_signal)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
        if bars is not None:
            bars.stop()


def summarise(record: Record, page: Path) -> None:
    """Print the four answers and where the page is."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(f"{record.subject['network']}, {record.subject['data']}", style="bold", markup=False)
    for name, question in record.questions.items():
        console.print()
        console.print(f"{name}: {question.verdict}", style=f"bold {TONES[question.tone]}", markup=False)
        if (m := question.headline) is not None:
            console.print(f"  {m.name}: {interval(m.value, m.low, m.high, m.unit, m.confidence)}", markup=False)
        for section in question.sections:
            console.print(f"  {section.answer.sentence}", markup=False)
        for missing in question.failed:
            word = "failed: " if missing.reason != NOT_RUN else ""
            console.print(f"  {word}{missing.title}: {missing.reason}", style="red", markup=False)
        for missing in question.inapplicable:
            console.print(f"  not applicable: {missing.title}: {missing.reason}", style="dim", markup=False)
    console.print()
    console.print(f"{record.seconds:.0f} s; the page: {page}", markup=False)


def training(result: Training, trained: Problem, out: Path) -> None:
    """Print how a training ended: risk, and for classes the error, on training and test data."""
    outcome = result.outcome
    sets = {"training": trained.train} | ({} if trained.test is None else {"test": trained.test})
    risks = ", ".join(f"{trained.risk(data):.4g} on {name}" for name, data in sets.items())
    line = f"{outcome.status.value}: {outcome.reason}; {result.seconds:.1f} s; risk {risks} data"
    if trained.train.classes is not None:
        wrong = {name: float(errors(trained.model, data).double().mean()) for name, data in sets.items()}
        line += f"; error {', '.join(f'{percent(value)} on {name}' for name, value in wrong.items())} data"
    sys.stdout.write(f"{line}\nweights: {out / 'weights.safetensors'}\n")


def claims(chosen: Sequence[Claim]) -> None:
    """Print claims, a block each."""
    console = Console(highlight=False)
    for claim in chosen:
        console.print(claim.id, style="bold", markup=False)
        console.print(f"  {claim.question}. {claim.statement}", markup=False)
        console.print(f"  {claim.source}", style="dim", markup=False)


def finding(found: Finding) -> None:
    """Print one finding: verdict, predicted, measured."""
    console = Console(highlight=False)
    word, colour = MARKS[found.verdict]
    p, m = found.predicted, found.measured
    table = Table.grid(padding=(0, 2))
    table.add_column(width=15)
    table.add_column()
    tolerance = f" +- {p.tolerance:.3g}" if p.tolerance else ""
    table.add_row(f"[{colour}]{word}[/]", f"{found.id} ({found.seconds:.1f} s)")
    table.add_row("", f"predicted {p.relation} {p.value:.6g}{tolerance}; measured {m.value:.6g} "
                  f"\\[{m.low:.6g}, {m.high:.6g}] {_aside(found.reason)}")  # fmt: skip
    console.print(table)


def certificates(sentence: str, found: Sequence[Certificate], independence: str, *, trained: bool) -> None:
    """Print the first certificate in words, a table of all, and what the first one takes for granted."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(sentence, style="bold", markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("method", "error of", "at most", "measured", "samples", "largest part", ""):
        table.add_column(title)
    # The plain certificate of the same network is a row once, whichever method it stands beside.
    rows = dict.fromkeys(
        (
            r.method,
            r.subject or ("the network trained" if trained else "the classifier given"),
            percent(r.bound, up=True),
            percent(r.error),
            f"{r.n:,}",
            r.dominant,
            "vacuous" * r.vacuous,
        )
        for c in found
        for r in (c, c.baseline)
        if r is not None
    )
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()
    first = found[0]
    lines = [f"Assumes that {text}." for text in first.assumptions] + [f"Paid: {text}." for text in first.union]
    lines += [f"Note: {text}." for text in first.notes]
    lines += [f"Independence of the held-out samples: {independence}. Each row holds by itself with this confidence."]
    for line in lines:
        console.print(line, style="dim", markup=False, soft_wrap=True)


def curvature(found: Curvature) -> None:
    """Print a spectrum in words, a table of what was measured, and one of the layers that were asked for."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(found.sentence, style="bold", markup=False, soft_wrap=True)
    console.print()
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for m in found.measurements:
        rows.add_row(m.name, interval(m.value, m.low, m.high, "" if m.name == "parameters" else m.unit))
    console.print(rows)
    layers = Table("layer", "parameters", "largest", "smallest", "trace", box=None, padding=(0, 2, 0, 0))
    for name, layer in found.spectrum.layers.items():
        numbers = [interval(m.value, m.low, m.high) for m in layer.measurements]
        layers.add_row(name, f"{layer.size:,}", *numbers)
    if layers.row_count:
        console.print()
        console.print(layers)


def _aside(reason: str) -> str:
    return f"({reason})" if reason else ""
