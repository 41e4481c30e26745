"""Curves, tables and images: what they hold, refuse and draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from whydeep.core import Curve, Image, Line, Table


def test_lines_hold_plain_numbers_whatever_was_given() -> None:
    weights = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    line = Line("a", np.array([1, 2]), weights, low=[2.0, 3.0], high=(4.0, 5.0))  # type: ignore[arg-type]
    assert (line.x, line.y, line.low, line.high) == ((1.0, 2.0), (3.0, 4.0), (2.0, 3.0), (4.0, 5.0))
    assert all(type(number) is float for number in line.x + line.y)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": [1.0]}, "2 x but 1 y"),
        ({"y": [1.0, 2.0], "low": [0.0, 0.0]}, "needs low and high"),
        ({"y": [1.0, 2.0], "low": [0.0], "high": [1.0, 2.0]}, "2 x but 1 low"),
        ({"y": [1.0, 2.0], "low": [0.0, 1.0], "high": [1.0]}, "2 x but 1 high"),
    ],
)
def test_lines_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Line("a", [0.0, 1.0], **options)


def test_a_curve_draws_its_lines() -> None:
    lines = (
        Line("measured", [1.0, 2.0], [3.0, 4.0], low=[2.0, 3.0], high=[4.0, 5.0], marks=True),
        Line("theory", [1.0, 2.0], [3.5, 4.5], role="theory"),
        Line("control", [1.0, 2.0], [1.0, 1.0], role="reference"),
    )
    axes = Curve("Title", "passes", "risk (nats)", lines, "It rises.", x_log=True, y_log=True).plot()
    assert axes.get_title(loc="left") == "Title"
    assert axes.get_xlabel().startswith("passes")
    assert "log" in axes.get_xlabel()  # an axis says that it is logarithmic
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    drawn = axes.get_lines()
    assert [np.asarray(line.get_ydata()).tolist() for line in drawn] == [[3.0, 4.0], [3.5, 4.5], [1.0, 1.0]]
    assert drawn[0].get_linestyle() == "-" != drawn[1].get_linestyle()  # theory is dashed
    red, green, blue, _ = to_rgba(drawn[2].get_color())
    assert max(red, green, blue) - min(red, green, blue) < 0.05  # a reference is grey
    assert len(axes.collections) == 1  # one band


def test_a_curve_draws_into_given_axes_and_names_positions() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    curve = Curve("t", "layer", "error", (Line("a", [0, 1], [1, 2]),), "alt", x_ticks=("first", "second"))
    assert curve.plot(axes) is axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["first", "second"]
    assert axes.get_legend() is None


def test_the_state_of_pyplot_is_left_alone() -> None:
    import matplotlib.pyplot as plt

    Curve("t", "x", "y", (Line("a", [0, 1], [1, 2]),), "alt").plot()
    assert plt.get_fignums() == []


def test_tables_need_full_rows() -> None:
    Table("t", ("a", "b"), ((1, None), ("x", 2.0)))
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Table("t", ("a", "b"), ((1, 2), (3,)))


@pytest.mark.parametrize(
    ("tiles", "captions", "message"),
    [
        (np.zeros((2, 4, 4)), (), "float64"),
        (np.zeros((4, 4), np.uint8), (), r"\(4, 4\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), (), r"\(2, 4, 4, 4\)"),
        (np.zeros((2, 4, 4), np.uint8), ("one",), "1 captions for 2 tiles"),
    ],
)
def test_images_refuse(tiles: Any, captions: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Image("t", tiles, "alt", captions)


def test_images_in_grey_and_colour() -> None:
    assert Image("t", np.zeros((2, 4, 5), np.uint8), "alt", ("a", "b")).tiles.shape == (2, 4, 5)
    assert Image("t", np.zeros((2, 4, 5, 3), np.uint8), "alt").tiles.shape == (2, 4, 5, 3)
