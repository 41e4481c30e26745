"""How a curve is drawn into axes: colours, dashes, markers, bands, and labels at the ends of the lines."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

    from .exhibit import Curve, Line

ACCENTS = ("#0b61a4", "#b84300", "#00734f", "#8e3a86", "#7a5c00", "#b3246b")
"""Told apart without colour vision by their lightness order, and never alone: markers differ, too."""

INK, GREY, FAINT = "#1d1d1b", "#6b6b69", "#d9d9d4"
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ((0, (5, 2.5)), (0, (1.5, 1.8)), (0, (6, 2, 1.5, 2)), (0, (9, 3)))
SOLID: tuple[Any, ...] = ("-", (0, (1, 1.2)), (0, (7, 1.5)), (0, (4, 1, 1, 1)))

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LABEL_WIDTH = 17  # characters before a label at a line's end is broken
LABEL_LINES = 3
LINE_HEIGHT = 1.25


def draw(curve: Curve, axes: Axes) -> None:
    """Draw `curve` into `axes`: measured lines in accent colours, theory dashed, references grey.

    Labels stand at the ends of the lines where they fit, else in a legend below. Values that are not finite are gaps.
    Marked points with a band over categories are dots with bars, side by side and not joined.
    """
    styles = trace(curve, axes)
    _scale(curve, axes)
    axes.set_xlabel(textwrap.fill(_named(curve.x_label, curve.x_log), 54))
    axes.set_ylabel(textwrap.fill(_named(curve.y_label, curve.y_log), 32))
    _frame(curve, axes)
    if len(curve.lines) > 1:
        _label(curve, axes, [str(style["color"]) for style in styles])


def trace(curve: Curve, axes: Axes) -> list[dict[str, Any]]:
    """Draw the lines and bands alone, and return the style of each line."""
    styles = _styles(curve)
    for line, shift, style in zip(curve.lines, shifts(curve), styles, strict=True):
        x, y = _finite(line.x) + shift, _finite(line.y)
        axes.plot(x, y, **style)
        if line.low is not None and line.high is not None:
            low, high = _finite(line.low), _finite(line.high)
            if len(x) == 1 or _apart(curve, line):
                axes.vlines(x, low, high, color=style["color"], linewidth=1.5)
            else:
                axes.fill_between(x, low, high, color=style["color"], alpha=0.16, linewidth=0)
    return styles


def shifts(curve: Curve) -> list[float]:
    """Return by how much each line is moved along an axis of categories, so that bars do not cover each other."""
    apart = [_apart(curve, line) for line in curve.lines]
    step = min(0.16, 0.6 / max(1, sum(apart)))
    places = iter((k - (sum(apart) - 1) / 2) * step for k in range(sum(apart)))
    return [next(places) if moved else 0.0 for moved in apart]


def tick(value: float, _position: int | None = None) -> str:
    """Return the text at a tick: no more digits than it has, thousands apart, powers of ten where long.

    >>> tick(0.30000000000000004), tick(20000), tick(1e-7), tick(-2.5e8)
    ('0.3', '20,000', '10⁻⁷', '−2.5×10⁸')
    """
    size = abs(value)
    if size == 0 or 1e-4 <= size < 1e6:
        text = f"{value:,.10f}".rstrip("0").rstrip(".")
        return text.replace("-", "−")
    mantissa, _, power = f"{value:.8e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    power = f"10{str(int(power)).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1" else f"{mantissa}×{power}"


def _finite(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def _apart(curve: Curve, line: Line) -> bool:
    return curve.x_ticks is not None and line.marks and line.low is not None and line.role != "theory"


def _styles(curve: Curve) -> list[dict[str, Any]]:
    counts = {"measured": 0, "theory": 0, "reference": 0}
    total = {role: sum(line.role == role for line in curve.lines) for role in counts}
    paired = total["theory"] > 1 and total["theory"] == total["measured"]
    styles = []
    for line in curve.lines:
        k = counts[line.role]
        counts[line.role] += 1
        marker = MARKERS[k % len(MARKERS)]
        style: dict[str, Any] = {"label": line.label, "linewidth": 1.6, "markersize": 4.2, "markeredgewidth": 0}
        if line.role == "theory":  # beside the line that it predicts, where there is one for each
            style |= {"color": ACCENTS[k % len(ACCENTS)] if paired else INK, "linestyle": DASHES[k % len(DASHES)]}
            style |= {"linewidth": 1.3, "zorder": 3, "marker": marker if line.marks else None}
        elif line.role == "reference":
            style |= {"color": GREY, "linestyle": SOLID[k % len(SOLID)], "linewidth": 1.2, "zorder": 1.5}
            style |= {"marker": marker if line.marks else None, "markersize": 3.4}
        else:
            several = total["measured"] > 1 and not line.marks
            style |= {"color": ACCENTS[k % len(ACCENTS)], "linestyle": "-", "zorder": 2.5}
            style["marker"] = marker if line.marks or several else None
            if several:  # a few markers, not at the same places on every line
                step = max(1, len(line.x) // 6)
                style["markevery"] = (k * step // max(1, total["measured"]), step)
        if len(line.x) == 1:
            style |= {"marker": marker, "linestyle": "none"}
        if _apart(curve, line):
            style |= {"linestyle": "none", "markersize": 6}
        styles.append(style)
    return styles


def _named(label: str, log: bool) -> str:
    return f"{label} (log scale)" if log and "log" not in label.lower() else label


def _scale(curve: Curve, axes: Axes) -> None:
    if curve.x_log:
        axes.set_xscale("log")
    if curve.y_log:
        axes.set_yscale("log")
    axes.margins(x=0.02 if curve.x_ticks is None else 0.06, y=0.06)
    axes.autoscale_view()
    drawn = [_finite(part) for line in curve.lines for part in (line.y, line.low, line.high) if part]
    values = np.concatenate([*drawn, np.empty(0)])
    values = values[np.isfinite(values)]
    if curve.y_log or not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if 0 <= low < 0.5 * high:  # zero is near: show it, so that heights can be compared
        axes.set_ylim(bottom=0 if low > 0.02 * high else -0.02 * high)
    elif low < 0 < high:
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)


def _frame(curve: Curve, axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for axis, log in ((axes.xaxis, curve.x_log), (axes.yaxis, curve.y_log)):
        low, high = axis.get_view_interval()
        decades = math.log10(high / low) if log and low > 0 else 0.0
        if not log:
            # There is no layer 2.5, nor half a pass.
            whole = axis is axes.xaxis and all(float(x).is_integer() for line in curve.lines for x in line.x)
            steps = [1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]
            axis.set_major_locator(MaxNLocator(5, steps=steps, integer=whole))
        elif decades < 2:  # too few powers of ten to read a value from
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        else:
            axis.set_major_locator(LogLocator(numticks=7))
        axis.set_major_formatter(FuncFormatter(tick))
        axis.set_minor_formatter(NullFormatter())
    if curve.x_ticks is None:
        return
    room = max(4, 46 // max(1, len(curve.x_ticks)))  # characters that fit beside each other at the usual size
    names = [textwrap.fill(name, room, break_long_words=False) for name in curve.x_ticks]
    parts = [part for name in names for part in name.split("\n")]
    crowded = max((len(part) for part in parts), default=0) > room or len(parts) > 3 * len(names)
    if crowded:
        axes.set_xticks(range(len(names)), curve.x_ticks, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), names)


def _label(curve: Curve, axes: Axes, colours: list[str]) -> None:
    ends = [_end(line, axes) for line in curve.lines]
    texts = [textwrap.fill(line.label, LABEL_WIDTH) for line in curve.lines]
    size = 0.95 * _font_size(axes)
    height = axes.get_window_extent().height * 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    heights = [LINE_HEIGHT * size * (text.count("\n") + 1) / height for text in texts]
    fits = (
        all(end is not None and end[0] > 0.8 for end in ends)
        and not any(_apart(curve, line) for line in curve.lines)
        and sum(heights) <= 1.0
        and max(text.count("\n") for text in texts) < LABEL_LINES
    )
    if not fits:
        handles, names = axes.get_legend_handles_labels()
        wrapped = [textwrap.fill(name, 58) for name in names]
        columns = 2 if max(len(name) for name in names) <= 26 else 1
        axes.legend(
            handles,
            wrapped,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=_below(axes),
            ncols=columns,
            frameon=False,
            fontsize=size,
            handlelength=2.6,
            borderaxespad=0,
        )
        return
    known = [end for end in ends if end is not None]
    places = _spread([y for _, y in known], heights)
    led = any(abs(at - end[1]) > 0.02 for at, end in zip(places, known, strict=True))
    for text, end, at, colour in zip(texts, known, places, colours, strict=True):
        axes.annotate(
            text,
            xy=end,
            xytext=(1.05 if led else 1.015, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            ha="left",
            color=colour,
            fontsize=size,
            linespacing=1.05,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
            if led
            else None,
        )


def _below(axes: Axes) -> Transform:
    """Return the axes' coordinates moved down, in points, past the names at the ticks and the label of the axis."""
    from matplotlib.transforms import ScaledTranslation

    size = _font_size(axes)
    names = axes.get_xticklabels()
    if any(name.get_rotation() for name in names):
        ticks = size * (1 + 0.3 * max(len(name.get_text()) for name in names))  # half a letter's width times sin 30
    else:
        ticks = LINE_HEIGHT * size * (1 + max((name.get_text().count("\n") for name in names), default=0))
    label = axes.get_xlabel()
    labels = LINE_HEIGHT * size * (1 + label.count("\n")) if label else 0.0
    down = (ticks + labels + 1.2 * size) / 72
    return axes.transAxes + ScaledTranslation(0, -down, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]


def _font_size(axes: Axes) -> float:
    return float(axes.xaxis.get_label().get_fontsize())


def _end(line: Line, axes: Axes) -> tuple[float, float] | None:
    """Return where the last finite point lies, in fractions of the axes; None when outside or missing."""
    x, y = _finite(line.x), _finite(line.y)
    shown = np.isfinite(x) & np.isfinite(y)
    if axes.get_yscale() == "log":
        shown &= y > 0
    if axes.get_xscale() == "log":
        shown &= x > 0
    if not shown.any():
        return None
    last = int(np.flatnonzero(shown)[np.argmax(x[shown])])
    point = axes.transAxes.inverted().transform(axes.transData.transform((x[last], y[last])))
    inside = -0.01 <= point[0] <= 1.01 and -0.01 <= point[1] <= 1.01
    return (float(point[0]), float(point[1])) if inside else None


def _spread(wanted: list[float], heights: list[float]) -> list[float]:
    """Return positions near the wanted ones, in the same order, at which labels of these heights do not overlap."""
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    placed = dict(enumerate(wanted))
    bottom = 0.0
    for k in order:  # upwards: each above the one before
        placed[k] = max(placed[k], bottom + heights[k] / 2)
        bottom = placed[k] + heights[k] / 2
    top = max(1.0, sum(heights))
    for k in reversed(order):  # and back down from the top edge
        placed[k] = min(placed[k], top - heights[k] / 2)
        top = placed[k] - heights[k] / 2
    return [placed[k] for k in range(len(wanted))]
