"""The page in the system's Chromium, opened from disk."""

import re
import shutil
import time

import pytest
from report.sample import sample

from whydeep.report import write

pytestmark = pytest.mark.browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def wait_for(condition, seconds=10):
    """Wait here rather than in the page: its policy forbids what the driver would evaluate there."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page"), sample()).as_uri()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visit(browser, address):
    """Open the page with the given options; afterwards nothing may have been fetched or complained about."""
    opened, faults = [], []

    def said(message):
        if message.type in ("error", "warning"):
            faults.append(message.text)

    def asked(request):
        if not request.url.startswith(("file:", "data:")):
            faults.append(request.url)

    def visit(width=1280, height=800, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(10_000)
        opened.append(page)
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on(
            "request", lambda asked: faults.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
        )
        page.goto(address)
        return page

    yield visit
    for page in opened:
        page.close()
    assert faults == []


def test_the_four_answers_fit_on_the_first_screen(visit):
    page = visit()
    cards = page.locator(".card")
    assert cards.count() == 4
    assert max(card.bounding_box()["y"] + card.bounding_box()["height"] for card in cards.all()) <= 800
    columns = {round(card.bounding_box()["x"]) for card in cards.all()}
    assert len(columns) == 2


@pytest.mark.parametrize("width", [1280, 390])
def test_the_caption_of_a_card_is_shown_whole(visit, width):
    page = visit(width=width)
    captions = page.locator(".sparkbox > span")
    assert captions.count() >= 1
    for caption in captions.all():
        wide, high = caption.bounding_box()["width"], caption.bounding_box()["height"]
        alone = caption.evaluate("e => [e.scrollWidth, e.scrollHeight]")
        # Boxes have fractions of pixels, what is inside is counted in whole ones.
        assert alone[0] <= wide + 1
        assert alone[1] <= high + 1


def test_details_unfold_and_tables_sort_by_number(visit):
    page = visit()
    article = page.locator("article").filter(has=page.get_by_role("heading", name="Bounds from the capacity"))
    table = article.locator("table", has_text="Capacity bounds")
    assert not table.is_visible()
    article.locator("summary", has_text="Tables").click()
    assert table.is_visible()

    def column(k):
        return table.locator(f"tbody tr td:nth-child({k})").all_inner_texts()

    button = table.get_by_role("button", name="value")
    button.focus()
    page.keyboard.press("Enter")
    # As text, 18,300 would come before 260.
    assert column(2) == ["0.0359", "260", "18,300", "infinite"]
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(2) == ["infinite", "18,300", "260", "0.0359"]
    factor = table.get_by_role("button", name="factor")
    factor.click()
    assert column(4) == ["0.0359", "260", "18,300", "–"]
    factor.click()
    assert column(4) == ["18,300", "260", "0.0359", "–"]  # what is missing stays last
    assert table.locator("th[aria-sort]").count() == 1


def test_a_value_shows_under_the_pointer_and_by_keyboard(visit):
    page = visit()
    plot = page.locator("svg.plot", has_text="largest error").first
    plot.scroll_into_view_if_needed()
    points = plot.locator(".point")
    assert points.count() == 16  # eight measured, eight predicted
    box = points.nth(2).bounding_box()
    tip = page.locator("#tip")
    assert not tip.is_visible()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tip.inner_text() == "measured\n3: 0.003906"  # 4^-4
    page.mouse.move(2, 2)
    assert not tip.is_visible()
    points.nth(0).focus()
    assert tip.inner_text() == "measured\n1: 0.0625"
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() == "measured\n2: 0.01562"
    page.keyboard.press("ArrowDown")
    assert tip.inner_text() == "4⁻⁽ᵐ⁺¹⁾\n2: 0.01562"
    page.keyboard.press("End")
    assert tip.inner_text().endswith("8: 3.815 × 10⁻⁶")  # 4^-9
    assert plot.locator('.point[tabindex="0"]').count() == 1
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_values_with_bands_and_categories_are_named(visit):
    page = visit()
    page.locator("svg.plot", has_text="test error").locator(".point").first.focus()
    assert page.locator("#tip").inner_text() == "networks\none layer: 0.031 (0.027 to 0.035)"


@pytest.mark.parametrize("width", [390, 320, 820])
def test_no_width_scrolls_sideways(visit, width):
    page = visit(width, 844)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    columns = {round(card.bounding_box()["x"]) for card in page.locator(".card").all()}
    assert len(columns) == (1 if width <= 800 else 2)


def test_dark_and_light_follow_the_reader(visit):
    grounds = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = page.locator("svg.plot text").first.evaluate("(text) => getComputedStyle(text).fill")
        assert ink != grounds[-1]
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light == 3 * 255
    assert dark < 120


def test_paper_is_white_with_everything_unfolded(visit):
    page = visit(color_scheme="dark")
    folded = page.locator("details:not([open])").count()
    assert folded > 0
    page.emulate_media(media="print", color_scheme="dark")
    wait_for(lambda: page.locator("details:not([open])").count() == 0)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("table", has_text="Capacity bounds").is_visible()
    page.emulate_media(media="screen")
    wait_for(lambda: page.locator("details:not([open])").count() == folded)


def test_a_card_leads_to_its_section_even_when_that_is_folded(visit):
    page = visit()
    section = page.locator("details#optimization")
    section.locator("> summary").click()
    assert section.get_attribute("open") is None
    page.locator(".card a", has_text="Optimization").click()
    wait_for(lambda: section.get_attribute("open") is not None)
