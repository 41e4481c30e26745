import numpy as np
import pytest
from matplotlib.figure import Figure

from whydeep.core import Curve, Line, drawing


def drawn(*lines, **changes):
    given = {"title": "t", "x_label": "x", "y_label": "y", "alt": "a"} | changes
    axes = Figure(figsize=(400 / 72, 250 / 72), dpi=72).subplots()
    drawing.draw(Curve(lines=lines, **given), axes)
    return axes


def test_roles_are_told_apart_by_more_than_colour():
    axes = drawn(
        Line("a", [0, 1], [1, 2]),
        Line("b", [0, 1], [1, 3]),
        Line("theory", [0, 1], [1, 4], role="theory"),
        Line("chance", [0, 1], [0.5, 0.5], role="reference"),
    )
    first, second, theory, reference = axes.get_lines()[:4]
    assert first.get_marker() != second.get_marker()
    assert first.get_color() != second.get_color()
    assert theory.is_dashed()
    assert not first.is_dashed()
    assert reference.get_color() == drawing.GREY


def test_each_prediction_has_the_colour_of_its_measurement():
    axes = drawn(
        Line("a", [0, 1], [1, 2]),
        Line("b", [0, 1], [1, 3]),
        Line("a predicted", [0, 1], [1, 2], role="theory"),
        Line("b predicted", [0, 1], [1, 3], role="theory"),
    )
    colours = [line.get_color() for line in axes.get_lines()[:4]]
    assert colours[:2] == colours[2:]


def test_labels_stand_at_the_ends_without_overlap():
    axes = drawn(*(Line(f"line {k}", [0, 1], [k, 1 + k / 100]) for k in range(4)))
    assert axes.get_legend() is None
    heights = sorted(text.get_position()[1] for text in axes.texts)
    size = axes.texts[0].get_fontsize() / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    assert len(heights) == 4
    assert min(np.diff(heights)) >= size
    by_value = [text.get_text() for text in sorted(axes.texts, key=lambda text: text.get_position()[1])]
    assert by_value == ["line 0", "line 1", "line 2", "line 3"]  # in the order of the ends


@pytest.mark.parametrize(
    "lines",
    [
        (Line("short", [0, 1], [0, 1]), Line("long", [0, 10], [0, 1])),  # one ends in the middle
        (Line("word " * 20, [0, 1], [0, 1]), Line("b", [0, 1], [1, 0])),  # a label too long for the margin
        tuple(Line(f"line {k}", [0, 1], [k, k]) for k in range(40)),  # too many
        (Line("gone", [0, 1], [np.nan, np.inf]), Line("b", [0, 1], [1, 0])),  # one without an end
    ],
)
def test_a_legend_stands_below_where_labels_do_not_fit(lines):
    axes = drawn(*lines)
    assert list(axes.texts) == []
    assert axes.get_legend() is not None


def test_a_single_line_needs_no_label():
    axes = drawn(Line("only", [0, 1], [1, 2]))
    assert list(axes.texts) == []
    assert axes.get_legend() is None


def test_log_axes_are_said_in_the_label_once():
    axes = drawn(Line("a", [1, 10], [1, 100]), x_log=True, y_log=True, y_label="log loss")
    assert axes.get_xlabel() == "x (log scale)"
    assert axes.get_ylabel() == "log loss"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_zero_is_shown_where_it_is_near():
    assert drawn(Line("a", [0, 1], [0.3, 1.0])).get_ylim()[0] == 0
    assert drawn(Line("a", [0, 1], [0.9, 1.0])).get_ylim()[0] > 0.85
    crossing = drawn(Line("a", [0, 1], [-1.0, 1.0]))
    assert any(np.ptp(np.asarray(line.get_ydata(), dtype=float)) == 0 for line in crossing.get_lines()[1:])


def test_banded_marks_over_categories_are_not_joined_nor_on_top_of_each_other():
    values = ([1, 2, 3], [0.5, 1.5, 2.5], [1.5, 2.5, 3.5])
    axes = drawn(
        Line("a", range(3), *values, marks=True), Line("b", range(3), *values, marks=True), x_ticks=("p", "q", "r")
    )
    first, second = axes.get_lines()[:2]
    assert first.get_linestyle() == second.get_linestyle() == "None"
    assert np.allclose(np.asarray(second.get_xdata()) - np.asarray(first.get_xdata()), 0.16)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["p", "q", "r"]


def test_a_curve_without_lines_or_values_is_an_empty_plot():
    assert drawn().get_lines()[:] == []
    assert drawn(Line("a", [], [])) is not None
    assert drawn(Line("a", [1], [2], [1], [3]), y_log=True).get_lines()[0].get_marker() == "o"


def test_labels_are_moved_as_little_as_order_and_edges_allow():
    # Three labels of height 0.2 that all want the top edge: the centres stack down from 0.9.
    assert drawing._spread([1.0, 1.0, 1.0], [0.2, 0.2, 0.2]) == pytest.approx([0.5, 0.7, 0.9])
    assert drawing._spread([0.8, 0.3], [0.1, 0.1]) == pytest.approx([0.8, 0.3])
    assert drawing._spread([0.0, 0.01], [0.2, 0.2]) == pytest.approx([0.1, 0.3])


def test_a_legend_stands_clear_of_the_names_and_the_label_of_the_axis():
    names = tuple(f"layer {k} convolution" for k in range(4))
    for ticks in (names, ("p", "q", "r", "s"), None):
        line = Line("a", range(4), range(4), range(4), range(1, 5), marks=True)
        figure = Figure(figsize=(400 / 72, 250 / 72), dpi=72, layout="constrained")
        axes = figure.subplots()
        short = Line("b", [0, 1], [1, 2])
        drawing.draw(Curve("t", "layer", "y", (line, short), "a", x_ticks=ticks), axes)
        figure.draw_without_rendering()
        legend = axes.get_legend().get_window_extent()
        assert legend.y1 <= axes.xaxis.get_label().get_window_extent().y0
        assert legend.y0 >= 0


@pytest.mark.parametrize("last", [3, 5, 9, 40])
def test_an_axis_of_whole_numbers_has_whole_ticks(last):
    axes = Curve(
        "c", "layer", "y", (Line("a", list(range(1, last + 1)), [float(n) for n in range(last)]),), alt="a"
    ).plot()
    ticks = axes.xaxis.get_major_locator().tick_values(*axes.get_xlim())
    assert len(ticks) >= 3
    assert all(float(tick).is_integer() for tick in ticks)
    between = Curve("c", "x", "y", (Line("a", [0.0, 0.5, 1.0], [0.0, 1.0, 2.0]),), alt="a").plot()
    assert not all(float(tick).is_integer() for tick in between.get_xticks())
