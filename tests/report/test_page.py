from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from prunescope.concepts import ConceptData
from prunescope.errors import InputError
from prunescope.evidence import curves
from prunescope.report import write_report
from tests.evidence.fake_study import GONE, SCRIPT, UNITS, Row, write_level, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, concepts: ConceptData) -> Path:
    root = write_study(tmp_path_factory.mktemp("page") / "study")
    write_report(root, concepts)
    return root


@pytest.fixture
def page(study: Path) -> str:
    return (study / "report/index.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """The page's tags, ids, and text, as a parser of HTML sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(text: str) -> str:
    """What a reader sees of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def level(page: str, trial: int, number: int, layer: str = "layer4") -> str:
    start = page.index(f'id="trial-{trial}-level-{number}-{layer}"')
    return page[start : page.index("</details>", start)]


def test_the_page_asks_for_nothing_but_its_own_sheets(study: Path, page: str) -> None:
    outline = Outline(page)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    for _, attributes in outline.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,"))
    sheets = re.findall(r"url\('(.*?)'\)", page)
    assert sheets
    assert sorted(sheets) == sorted(f"sheets/{path.name}" for path in (study / "report/sheets").iterdir())


def test_the_policy_allows_the_pages_own_script_and_no_other(page: str) -> None:
    policy = next(meta["content"] for meta in Outline(page).all("meta") if "http-equiv" in meta)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


def test_a_concept_that_looks_like_a_script_is_text(page: str) -> None:
    assert SCRIPT not in page
    assert html.escape(SCRIPT) in level(page, 0, 0)
    assert len(Outline(page).all("script")) == 1


def test_every_id_is_there_once(page: str) -> None:
    ids = Counter(attributes["id"] for _, attributes in Outline(page).tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert targets <= set(ids)


def test_the_headline_compares_the_dense_network_with_the_last_level(page: str) -> None:
    facts = words(page[page.index('class="facts"') : page.index('id="figures"')])
    assert "Top-1 accuracy 89.5 % at 100 % of weights trials 89 to 90 69.5 % at 25 % of weights" in facts
    assert "Interpretable units of 8 2.5 at 100 % of weights trials 0 to 5 0.5 at 25 % of weights" in facts


def test_the_table_has_a_row_for_every_row_of_the_evidence(study: Path, page: str) -> None:
    rows = re.findall(r"<tr[^>]*>(<td>.*?)</tr>", page)
    cells = [[words(cell) for cell in row.split("<td>")[1:]] for row in rows]
    assert len(cells) == len(curves(study))
    assert cells[1] == ["0", "1", "50", "80.0", "99.0", "1.400", "8", "1", "5", "4", "0", "3", "1", "80.0", "75.0"]
    assert cells[3][-2:] == ["–", "–"]


def test_the_figures_stand_in_the_page_with_words_for_what_they_show(page: str) -> None:
    figures = re.findall(r'<figure id="(.*?)">(.*?)</figure>', page, flags=re.DOTALL)
    assert [name for name, _ in figures] == [
        *["figure1-accuracy", "figure2-units", "figure3-categories", "figure4-consistency", "figure5-agreement"],
        *["figure6-fates", "figure7-sensitivity"],
    ]
    for _, figure in figures:
        assert figure.count("<svg") == 1
        assert "currentColor" in figure
    assert "Top-1 accuracy (%) 89.5 at 100 % of weights, 69.5 at 25 % of weights" in figures[0][1]


def test_units_are_listed_best_first_with_what_they_detect(page: str) -> None:
    items = re.findall(r"<li(.*?)</li>", level(page, 0, 1), flags=re.DOTALL)
    found = [words("<li" + item) for item in items]
    assert found[0] == "dog object 0.310 unit 0"
    assert found[1] == "street scene 0.300 unit 7"
    assert found[2] == "cat object 0.200 unit 1 dense: dog"
    assert found[5:] == [
        "red color 0.040 unit 2 dense: red",
        "sky object 0.020 unit 5",
        "never above its threshold dead 0.000 unit 6",
    ]
    assert ["not" in item.split(">")[0] for item in items] == [False] * 5 + [True] * 3


def test_each_level_says_its_numbers_where_it_is_opened(page: str) -> None:
    summary = words(level(page, 0, 1).split("</summary>")[0].split(">", 1)[1])
    assert summary == "Level 1 50 % of weights 5 of 8 interpretable 4 concepts 80.0 % top-1"


def test_the_same_study_gives_the_same_page(study: Path, concepts: ConceptData, page: str) -> None:
    assert write_report(study, concepts).read_text(encoding="utf-8") == page


def test_missing_pieces_are_said(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path)
    (root / "trial-1/level-02/measured.json").unlink()
    (root / "trial-0/level-01/dissection/layer4/examples.safetensors").unlink()
    text = write_report(root, concepts).read_text(encoding="utf-8")
    notice = words(text[text.index("<aside") : text.index("</aside>")])
    assert "Not all levels are finished." in notice
    assert "Trial 1: level 2" in notice
    assert "Example images are missing for trial 0, level 1." in notice
    assert "No example images are stored for this level." in level(text, 0, 1)
    assert "dog" in level(text, 0, 1)
    assert 'id="trial-1-level-2-layer4"' not in text


def test_a_whole_study_has_no_notice(page: str) -> None:
    assert "<aside" not in page


def test_one_trial_with_one_level_makes_a_page(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=1, levels=0)
    assert "Level 0" in words(write_report(root, concepts).read_text(encoding="utf-8"))


def test_several_layers_have_parts_of_their_own(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, layers=["layer3.1", "layer4"])
    text = write_report(root, concepts).read_text(encoding="utf-8")
    assert level(text, 1, 2, "layer3.1")
    assert "Layer layer3.1." in words(text)


def test_of_a_large_layer_the_best_interpretable_units_are_listed(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {}, trials=1, levels=1)
    write_level(root, 0, 0, [("dog", "object", 0.1 + 0.001 * unit) for unit in range(300)], ["layer4"])
    write_level(root, 0, 1, [("dog", "object", 0.1 if unit < 3 else 0.01) for unit in range(300)], ["layer4"])
    text = write_report(root, concepts).read_text(encoding="utf-8")
    first, second = level(text, 0, 0), level(text, 0, 1)
    assert first.count("<li>") == 256
    assert "The best 256 of 300 interpretable units of 300 are listed." in words(first)
    assert words(first[first.index("<li>") :]).startswith("dog object 0.399 unit 299")
    assert second.count("<li") == 3
    assert "The 3 interpretable units of 300 are listed." in words(second)
    assert len(list((root / "report/sheets").iterdir())) == 4 + 1


def test_concepts_of_one_name_are_told_apart(tmp_path: Path, concepts: ConceptData) -> None:
    labels = pd.DataFrame(
        {"name": ["dog", "dog", "red", "red"], "category": ["object", "part", "color", "color"]}, index=[1, 2, 3, 4]
    )
    rows: dict[tuple[int, int], list[Row]] = {
        (0, 0): [("dog", "object", 0.3), ("dog", "part", 0.2), ("red", "color", 0.1)],
        (0, 1): [("dog", "part", 0.3), ("dog", "part", 0.2), ("red", "color", 0.1)],
    }
    root = write_study(tmp_path / "study", rows, trials=1, levels=1)
    for number, numbers in enumerate(([1, 2, 3], [2, 2, 4])):
        path = root / f"trial-0/level-{number:02d}/dissection/layer4/units.parquet"
        pd.read_parquet(path).assign(number=numbers).to_parquet(path, index=False)
    text = write_report(root, dataclasses.replace(concepts, labels=labels)).read_text(encoding="utf-8")
    part = words(level(text, 0, 1))
    assert "dog (part) part 0.300 unit 0 dense: dog (object)" in part
    assert "dog (part) part 0.200 unit 1" in part
    assert "red (color, 4) color 0.100 unit 2 dense: red (color, 3)" in part
    assert part.count("dense: ") == 2
    assert "3 of 3 interpretable 2 concepts" in part


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_levels_of_an_older_version_without_numbers_are_compared_by_category_and_name(
    tmp_path: Path, concepts: ConceptData, before: bool, after: bool
) -> None:
    rows: list[Row] = [("dog", "object", 0.3), ("cat", "object", 0.2)]
    root = write_study(tmp_path / "study", {(0, 0): rows, (0, 1): rows}, trials=1, levels=1)
    for number, has_numbers in enumerate((before, after)):
        path = root / f"trial-0/level-{number:02d}/dissection/layer4/units.parquet"
        if has_numbers:
            pd.read_parquet(path).assign(number=[1, 2]).to_parquet(path, index=False)
    assert "dense: " not in words(level(write_report(root, concepts).read_text(encoding="utf-8"), 0, 1))
    assert curves(root)["same_concept"].tolist() == [1.0, 1.0]


def test_units_that_were_removed_with_their_filters_are_said_to_be_removed(
    tmp_path: Path, concepts: ConceptData
) -> None:
    after = [GONE, ("dog", "object", 0.3), GONE, GONE, ("street", "scene", 0.2), ("sky", "object", 0.01), None, GONE]
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0], (0, 1): after}, trials=1, levels=1)
    text = write_report(root, concepts).read_text(encoding="utf-8")
    part = level(text, 0, 1)
    summary = words(part.split("</summary>")[0].split(">", 1)[1])
    assert summary == "Level 1 50 % of weights 2 of 4 interpretable 4 removed 2 concepts 80.0 % top-1"
    items = [words("<li" + item) for item in re.findall(r"<li(.*?)</li>", part, flags=re.DOTALL)]
    assert items == [
        "dog object 0.300 unit 1",
        "street scene 0.200 unit 4",
        "sky object 0.010 unit 5",
        "never above its threshold dead 0.000 unit 6",
        "its filter was pruned removed unit 0 dense: dog",
        "its filter was pruned removed unit 2 dense: red",
        f"its filter was pruned removed unit 3 dense: {SCRIPT}",
        "its filter was pruned removed unit 7 dense: street",
    ]
    assert SCRIPT not in text
    assert "the filters of removed units were pruned" in words(text)
    assert "removed" not in words(level(text, 0, 0))


def test_of_a_large_layer_removed_units_are_counted_but_not_listed(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {}, trials=1, levels=1)
    write_level(root, 0, 0, [("dog", "object", 0.1)] * 300, ["layer4"])
    write_level(
        root, 0, 1, [("dog", "object", 0.1 if unit < 3 else 0.01) for unit in range(90)] + [GONE] * 210, ["layer4"]
    )
    part = level(write_report(root, concepts).read_text(encoding="utf-8"), 0, 1)
    assert part.count("<li") == 3
    assert "The 3 interpretable units of 90 are listed." in words(part)
    assert "210 removed" in words(part)


@pytest.mark.parametrize(
    ("pruning", "said"),
    [
        (
            {"levels": 2, "fraction": 0.2, "rewind_to": "6ep"},
            "Levels 3, from the dense network to 64 % of the weights Method Prunes weights, those of lowest magnitude, "
            "over all layers together, 20 % of the rest at each level; rewinds to 6ep.",
        ),
        (
            {"remaining": [0.5, 0.25], "scope": "filters", "retraining": "fine-tune", "fine_tune": "10ep"},
            "Levels 3 Method Prunes filters, those of lowest L1 norm, by the same fraction in each group of layers, "
            "down to 50, 25 %; fine-tunes for 10ep at the last learning rate.",
        ),
        (
            {"levels": 2, "fraction": 0.5, "criterion": "random", "scope": "layer", "schedule": "one-shot"}
            | {"retraining": "learning-rate", "rewind_to": "2ep", "exclude": ["<conv1>", "fc"]},
            "Prunes weights, chosen at random, by the same fraction in each layer, 50 % of the rest at each "
            "level, each from the dense network, <conv1>, fc left unpruned; rewinds the "
            "learning rate to 2ep and keeps the weights.",
        ),
        (
            {"levels": 2, "fraction": 0.5, "criterion": "shuffled", "masks": "branch", "retraining": "reinitialise"},
            "Takes the masks of the study it branches from, shuffled within each layer: over all layers together, "
            "50 % of the rest at each level; retrains from new random weights.",
        ),
        (
            {"levels": 2, "fraction": 0.5, "scope": "filters", "masks": "branch", "exclude": ["fc"]},
            "to at most 25 % of the weights Method Takes the masks of the study it branches from: those of lowest L1 "
            "norm, by the same fraction in each group of layers, 50 % of the rest at each level, "
            "fc left unpruned; rewinds to 0it.",
        ),
    ],
)
def test_the_page_says_how_was_pruned_and_retrained(
    tmp_path: Path, concepts: ConceptData, pruning: dict[str, object], said: str
) -> None:
    text = write_report(write_study(tmp_path, trials=1, pruning=pruning), concepts).read_text(encoding="utf-8")
    assert said in words(text)
    assert "<conv1>" not in text


def test_sheets_that_no_level_shows_any_more_are_removed(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=1, levels=0)
    sheets = root / "report/sheets"
    sheets.mkdir(parents=True)
    for name in ("trial-0-level-02-layer4-0.jpg", "notes.txt"):
        (sheets / name).write_text("from before")
    write_report(root, concepts)
    assert sorted(path.name for path in sheets.iterdir()) == ["notes.txt", "trial-0-level-00-layer4-0.jpg"]


def test_examples_from_another_data_set_are_refused(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {})
    write_level(root, 0, 0, UNITS[0, 0], ["layer4"], images=1000)
    with pytest.raises(InputError, match="but the data set of concepts contains 6 images"):
        write_report(root, concepts)
    assert not (root / "report/index.html").exists()


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PROBE = """<!doctype html><title>waiting</title><body><iframe id=f style="border:0;height:900px"></iframe><script>
const page = PAGE, widths = [1280, 390], found = [], frame = document.getElementById("f");
const next = () => {
  frame.style.width = `${widths[0]}px`;
  frame.srcdoc = page;
};
frame.onload = () => {
  const inside = frame.contentDocument, root = inside.documentElement;
  const find = inside.getElementById("find"), only = inside.getElementById("only");
  const level = inside.getElementById("trial-0-level-0-layer4");
  for (const one of inside.querySelectorAll("details")) one.open = true;
  const shown = () => [...level.querySelectorAll("li")].filter((item) => !item.hidden).length;
  setTimeout(() => {
    const result = {width: widths[0], scroll: root.scrollWidth, tools: !inside.getElementById("tools").hidden,
      categories: inside.getElementById("category").options.length, all: shown()};
    find.value = "DOG"; find.dispatchEvent(new Event("input")); result.dogs = shown();
    find.value = ""; only.checked = true; only.dispatchEvent(new Event("input")); result.only = shown();
    const order = inside.getElementById("order");
    order.value = "unit"; order.dispatchEvent(new Event("input"));
    result.units = [...level.querySelectorAll("li")].map((item) => item.querySelector(".u span").textContent);
    result.strip = frame.contentWindow.getComputedStyle(level.querySelector(".strip")).backgroundImage;
    found.push(result);
    widths.shift();
    if (widths.length) next(); else document.body.textContent = "RESULT" + JSON.stringify(found) + "END";
  }, 100);
};
next();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_in_a_browser_the_page_fits_wide_and_narrow_windows_and_filters(study: Path, page: str, tmp_path: Path) -> None:
    probe = study / "report" / "probe.html"
    probe.write_text(PROBE.replace("PAGE", json.dumps(page).replace("</", "<\\/"), 1), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}", "--window-size=1400,1000", "--virtual-time-budget=8000", "--dump-dom"]
    run = subprocess.run(
        [str(CHROMIUM), *flags, probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    probe.unlink()
    found = json.loads(html.unescape(run.stdout.split("RESULT")[1].split("END")[0]))
    assert [result["width"] for result in found] == [1280, 390]
    for result in found:
        assert result["scroll"] <= result["width"]
        assert result["tools"]
        assert result["categories"] == 1 + 3
        assert (result["all"], result["dogs"], result["only"]) == (8, 2, 5)
        assert result["units"] == [str(unit) for unit in range(8)]
        assert result["strip"].endswith('sheets/trial-0-level-00-layer4-0.jpg")')
