import copy
import itertools
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from report.sample import HOSTILE, hostile, sample

from whydeep.core import InputError, Record
from whydeep.core.record import plain, read
from whydeep.report import page, write

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text beside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def shown():
    return page(sample().to_json())


@pytest.fixture(scope="module")
def parsed(shown):
    return Page(shown)


def test_every_element_is_closed_and_every_id_is_unique(parsed):
    assert parsed.open == []
    ids = [given["id"] for _, given in parsed.elements if "id" in given]
    assert len(ids) == len(set(ids))
    assert len([name for name in ids if name.startswith("spark-")]) > 0


def test_every_reference_inside_the_page_resolves(parsed, shown):
    ids = {given["id"] for _, given in parsed.elements if "id" in given}
    links = [given["href"] for _, given in parsed.elements if "href" in given]
    links += [f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", shown)]
    links += [f"#{given[key]}" for _, given in parsed.elements for key in given if key == "aria-labelledby"]
    assert {"#representation", "#approximation", "#generalization", "#optimization"} <= set(links)
    assert [link for link in links if not link.startswith("#") or link[1:] not in ids] == []


def test_nothing_is_fetched(parsed, shown):
    assert "http:" not in shown.replace('"http:" + "//www.w3.org/2000/svg"', "")
    assert "https:" not in shown
    for tag, given in parsed.elements:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert given.get("src", "data:").startswith("data:")
    policy = next(given["content"] for tag, given in parsed.elements if tag == "meta" and "http-equiv" in given)
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_every_plot_and_picture_says_what_it_shows(parsed):
    plots = [given for tag, given in parsed.elements if tag == "svg" and given.get("aria-hidden") != "true"]
    assert len(plots) == 10 + 4  # four sparklines
    assert all(given["aria-label"] and given["role"] in ("img", "group") for given in plots)
    pictures = [given for tag, given in parsed.elements if tag == "g" and given.get("role") == "img"]
    assert len(pictures) == 10
    assert all(given["aria-label"] for given in pictures)
    assert all(given["alt"] for tag, given in parsed.elements if tag == "img")


def test_headings_go_down_one_level_at_a_time(parsed):
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in parsed.elements


def test_the_four_answers_stand_before_everything_else(parsed, shown):
    cards = shown[: shown.index('class="colophon"')].replace("\u00a0", " ")
    for question in sample().questions.values():
        assert question.sections[0].answer.sentence.split("'")[0] in cards
        assert question.verdict in cards
    assert "1.7 %" in cards
    assert "0.6 % to 3.6 %, 95 % sure" in cards


def test_a_rule_is_called_a_rule(shown):
    # The verdict stands above; what follows are the words of every verdict that there could have been.
    assert shown.count("<div><dt>Rule</dt>") == sum(len(q.sections) for q in sample().questions.values())
    assert "<div><dt>Verdict</dt>" not in shown


def test_what_was_not_done_is_said_with_its_reason(parsed):
    text = " ".join(parsed.text)
    assert "RuntimeError: the matrix is singular at sweep 3." in text
    assert "The training data of these weights are unknown; declare --heldout." in text


def test_findings_are_said_in_words(parsed):
    text = re.sub(r"\s+", " ", " ".join(parsed.text))
    for words in ("consistent with", "violated", "inconclusive", "not applicable", "vacuous"):
        assert words in text
    assert "grows like a power with exponent −2, within 0.1" in text
    assert "at most 3.59 %" in text
    assert "samples are independent (checked), same distribution (on trust)." in text
    assert "proved" not in text.lower()
    assert "!" not in text
    assert "infinite passes (at least 600)" in text


def test_everything_is_escaped():
    shown = page(hostile().to_json())
    parsed = Page(shown)
    assert shown.count("<script>") == 1
    assert "<script>alert" not in shown
    assert parsed.open == []
    labels = [given["aria-label"] for tag, given in parsed.elements if tag == "g" and given.get("role") == "img"]
    assert labels == [HOSTILE]  # and what was escaped reads as it was given
    assert HOSTILE in "".join(parsed.text)


def test_the_record_is_written_beside_its_page_and_the_same_record_gives_the_same_bytes(tmp_path, shown):
    path = write(tmp_path, sample())
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == shown
    assert read(tmp_path / "report.json") == sample().to_json()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_page_weighs_little(shown):
    assert len(shown.encode()) < 500_000


def test_a_heavy_record_stays_under_two_megabytes():
    content = sample().to_json()
    section = content["questions"]["representation"]["sections"][0]
    noise = np.random.default_rng(0)
    curve = copy.deepcopy(section["exhibits"][0])
    line = curve["lines"][0] | {"x": list(range(20_000)), "y": noise.normal(size=20_000).tolist(), "marks": False}
    curve["lines"] = [line | {"low": None, "high": None, "label": f"line {k}"} for k in range(3)]
    table = {"kind": "table", "title": "t", "columns": ["a"], "rows": [[k / 3] for k in range(20_000)], "note": ""}
    image = copy.deepcopy(section["exhibits"][2])
    raw = noise.integers(0, 256, (200, 64, 64, 3)).astype(np.uint8)
    image["tiles"] = plain(raw)
    section["exhibits"] = [curve] * 4 + [table] + [image] * 3
    content["questions"] = {"representation": content["questions"]["representation"]}
    shown = page(content)
    # Three images of 120 kB as base64, and four plots of 3 x 500 points at 12 bytes: 0.7 MB.
    assert len(shown.encode()) < 1_000_000
    assert "19800 more rows are in report.json." in shown
    assert "The first 144 of 200 are shown." in shown


def test_a_question_without_any_section_says_so():
    content = sample().to_json()
    empty = {"answer": "Not answered: see what was not done.", "verdict": "not answered", "tone": "neutral"}
    content["questions"] = {
        "optimization": empty | {key: [] for key in ("measurements", "findings", "failed", "inapplicable", "sections")}
    }
    content["questions"]["optimization"]["headline"] = None
    shown = page(content)
    assert "Not answered: see what was not done." in shown
    assert "Nothing was left out." in shown


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("questions"),
        lambda content: content.update(version=0),
        lambda content: content["questions"]["optimization"].pop("sections"),
        lambda content: content["questions"]["optimization"]["sections"][0]["exhibits"][0].pop("lines"),
        lambda content: content["questions"]["optimization"]["sections"][0]["exhibits"][0]["lines"][0].update(y=["x"]),
        lambda content: content.update(questions=[1]),
        lambda content: content["questions"].update(luck=content["questions"]["optimization"]),
        lambda content: content["questions"]["optimization"]["headline"].update(value="many"),
        lambda content: content.update(seconds=None),
    ],
)
def test_a_broken_record_is_refused_in_one_sentence(damage, tmp_path):
    content = sample().to_json()
    damage(content)
    with pytest.raises(InputError, match="give") as refused:
        write(tmp_path, content)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_record_is_refused():
    with pytest.raises(InputError, match="version None"):
        page([])  # type: ignore[arg-type]


def test_a_record_without_optional_words_is_shown():
    bare = Record({}, {}, {}, {})
    assert "A network" in page(bare.to_json())


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2: linearised sRGB weighted 0.2126, 0.7152, 0.0722."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_defined():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_colour_of_text_stands_out_from_its_ground(scheme):
    style = files("whydeep.report").joinpath("style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.S)
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    texts = ["ink", "soft", "reference", "link", "good", "caution", "bad", "neutral"]
    texts += [f"series-{k}" for k in range(1, 7)]
    for name in texts:
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    for name in ("ink", "soft"):  # the only ones on code and on raised ground
        assert contrast(colours[name], colours["sunken"]) >= 4.5, name


def test_the_record_fits_its_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(files("whydeep.report").joinpath("schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    for record in (sample(), hostile()):
        assert [fault.message for fault in judge.iter_errors(record.to_json())] == []
    broken = sample().to_json()
    broken["questions"]["optimization"]["sections"][0]["measurements"][0]["value"] = "many"
    assert not judge.is_valid(broken)
