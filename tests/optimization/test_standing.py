import math

import pytest
import torch
from scipy import stats

from whydeep.core import Outcome, Status
from whydeep.optimization.comparison import Comparison, Run
from whydeep.optimization.standing import progress, scores, sentence, standing, table


def run(solver, seed, score, *, start="one", equal="passes", held=1.0, errors=(0.9, 0.5, 0.1), pace=1.0):
    passes = len(errors)
    history = {
        "error": torch.tensor(errors, dtype=torch.float64),
        "loss": torch.tensor(errors, dtype=torch.float64),
        "seconds": pace * torch.arange(passes, dtype=torch.float64),
        "validation": torch.full((passes,), held, dtype=torch.float64),
    }
    return Run(
        solver, start, seed, equal, "as given", history, Outcome(Status.BUDGET_SPENT), pace * (passes - 1), score
    )


def compared(*runs):
    settings = {(one.solver, one.start): one.setting for one in runs}
    return Comparison(runs, settings, {}, {"one": 2.0}, True)


def test_the_lead_is_students_interval_of_paired_differences_jointly_over_pairs():
    a, b, c = [0.10, 0.12, 0.11], [0.24, 0.25, 0.26], [0.11, 0.13, 0.10]
    found = compared(*[run(name, k, s) for name, row in (("a", a), ("b", b), ("c", c)) for k, s in enumerate(row)])
    seen = standing(found, "passes", samples=1000, classes=True)
    assert seen.order == ("a", "c", "b")
    lead = seen.leads["b"]
    # Differences .14, .13, .15: mean .14, sd .01; three pairs: t at 1 - .05/6 with 2 degrees of freedom.
    assert lead.value == pytest.approx(0.14)
    assert lead.high - lead.value == pytest.approx(stats.t.ppf(1 - 0.05 / 6, 2) * 0.01 / math.sqrt(3))
    assert seen.verdict == "a ahead of b, level with c"


def test_who_is_ahead_of_all_and_who_is_level():
    ahead = compared(run("a", 1, 0.1), run("a", 2, 0.1), run("b", 1, 0.3), run("b", 2, 0.3))
    assert standing(ahead, "passes", samples=10**6, classes=True).verdict == "a ahead"
    # With ten test samples two seeds that agree may do so by chance: the spread counts as one sample at least.
    assert standing(ahead, "passes", samples=10, classes=True).verdict == "level"
    one = compared(run("a", 1, 0.1), run("b", 1, 0.3))
    assert standing(one, "passes", samples=1000, classes=True).verdict == "one seed: undecided"
    alone = compared(run("a", 1, 0.1))
    assert standing(alone, "passes", samples=1000, classes=True).verdict == "a alone"
    assert standing(compared(), "passes", samples=1000, classes=True).verdict == "no run"


def test_the_better_start_is_chosen_by_the_held_back_risk_and_never_by_test_data():
    found = compared(
        run("a", 1, 0.30, start="one", held=0.1),
        run("a", 1, 0.05, start="two", held=0.2),
        run("b", 1, 0.20, start="two", held=0.3),
    )
    seen = standing(found, "passes", samples=100, classes=True)
    assert seen.starts == {"a": "one", "b": "two"}
    assert seen.order == ("b", "a")


def test_a_false_lead_is_rare_and_a_true_one_is_found():
    # Three solvers that are alike, then one that is ahead by two standard deviations, ten seeds each.
    generator = torch.Generator().manual_seed(0)
    false = true = 0
    for _ in range(200):
        noise = torch.randn(3, 10, generator=generator, dtype=torch.float64).tolist()
        rows = [(name, k, v) for name, row in zip("abc", noise, strict=True) for k, v in enumerate(row)]
        false += standing(compared(*[run(*row) for row in rows]), "passes", samples=1, classes=False).verdict != "level"
        moved = [run(name, k, v - 3 * (name == "a")) for name, k, v in rows]
        true += standing(compared(*moved), "passes", samples=1, classes=False).verdict == "a ahead"
    # At most 5 % of 200 are expected: 10, sd 3.1; 20 are three of these above it.
    assert false <= 20
    assert true >= 190


def test_the_sentence_says_what_was_measured():
    found = compared(run("a", 1, 0.1), run("a", 2, 0.12), run("b", 1, 0.3), run("b", 2, 0.31))
    seen = standing(found, "passes", samples=1000, classes=True)
    said = sentence(seen, "passes", "30", classes=True)
    assert said == "Test error at equal passes (30): a 11 % and b 30 %; a over b: 20 points (13 to 26)."
    level = standing(compared(run("a", 1, 0.1), run("a", 2, 0.3), run("b", 1, 0.21), run("b", 2, 0.2)), "passes",
                     samples=1000, classes=True)  # fmt: skip
    assert sentence(level, "passes", "30", classes=True).endswith("which is level.")
    one = standing(compared(run("a", 1, 0.1), run("b", 1, 0.2)), "passes", samples=9, classes=True)
    assert sentence(one, "passes", "30", classes=True).endswith("one seed cannot tell them apart.")


def test_progress_is_the_median_with_the_range_of_the_seeds():
    rows = [(0.9, 0.5, 0.1), (0.9, 0.7, 0.3), (0.9, 0.6, 0.5)]
    group = [run("a", k, 0.0, errors=row) for k, row in enumerate(rows)]
    (line,) = progress({"a": group, "none": []}, "passes", "Errors").lines
    assert list(line.y) == pytest.approx([90, 60, 30])
    assert list(line.low) == pytest.approx([90, 50, 10])
    assert list(line.high) == pytest.approx([90, 70, 50])
    # Over seconds up to the median of their lengths: 2 s, where the slow run (4 s) is at its middle pass.
    paced = [run("a", k, 0.0, errors=row, pace=p) for k, (row, p) in enumerate(zip(rows, (1, 1, 2), strict=True))]
    (line,) = progress({"a": paced}, "seconds", "Errors").lines
    assert line.x[-1] == 2.0
    assert (line.low[-1], line.high[-1]) == pytest.approx((10, 60))


def test_dots_and_rows_stand_for_the_runs():
    found = compared(*[run("a", k, s, equal=e) for e in ("passes", "seconds") for k, s in enumerate((0.1, 0.2))])
    curve = scores(found, classes=True)
    assert curve.x_ticks == ("a",)
    assert [line.y[0] for line in curve.lines] == pytest.approx([15, 15])
    half = stats.t.ppf(0.975, 1) * math.sqrt(0.005) / math.sqrt(2) * 100
    assert curve.lines[0].high[0] == pytest.approx(15 + half)
    assert curve.lines[0].low[0] == 0  # an error is never below 0
    (row,) = table(found, classes=True).rows
    assert row[:6] == ("a", "one", "as given", 2, 2.0, 15.0)
    assert row[-1] == "4 budget spent"
