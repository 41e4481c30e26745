"""Curves of a record as SVG, and images as PNG, both to stand inside a page."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from whydeep.core import drawing
from whydeep.core.exhibit import Curve, Line
from whydeep.core.numbers import number, plain
from whydeep.core.record import array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 400, 255  # units of the SVG; one is 1.3 pixels at full width, 0.9 on a phone
SPARK_WIDTH, SPARK_HEIGHT = 200, 64
MOST_DRAWN = 500  # points of a line
MOST_READ = 60  # points of a line whose values can be read off
HEAVIEST_IMAGE = 120_000  # bytes of PNG: fifteen of them stay within the 2 MB of a page
MOST_TILES = 144

VARIABLES = {colour: f"var(--series-{k})" for k, colour in enumerate(drawing.ACCENTS, 1)} | {
    drawing.INK: "var(--ink)",
    drawing.GREY: "var(--reference)",
    drawing.FAINT: "var(--rule)",
}

SETTINGS: Any = {  # matplotlib types the keys one by one
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be read aloud and searched
    "svg.hashsalt": "whydeep",  # ids do not change from one run to the next
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; as wide as any: what fits here fits in the page's font
    "font.size": 10.8,
    "axes.labelsize": 10.8,
    "xtick.labelsize": 10.3,
    "ytick.labelsize": 10.3,
    "axes.labelcolor": drawing.INK,
    "text.color": drawing.INK,
    "axes.edgecolor": drawing.GREY,
    "xtick.color": drawing.GREY,
    "ytick.color": drawing.GREY,
    "axes.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI with its size in CSS pixels; note: what was left out, if anything."""

    uri: str
    width: int
    height: int
    note: str = ""


def curve_of(content: Mapping[str, Any]) -> Curve:
    """Return the `Curve` that `Record.to_json` wrote; raises `KeyError` or `ValueError` when it is none."""
    lines = tuple(
        Line(
            label=str(line["label"]),
            x=_numbers(line["x"]),
            y=_numbers(line["y"]),
            low=None if line["low"] is None else _numbers(line["low"]),
            high=None if line["high"] is None else _numbers(line["high"]),
            role=line["role"],
            marks=bool(line["marks"]),
        )
        for line in content["lines"]
    )
    ticks = content["x_ticks"]
    return Curve(
        title=str(content["title"]),
        x_label=str(content["x_label"]),
        y_label=str(content["y_label"]),
        lines=lines,
        alt=str(content["alt"]),
        x_log=bool(content["x_log"]),
        y_log=bool(content["y_log"]),
        x_ticks=None if ticks is None else tuple(str(name) for name in ticks),
    )


def thin(line: Line, most: int) -> Line:
    """Return `line` with at most `most` points (or 4, if that is more), the extremes of every stretch among them.

    The points are cut into stretches of equal count; of each the smallest and the largest y are kept, and the ends.
    """
    count = len(line.x)
    if count <= max(most, 4):
        return line
    y = np.asarray(line.y, dtype=float)
    kept = {0, count - 1}
    for stretch in np.array_split(np.arange(1, count - 1), max(1, (most - 2) // 2)):
        finite = stretch[np.isfinite(y[stretch])]
        if len(finite) == len(stretch):
            kept |= {int(finite[np.argmin(y[finite])]), int(finite[np.argmax(y[finite])])}
        else:  # a gap stays a gap
            kept |= {int(stretch[~np.isfinite(y[stretch])][0]), *map(int, finite[:1])}
    chosen = sorted(kept)

    def pick(values: Any) -> Any:
        return None if values is None else [values[k] for k in chosen]

    return replace(line, x=pick(line.x), y=pick(line.y), low=pick(line.low), high=pick(line.high))


def plot(curve: Curve, key: str) -> str:
    """Return the plot as an SVG element whose ids begin with `key`, with the values that the reader can point at."""
    thinned = replace(curve, lines=tuple(thin(line, MOST_DRAWN) for line in curve.lines))
    with _settings():
        figure, axes = _figure(WIDTH, HEIGHT)
        drawing.draw(thinned, axes)
        colours = [VARIABLES[str(line.get_color())] for line in axes.get_lines()]
        root = _svg(figure, key)
        values = _values(thinned, axes)
    picture = ET.Element("g", {"role": "img", "aria-label": curve.alt})
    picture.extend(list(root))
    root[:] = [picture]
    root.set("role", "group")
    root.set("aria-label", curve.title)
    root.set("class", "plot")
    for line, colour, points in zip(curve.lines, colours, values, strict=False):
        if points:
            read = json.dumps(points, ensure_ascii=False, separators=(",", ":"))
            given = {"class": "points", "style": f"color:{colour}", "data-label": line.label, "data-points": read}
            ET.SubElement(root, "g", given)
    return ET.tostring(root, encoding="unicode")


def sparkline(curve: Curve, key: str) -> str:
    """Return the lines of `curve` alone, small: a hint of the shape, hidden from screen readers."""
    thinned = replace(curve, lines=tuple(thin(line, 100) for line in curve.lines))
    with _settings():
        figure, axes = _figure(SPARK_WIDTH, SPARK_HEIGHT)
        drawing.trace(thinned, axes)
        if curve.x_log:
            axes.set_xscale("log")
        if curve.y_log:
            axes.set_yscale("log")
        axes.margins(x=0.03, y=0.08)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.minorticks_off()
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(drawing.FAINT)
        root = _svg(figure, key)
    root.set("class", "spark")
    root.set("role", "img")
    root.set("aria-label", curve.alt)
    return ET.tostring(root, encoding="unicode")


def image(tiles: np.ndarray[Any, np.dtype[np.uint8]], *, width: int = 480) -> Picture:
    """Return tiles (n, h, w) or (n, h, w, 3) as one sheet, row after row, with clear gaps between them.

    width: CSS pixels that the sheet may take. Small tiles are enlarged by a whole factor. A sheet that would be heavy
    is made coarser, and more than `MOST_TILES` tiles are left out; `note` says so.
    """
    from PIL import Image as Pillow

    total, (height, breadth) = len(tiles), tiles.shape[1:3]
    if total == 0 or height == 0 or breadth == 0:
        raise ValueError(f"tiles of shape {tiles.shape} hold no picture")
    tiles = tiles[:MOST_TILES]
    notes = [] if total == len(tiles) else [f"The first {len(tiles)} of {total} are shown."]
    # As wide as four to three, but no wider than the page at one pixel a pixel.
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * 2.2 * height / breadth))))
    columns = max(1, min(columns, width // (min(breadth, width) + 1)))
    coarse = 1
    while True:
        sheet = _sheet(tiles[:, ::coarse, ::coarse], columns)
        buffer = io.BytesIO()
        Pillow.fromarray(sheet).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= HEAVIEST_IMAGE or min(tiles.shape[1:3]) // (2 * coarse) < 4:
            break
        coarse *= 2
    if coarse > 1:
        notes.append(f"Every {coarse}th pixel is shown.")
    shape = (sheet.shape[1] * coarse, sheet.shape[0] * coarse)
    factor = max(1, min(6, width // shape[0])) if shape[0] <= width else width / shape[0]
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri, round(shape[0] * factor), round(shape[1] * factor), " ".join(notes))


def tiles_of(content: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the tiles of an image of the record."""
    return array(content["tiles"])


def _sheet(tiles: np.ndarray[Any, Any], columns: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lay tiles on a grid with gaps of one pixel whose alpha is 0."""
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    channels = tiles.shape[3] if tiles.ndim == 4 else 1
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, channels + 1), dtype=np.uint8)
    for k, tile in enumerate(tiles):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[top : top + height, left : left + width, :channels] = tile.reshape(height, width, channels)
        sheet[top : top + height, left : left + width, channels] = 255
    return sheet


def _numbers(values: Any) -> list[float]:
    return [number(value) for value in values]


def _settings() -> Any:
    import matplotlib

    return matplotlib.rc_context(SETTINGS)


def _figure(width: int, height: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # 72 dots an inch: a dot is a unit of the SVG, so that positions on the figure are positions in the SVG.
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    return figure, figure.subplots()


def _values(curve: Curve, axes: Axes) -> list[list[list[float | str]]]:
    """Return for every line its points [x, y in units of the SVG, text of x, text of y] inside the axes."""
    found = []
    for line, shift in zip(curve.lines, drawing.shifts(curve), strict=True):
        few = thin(line, MOST_READ)
        points: list[list[float | str]] = []
        for k, (x, y) in enumerate(zip(few.x, few.y, strict=True)):
            drawable = math.isfinite(x) and math.isfinite(y)
            if not drawable or (curve.x_log and x <= 0) or (curve.y_log and y <= 0):
                continue
            left, up = axes.transData.transform((x + shift, y))
            value = plain(y)
            if few.low is not None and few.high is not None and math.isfinite(few.low[k]) and few.low[k] < few.high[k]:
                value += f" ({plain(few.low[k])} to {plain(few.high[k])})"
            named = curve.x_ticks is not None and x == int(x) and 0 <= x < len(curve.x_ticks)
            where = curve.x_ticks[int(x)] if named and curve.x_ticks is not None else plain(x)
            points.append([round(left, 1), round(HEIGHT - up, 1), where, value])
        found.append(points)
    return found


def _svg(figure: Figure, key: str) -> ET.Element:
    """Return the figure as an SVG element without namespaces, fixed colours, fonts, metadata and idle ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", buffer.getvalue()))
    _clean(root, key, used)
    box = root.get("viewBox", f"0 0 {WIDTH} {HEIGHT}")
    root.attrib.clear()
    root.set("viewBox", box)
    return root


def _clean(element: ET.Element, key: str, used: set[str]) -> None:
    element.tag = _local(element.tag)
    for child in list(element):
        if _local(child.tag) in ("metadata", "style", "title"):
            element.remove(child)
        else:
            _clean(child, key, used)
            if child.tag in ("g", "defs") and len(child) == 0:
                element.remove(child)
    element.tail = None
    if element.tag not in ("text", "tspan"):
        element.text = None
    for name in list(element.attrib):
        value = element.attrib.pop(name)
        local = _local(name)
        if local == "id":
            if value in used:
                element.set("id", f"{key}-{value}")
        elif local == "style":
            _style(element, value)
        elif local == "href":
            element.set("href", value.replace("#", f"#{key}-"))
        elif local == "clip-path":
            element.set("clip-path", value.replace("#", f"#{key}-"))
        elif local in ("d", "x", "y", "transform", "width", "height"):
            element.set(local, _rounded(value))
        else:
            element.set(local, value)


def _style(element: ET.Element, style: str) -> None:
    kept = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # keep the size only
            size = re.search(r"([\d.]+)px", value)
            if size:
                kept.append(f"font-size:{float(size[1]):g}px")
        elif name not in ("font-family", "stroke-linejoin", "stroke-miterlimit"):
            kept.append(f"{name}:{VARIABLES.get(value.lower(), value)}")
    if element.tag == "text" and not any(part.startswith("fill:") for part in kept):
        kept.append("fill:var(--ink)")
    if kept:
        element.set("style", ";".join(kept))


def _rounded(text: str) -> str:
    """Round the decimals of coordinates to hundredths of a unit: less than a pixel shows."""
    text = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda found: f"{round(float(found[0]), 2):g}", text)
    return re.sub(r"\s+", " ", text).strip()


def _local(name: str) -> str:
    return name.rpartition("}")[2]
