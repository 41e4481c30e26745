import base64
import io
import json
import math
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image as Pillow

from whydeep.core import Curve, Line
from whydeep.core.record import plain
from whydeep.report import figures


def curve(*lines, **changes):
    return Curve(**{"title": "t", "x_label": "x", "y_label": "y", "alt": "what it shows", "lines": lines} | changes)


def points(svg):
    return [json.loads(group.get("data-points")) for group in ET.fromstring(svg).iter("g") if group.get("data-points")]


def test_a_curve_survives_the_record():
    given = curve(Line("a", [1, 2, 3], [1.0, math.inf, math.nan], role="theory"), y_log=True, x_ticks=("p", "q"))
    back = figures.curve_of(json.loads(json.dumps(plain(given))))
    assert back.lines[0].y[:2] == (1.0, math.inf)
    assert math.isnan(back.lines[0].y[2])
    assert (back.x_ticks, back.y_log, back.lines[0].role) == (("p", "q"), True, "theory")


def test_points_lie_on_the_drawn_line_and_carry_its_values():
    # The path of a straight line from (0, 1) to (1, 2) has the two points as its ends.
    svg = figures.plot(curve(Line("a", [0.0, 1.0], [1.0, 2.0])), "k")
    ((first, last),) = points(svg)
    assert first[2:] == ["0", "1"]
    assert last[2:] == ["1", "2"]
    paths = [path.get("d") for path in ET.fromstring(svg).iter("path") if "var(--series-1)" in path.get("style", "")]
    numbers = [float(word) for word in paths[0].replace("M", "").replace("L", "").split()]
    assert numbers == pytest.approx([*first[:2], *last[:2]], abs=0.1)


def test_colours_follow_the_page_and_two_plots_share_no_id():
    lines = (Line("a", [0, 1], [1, 2]), Line("b", [0, 1], [0, 1], role="theory"))
    one, other = figures.plot(curve(*lines), "one"), figures.plot(curve(*lines), "other")
    for svg in (one, other):
        assert "var(--series-1)" in svg
        assert "#0b61a4" not in svg
        assert "DejaVu" not in svg
    ids = [{element.get("id") for element in ET.fromstring(svg).iter()} - {None} for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert figures.plot(curve(*lines), "one") == one


def test_the_settings_of_matplotlib_are_left_alone():
    before = dict(matplotlib.rcParams)
    figures.plot(curve(Line("a", [0, 1], [1, 2])), "k")
    assert dict(matplotlib.rcParams) == before


def test_what_a_log_axis_cannot_show_cannot_be_pointed_at():
    svg = figures.plot(curve(Line("a", [1, 2, 3, 4], [0.0, 1.0, math.nan, 10.0]), y_log=True), "k")
    assert [point[3] for point in points(svg)[0]] == ["1", "10"]


def test_mathematics_in_a_label_is_text():
    assert "$x_{" in figures.plot(curve(Line("a", [0, 1], [1, 2]), y_label="$x_{ unfinished"), "k")


def test_thinning_keeps_the_ends_the_peak_and_the_gaps():
    y = np.zeros(10_000)
    y[1234], y[7000], y[5000] = 9.0, -9.0, math.nan
    thin = figures.thin(Line("a", range(10_000), y, y, y), 60)
    assert len(thin.x) <= 60
    assert (thin.x[0], thin.x[-1]) == (0, 9999)
    assert {9.0, -9.0} <= set(thin.y)
    assert any(math.isnan(value) for value in thin.y)
    assert len(thin.low) == len(thin.high) == len(thin.x)
    short = Line("a", [0, 1], [0, 1])
    assert figures.thin(short, 60) is short


def decoded(picture):
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))))


def test_a_sheet_holds_every_tile_with_clear_gaps():
    tiles = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    sheet = decoded(figures.image(tiles))
    clear = sheet[..., 1] == 0
    assert clear.any()
    assert sorted(sheet[~clear][:, 0].tolist()) == list(range(24))
    assert sheet[:2, :3, 0].tolist() == tiles[0].tolist()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8, 3), (3, 300, 700), (2, 600, 4, 3)])
def test_a_sheet_fits_the_width(shape):
    picture = figures.image(np.zeros(shape, np.uint8), width=480)
    assert picture.width <= 480
    ratio = picture.width / picture.height
    height, width = decoded(picture).shape[:2]
    assert ratio == pytest.approx(width / height, rel=0.02)  # rounded to whole pixels


def test_a_heavy_sheet_is_made_coarser_and_says_so():
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 128, 3)).astype(np.uint8)
    picture = figures.image(noise)
    assert len(picture.uri) < figures.HEAVIEST_IMAGE * 4 / 3 + 100
    assert "th pixel is shown." in picture.note


def test_no_tiles_are_refused():
    with pytest.raises(ValueError, match="no picture"):
        figures.image(np.zeros((0, 2, 2), np.uint8))
