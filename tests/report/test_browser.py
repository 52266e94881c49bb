"""The page in a real browser, opened from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from prunescope.concepts import ConceptData
from prunescope.dissection.masks import stretch
from prunescope.report import write_dissection_report, write_report
from prunescope.report.page.maps import quantised
from tests.evidence.fake_study import GONE, UNITS, Row, write_level, write_study

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")

ATTACK, LONG, ARABIC = "<img src=x onerror=alert(1)>", "x" * 10_000, "قطة"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, concepts: ConceptData) -> Path:
    """Two trials of three levels, with concepts that have awkward names, and one layer of 2,000 units."""
    root = write_study(tmp_path_factory.mktemp("browser") / "study", {}, trials=2, levels=2)
    named: list[Row] = [(ATTACK, "object", 0.5), (LONG, "object", 0.45), (ARABIC, "object", 0.42)]
    many: list[Row] = [("dog", "object", 0.3 - 0.0001 * unit) for unit in range(1997)]
    write_level(root, 0, 0, [*named, *many], ["layer4"])
    write_level(root, 0, 1, [GONE, *named[1:], *[("cat", "object", 0.2), None], *many[2:]], ["layer4"])
    write_level(root, 1, 0, UNITS[0, 0], ["layer4"])
    write_level(root, 1, 1, UNITS[0, 1], ["layer4"])
    write_report(root, concepts)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(study: Path, browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page at an address; nothing may go wrong in it, and nothing may be requested."""
    problems: list[str] = []
    pages = []

    def opened(address: str = "", root: Path = study, **options: Any) -> Any:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto((root / "report/index.html").as_uri() + address)
        page.wait_for_selector("html[data-ready]", timeout=10_000, state="attached")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert problems == []


def units(page: Any) -> list[int]:
    page.wait_for_selector("tr[data-unit]")
    return [int(row.get_attribute("data-unit")) for row in page.query_selector_all("tr[data-unit]")]


def count(page: Any) -> str:
    page.wait_for_selector("tr[data-unit]")
    return str(page.inner_text(".tools output"))


def test_the_first_screen_says_what_was_studied_and_draws_the_figures(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.inner_text("h1") == "tiny"
    assert "IoU above 0.05" in page.inner_text(".facts")
    assert "from 1 to" not in page.inner_text("main")
    names = [figure.get_attribute("id") for figure in page.query_selector_all("figure")]
    assert names == ["figure1-accuracy", "figure2-interpretable", "figure2-concepts"]
    label = page.get_attribute("#figure1-accuracy svg", "aria-label")
    assert label.startswith("Top-1 accuracy (%): 89.5 at level 0, 79.5 at level 1")


def test_the_table_of_a_large_layer_holds_only_the_rows_in_view(visit: Callable[..., Any]) -> None:
    page = visit("#view=units")
    shown = units(page)
    assert shown[:4] == [0, 1, 2, 3]
    assert len(shown) < 40
    assert page.get_attribute("table.list", "aria-rowcount") == "2001"
    page.evaluate("document.querySelector('.units').scrollTop = 1e9")
    page.wait_for_selector("tr[data-unit='1999']")
    assert len(units(page)) < 40


def test_filters_search_and_sorting_take_a_tenth_of_a_second_and_are_in_the_address(
    visit: Callable[..., Any],
) -> None:
    page = visit("#view=units&level=1")
    assert count(page) == "2000 of 2000 units"
    page.fill("#find", "CAT")
    assert count(page) == "1 of 2000 units"
    assert "find=CAT" in page.url
    page.fill("#find", ATTACK[1:8])  # a unit that was removed is found by what it used to detect
    assert units(page) == [0]
    page.fill("#find", "")
    page.select_option("#filter-show", "dead")
    page.wait_for_selector(".tools output:text-is('1 of 2000 units')")
    assert units(page) == [4]
    page.select_option("#filter-show", "")
    page.click("th button:has-text('Unit')")
    page.wait_for_selector("th[aria-sort='ascending']")
    assert units(page)[:3] == [0, 1, 2]


def test_the_slider_moves_every_view_and_back_returns_to_the_one_before(visit: Callable[..., Any]) -> None:
    page = visit()
    page.focus("#level")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#now") == "At level 1"
    assert page.evaluate("document.activeElement.id") == "level"
    page.click("nav >> text=Units")
    assert page.inner_text("h2") == "Units of layer4 at level 1"
    page.go_back()
    page.wait_for_selector("#now")
    assert page.inner_text("#now") == "At level 1"


def test_a_link_names_a_unit_at_a_level(visit: Callable[..., Any]) -> None:
    page = visit("#unit=3&level=1")
    page.wait_for_selector(".story")
    assert page.inner_text("h2") == "The journey of unit 3"
    assert page.inner_text(".story") == "dog (level 0) → cat (level 1)"
    assert page.inner_text("#where") == "Level 1: 50 % of weights"
    page.wait_for_selector(".strip canvas[data-image]")


def test_a_unit_that_was_removed_has_a_journey_and_two_trials_stand_side_by_side(visit: Callable[..., Any]) -> None:
    page = visit("#unit=0&trial2=1")
    page.wait_for_selector(".journey + .journey .story")
    first, second = (story.inner_text() for story in page.query_selector_all(".story"))
    assert first == f"{ATTACK} (level 0) → removed (level 1)"
    assert second == "dog (level 0 to 1)"
    page.set_viewport_size({"width": 240, "height": 800})
    scroll = """() => new Promise((done) => {
        const [one, two] = document.querySelectorAll(".levels");
        two.addEventListener("scroll", () => done(two.scrollLeft));
        one.scrollLeft = 40;
    })"""
    assert page.evaluate(scroll) == 40


def test_a_concepts_journey_shows_who_detects_it(visit: Callable[..., Any]) -> None:
    page = visit("#view=concept&trial=1&concept=dog")
    page.wait_for_selector("#detectors")
    assert [row.inner_text() for row in page.query_selector_all(".strip tbody th")] == ["units", "unit 0", "unit 1"]
    page.goto(page.url.replace("dog", "nonsense"))
    page.wait_for_selector("text=has no concept called nonsense")


@pytest.mark.parametrize("name", [ATTACK, LONG, ARABIC])
def test_names_of_concepts_are_text_and_break_nothing(visit: Callable[..., Any], name: str) -> None:
    page = visit()
    page.evaluate("name => { location.hash = new URLSearchParams({view: 'concept', concept: name}) }", name)
    page.wait_for_selector("#detectors")
    assert name[:70] in page.inner_text("#detectors")
    assert page.query_selector("main img") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("view", ["overview", "figures", "units", "unit", "concept", "numbers"])
def test_every_view_is_accessible_light_and_dark_and_fits_a_narrow_window(visit: Callable[..., Any], view: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(f"#view={view}&trial=1&unit=1&concept=dog", color_scheme="light")
    page.wait_for_selector("h2")
    everything, colors = (["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"], ["color-contrast"])
    found = axe.run(page, options={"runOnly": everything}).response["violations"]
    page.emulate_media(color_scheme="dark")
    found += axe.run(page, options={"runOnly": colors}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_browsers_masks_are_those_of_dissection(visit: Callable[..., Any]) -> None:
    maps = np.random.default_rng(0).gamma(1.0, 1.0, (6, 4, 7, 7)).astype(np.float32)
    thresholds = np.full(6, 1.5)
    stored, cut = quantised(maps, thresholds)
    page = visit()
    script = """([bytes, cuts]) => cuts.map((cut, place) =>
        Array.from(window.prunescope.maskOf(bytes, 49 * place, [7, 7], [112, 112], cut)).join(""))"""
    found = page.evaluate(script, [stored.ravel().tolist(), cut.ravel().tolist()])
    masks = np.array([[int(pixel) for pixel in mask] for mask in found]).reshape(6, 4, 112, 112)
    expected = stretch(maps, (112, 112)) > 1.5
    assert (masks != expected).mean() <= 0.001


def test_the_units_and_a_strip_can_be_saved(visit: Callable[..., Any]) -> None:
    page = visit("#view=units&trial=1")
    assert count(page) == "8 of 8 units"
    with page.expect_download() as found:
        page.click("text=Save as CSV")
    text = Path(found.value.path()).read_text(encoding="utf-8")
    assert text.splitlines()[0].startswith("unit,label,category,iou")
    assert len(text.splitlines()) == 9
    page.goto(page.url.split("#")[0] + "#unit=0&trial=1")
    page.wait_for_selector(".strip canvas[data-image]")
    with page.expect_download() as found:
        page.click("text=Save as PNG")
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as found:
        page.click("text=Save as SVG")
    assert "<svg" in Path(found.value.path()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, concepts: ConceptData) -> Path:
    """Two checkpoints at numbers of bits per weight, with masks, of three that the recipe names."""
    root = write_study(tmp_path_factory.mktemp("browser") / "series", {(0, n): UNITS[0, n] for n in range(2)}, trials=1)
    recipe = yaml.safe_load((root / "study.yaml").read_text())
    checkpoints = [{"weights": f"{bits}.pt", "at": bits} for bits in ("32", "8", "4")]
    recipe |= {"trials": [checkpoints], "axis": "Bits per weight"}
    (root / "study.yaml").write_text(yaml.safe_dump(recipe))
    for level, bits in enumerate(("32", "8")):
        path = root / f"trial-0/level-{level:02d}/measured.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"at": bits}))
    write_report(root, concepts)
    return root


def test_an_unfinished_series_shows_its_axis_its_facts_and_what_is_missing(
    visit: Callable[..., Any], series: Path
) -> None:
    page = visit("#level=1", root=series)
    assert page.inner_text("#kind") == "Series of checkpoints"
    assert page.inner_text("#where") == "Level 1: 8 (Bits per weight)"
    assert "Bits per weight" in page.text_content("#figure2-interpretable svg")
    assert "nothing was trained" in page.inner_text(".facts")
    assert "Missing: trial 0, level 2." in page.inner_text(".notice")
    page.goto(page.url.split("#")[0] + "#unit=1")
    page.wait_for_selector(".strip")
    assert page.inner_text(".strip tbody tr").split() == ["Bits", "per", "weight", "32", "8"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network, two units of which have the last of 5,000 concepts; it has no images, and it is called `many`."""
    root = tmp_path_factory.mktemp("browser") / "many"
    rows: list[Row] = [(f"concept {number}", "object", 0.06 + 1e-5 * number) for number in range(5000)]
    study = write_study(root / "study", {(0, 0): [*rows, rows[-1]]}, trials=1, levels=0)
    found = study / "trial-0/level-00/dissection/layer4"
    settings = {"settings": {"iou": 0.05, "quantile": 0.005, "images": 100, "sample": {"of": 300}, "concepts": "gone"}}
    counts = {"units": 5001, "interpretable": 5001, "concepts": 5000, "dead": 0, "by_category": {"object": 5000}}
    (found / "summary.json").write_text(json.dumps(counts | settings))
    write_dissection_report(found)
    return found


def test_a_dissection_with_5000_concepts_is_searched_and_does_not_speak_of_levels(
    visit: Callable[..., Any], many: Path
) -> None:
    page = visit(root=many)
    assert "a sample of 100 of 300 labelled images" in page.inner_text(".facts")
    assert "the page shows no images" in page.inner_text(".notice")
    assert [one.inner_text() for one in page.query_selector_all("nav a")] == [
        "Overview", "Units", "A unit", "A concept", "All numbers"
    ]  # fmt: skip
    page.click("nav >> text=Units")
    page.fill("#find", "concept 4999")
    assert count(page) == "2 of 5001 units"
    page.click("nav >> text=A concept")
    page.wait_for_selector(".bars")
    page.fill("#concept", "concept 4999")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detectors")
    assert [row.inner_text() for row in page.query_selector_all(".strip tbody th a")] == ["unit 4999", "unit 5000"]
    assert "evel 0" not in page.inner_text("main")


def test_of_many_trials_the_chosen_one_stands_out(
    visit: Callable[..., Any], tmp_path: Path, concepts: ConceptData
) -> None:
    rows: list[Row] = [("dog", "object", 0.3)]
    root = write_study(tmp_path, {(trial, level): rows for trial in range(7) for level in range(2)}, trials=7, levels=1)
    write_report(root, concepts)
    page = visit("#trial=5", root=root)
    page.wait_for_selector("#figure2-interpretable .values")
    assert page.inner_text("#figure2-interpretable .values").startswith("Trial 5: 1")
    assert "grey: 6 other trials (mean of all 1)" in page.inner_text("#figure2-interpretable .values")


def test_everything_can_be_reached_with_the_keyboard(visit: Callable[..., Any]) -> None:
    page = visit("#view=units&trial=1&level=0")
    units(page)
    page.keyboard.press("Tab")
    assert page.inner_text(":focus") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert "view=units" in page.url
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('tr[data-unit] a')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".strip")
    page.fill("#unit", "1")
    page.press("#unit", "Enter")
    page.wait_for_selector("h2 >> text=unit 1")
    page.focus(".strip canvas")
    page.keyboard.press("Enter")
    assert "image 1" in page.inner_text("dialog:modal p")
    assert page.inner_text(":focus") == "Next image"
    page.keyboard.press("Enter")
    assert "image 2" in page.inner_text("dialog:modal p")
    page.keyboard.press("Escape")
    assert page.query_selector("dialog:modal") is None
    assert page.evaluate("document.activeElement.matches('.strip canvas')")


def test_terms_are_explained_on_focus(visit: Callable[..., Any]) -> None:
    page = visit()
    page.focus(".facts .term >> text=rewinds")
    assert "Setting the kept weights back" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")


def test_a_link_restores_filters_and_sorting_and_one_that_names_nothing_opens(visit: Callable[..., Any]) -> None:
    page = visit("#view=units&trial=1&level=1&show=dead&sort=unit&down=0&truth=1")
    assert count(page) == "1 of 8 units"
    assert units(page) == [6]
    assert page.is_checked("#truth")
    assert page.input_value("#filter-show") == "dead"
    assert page.input_value("#trial") == "1"
    page.goto(page.url.split("#")[0] + "#view=nothing&trial=77&level=-3&layer=9")
    page.wait_for_selector(".facts")


@pytest.mark.parametrize("view", ["overview", "units", "unit&unit=0"])
def test_a_printed_page_is_light_and_has_no_controls_and_no_gaps(visit: Callable[..., Any], view: str) -> None:
    page = visit(f"#view={view}", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert not any(one.is_visible() for one in page.query_selector_all("button:not(th button), .bar-top, .tools, .gap"))
    assert page.evaluate("document.body.scrollHeight") < 6000
    assert page.inner_text("h1") == "tiny"


def test_a_study_with_one_level_and_one_that_lacks_data_open(
    visit: Callable[..., Any], tmp_path: Path, concepts: ConceptData
) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=1, levels=1)
    write_report(root, concepts)
    page = visit("#view=figures", root=root)
    assert page.is_hidden("#levels")
    assert page.query_selector("text=Detected concepts by category")
    assert page.query_selector("text=Figure 2") is None
