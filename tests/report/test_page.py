from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import prunescope
from prunescope.concepts import ConceptData
from prunescope.dissection.masks import stretch
from prunescope.errors import InputError
from prunescope.evidence import curves
from prunescope.evidence.fates import FATES
from prunescope.report import write_dissection_report, write_report
from prunescope.report.page.comparison import side_by_side
from prunescope.report.page.maps import quantised
from prunescope.report.page.pictures import choose_pictures, run_lengths
from prunescope.report.page.units import DEAD, INTERPRETABLE, PRESENT
from prunescope.report.page.write import clearest
from tests.evidence.fake_study import GONE, SCRIPT, UNITS, Row, write_level, write_study
from tests.report.page_data import of_units, read_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, concepts: ConceptData) -> Path:
    root = write_study(tmp_path_factory.mktemp("page") / "study")
    write_report(root, concepts)
    return root


@pytest.fixture
def page(study: Path) -> str:
    return (study / "report/index.html").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_but_its_own_data(page: str) -> None:
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    assert re.findall(r"(?:src|href): [`\"](.*?)[`\"]", page) == ["data/${name}.js"]
    for target in re.findall(r'(?:src|href)="(.*?)"', page):
        assert target.startswith(("#", "data:,"))


def test_the_policy_allows_the_pages_own_script_style_and_data_and_nothing_else(page: str) -> None:
    policy = re.findall(r'Content-Security-Policy" content="(.*?)"', page)[0]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("title", [SCRIPT, "{{SCRIPT}}", 'a"b&c'])
def test_a_title_is_text_whatever_it_looks_like(tmp_path: Path, concepts: ConceptData, title: str) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=1, levels=0)
    recipe = (root / "study.yaml").read_text().replace("name: tiny", f"name: '{title}'")
    (root / "study.yaml").write_text(recipe)
    text = write_report(root, concepts).read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert f'<h1 id="title">{html.escape(title)}</h1>' in text
    assert read_data(root, "study")["title"] == title


def test_the_page_has_the_numbers_of_the_evidence(study: Path) -> None:
    found = pd.DataFrame(read_data(study, "study")["curves"])
    table = curves(study)
    pd.testing.assert_frame_equal(found[list(table.columns)], table, check_dtype=False, rtol=1e-6)


def test_every_unit_of_every_level_is_on_the_page(study: Path) -> None:
    names = read_data(study, "study")["names"]
    units = of_units(study)
    for row, level in enumerate(units["levels"]):
        for place, expected in enumerate(UNITS[0, level]):
            flags = units["flags"][row, place]
            assert flags & PRESENT
            assert bool(flags & DEAD) == (expected is None)
            if expected is not None:
                assert names[units["concept"][row, place]] == expected[0]
                assert units["iou"][row, place] == np.float32(expected[2])
                assert bool(flags & INTERPRETABLE) == (expected[2] > 0.05)
    assert [FATES[fate] for fate in units["fate"][1]] == [
        *["kept", "changed", "lost", "kept", "gained", "never", "dead", "kept"]
    ]


def test_the_masks_of_the_page_are_those_of_dissection() -> None:
    random = np.random.default_rng(0)
    # Maps as networks make them: smooth, and mostly below the threshold.
    maps = np.maximum(random.normal(0, 1, (50, 4, 7, 7)) + 2 * stretch(random.normal(0, 1, (50, 4, 3, 3)), (7, 7)), 0)
    maps = maps.astype(np.float32)
    thresholds = np.quantile(maps, 0.8, axis=(1, 2, 3))
    stored, cut = quantised(maps, thresholds)
    expected = stretch(maps, (112, 112)) > thresholds[:, None, None, None]
    found = stretch(stored.astype(np.float32), (112, 112)) > cut[..., None, None]
    assert expected.mean() > 0.1
    assert (expected != found).mean() <= 0.001


def test_a_map_that_is_the_same_everywhere_has_an_empty_mask() -> None:
    stored, cut = quantised(np.full((1, 4, 2, 2), 0.7, np.float32), np.array([np.float32(0.7)], np.float64))
    assert not (stored > cut[..., None, None]).any()


def test_example_images_are_stored_once_and_found_again(study: Path) -> None:
    known = read_data(study, "study")["pictures"]
    assert sorted(set(known["images"])) == sorted(known["images"])
    sheet = Image.open(io.BytesIO(base64.b64decode(read_data(study, "sheet-0")["image"])))
    assert sheet.size == (len(known["images"]) * 16, 12)
    for tile, image in enumerate(known["images"]):
        assert abs(sheet.getpixel((16 * tile + 8, 6))[0] - (100 + 20 * image)) <= 3
    stored = load_file(study / "trial-0/level-01/dissection/layer4/examples.safetensors")
    tiles = read_data(study, "maps-0-0-1")["tiles"].reshape(-1, 4)
    shown = np.where(tiles < 0, -1, known["images"][tiles])
    np.testing.assert_array_equal(shown, stored["images"])


def test_labelled_pixels_are_stored_for_the_concepts_that_units_detect(study: Path) -> None:
    known, truth = read_data(study, "study"), read_data(study, "sheet-0")["truth"]
    assert {known["names"][concept] for concept in truth["concepts"]} == {"dog"}
    height, width = truth["size"]
    for end, start in zip(truth["ends"], [0, *truth["ends"][:-1]], strict=True):
        assert truth["runs"][start:end].tolist() == [0, height * width]  # a dog fills every image


@pytest.mark.parametrize("mask", [[[0, 1], [1, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]])
def test_run_lengths_cover_the_mask(mask: list[list[int]]) -> None:
    runs = run_lengths(np.array(mask, bool))
    inside = np.repeat(np.arange(len(runs)) % 2, runs)
    assert inside.tolist() == np.ravel(mask).tolist()


def test_thumbnails_are_smaller_where_there_are_many_and_never_larger_than_the_images() -> None:
    few, many = (choose_pictures([np.arange(count)], 50_000, (240, 320)) for count in (10, 40_000))
    assert (few.width, many.width) == (192, 90)
    assert (few.height, many.height) == (144, 68)
    assert choose_pictures([np.arange(3)], 3, (12, 16)).width == 16


def test_the_same_study_gives_the_same_files_and_old_ones_are_removed(study: Path, concepts: ConceptData) -> None:
    files = {path: path.read_bytes() for path in (study / "report").rglob("*") if path.is_file()}
    (study / "report/data/maps-9-9-9.js").write_text("from before")
    (study / "report/sheets").mkdir()
    (study / "report/sheets/trial-0-level-00-layer4-0.jpg").write_text("from before")
    (study / "report/data/notes.txt").write_text("mine")
    write_report(study, concepts)
    (study / "report/data/notes.txt").unlink()
    assert {path: path.read_bytes() for path in (study / "report").rglob("*") if path.is_file()} == files


def test_missing_pieces_are_said(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path)
    (root / "trial-1/level-02/measured.json").unlink()
    (root / "trial-0/level-01/dissection/layer4/examples.safetensors").unlink()
    write_report(root, concepts)
    found = read_data(root, "study")
    assert any("Not all levels are finished" in note and "trial 1, level 2" in note for note in found["notes"])
    assert any("Example images are missing for trial 0, level 1" in note for note in found["notes"])
    assert [1, 2] not in found["keys"]
    assert [0, 0, 1] not in found["maps"]


def test_several_layers_have_units_of_their_own(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=1, levels=0, layers=["layer3.1", "layer4"])
    write_report(root, concepts)
    assert read_data(root, "study")["layers"] == ["layer3.1", "layer4"]
    assert len(read_data(root, "units-1-0")["units"]) == 8


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
    write_report(root, dataclasses.replace(concepts, labels=labels))
    names, found = read_data(root, "study")["names"], of_units(root)["concept"]
    assert [names[place] for place in found[0]] == ["dog (object)", "dog (part)", "red (color, 3)"]
    assert [names[place] for place in found[1]] == ["dog (part)", "dog (part)", "red (color, 4)"]


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_levels_of_an_older_version_without_numbers_have_the_same_concepts(
    tmp_path: Path, concepts: ConceptData, before: bool, after: bool
) -> None:
    rows: list[Row] = [("dog", "object", 0.3), ("cat", "object", 0.2)]
    root = write_study(tmp_path / "study", {(0, 0): rows, (0, 1): rows}, trials=1, levels=1)
    for number, has_numbers in enumerate((before, after)):
        path = root / f"trial-0/level-{number:02d}/dissection/layer4/units.parquet"
        if has_numbers:
            pd.read_parquet(path).assign(number=[1, 2]).to_parquet(path, index=False)
    write_report(root, concepts)
    found = of_units(root)["concept"]
    assert found[0].tolist() == found[1].tolist()
    assert [read_data(root, "study")["names"][place] for place in found[0]] == ["dog", "cat"]


def test_units_that_were_removed_with_their_filters_stay_on_the_page(tmp_path: Path, concepts: ConceptData) -> None:
    after = [GONE, ("dog", "object", 0.3), GONE, GONE, ("street", "scene", 0.2), ("sky", "object", 0.01), None, GONE]
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0], (0, 1): after}, trials=1, levels=1)
    write_report(root, concepts)
    units = of_units(root)
    assert (units["flags"][1] & PRESENT > 0).tolist() == [row is not GONE for row in after]
    assert FATES[units["fate"][1, 0]] == "removed"


def test_examples_from_another_data_set_are_refused_before_anything_is_written(
    tmp_path: Path, concepts: ConceptData
) -> None:
    root = write_study(tmp_path, {})
    write_level(root, 0, 0, UNITS[0, 0], ["layer4"], images=1000)
    with pytest.raises(InputError, match="but the data set of concepts contains 6 images"):
        write_report(root, concepts)
    assert not (root / "report").exists()


def dissection(folder: Path) -> Path:
    """Write the dissection of one layer, as the command leaves it."""
    root = write_study(folder / "study", {(0, 0): UNITS[0, 0]}, trials=1, levels=0)
    found = root / "trial-0/level-00/dissection/layer4"
    counts = {"units": 8, "interpretable": 5, "concepts": 4, "dead": 1, "by_category": {"object": 2, "color": 1}}
    settings = {"settings": {"iou": 0.05, "quantile": 0.005, "images": 6, "concepts": "gone"}}
    (found / "summary.json").write_text(json.dumps(counts | settings))
    return found


def test_a_dissection_has_a_page(tmp_path: Path, concepts: ConceptData) -> None:
    out = tmp_path / "out"
    shutil.copytree(dissection(tmp_path), out / "layer4")
    write_dissection_report(out, concepts)
    content = read_data(out, "study")
    assert (content["kind"], content["layers"], content["keys"]) == ("dissection", ["layer4"], [[0, 0]])
    assert content["curves"]["interpretable"] == [5]
    assert content["maps"] == [[0, 0, 0]]


def test_a_dissection_whose_images_are_gone_has_a_page_without_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(dissection(tmp_path), out / "layer4")
    write_dissection_report(out)
    content = read_data(out, "study")
    assert "pictures" not in content
    assert any("the page shows no images" in note for note in content["notes"])


def test_several_networks_stand_side_by_side_and_must_have_the_same_layers(
    tmp_path: Path, concepts: ConceptData
) -> None:
    out = tmp_path / "out"
    for name in ("dense", "pruned"):
        shutil.copytree(dissection(tmp_path / name), out / name / "layer4")
    write_dissection_report(out, concepts)
    content = read_data(out, "study")
    assert content["keys"] == [[0, 0], [0, 1]]
    assert content["curves"]["at_label"] == ["dense", "pruned"]
    shutil.copytree(out / "pruned/layer4", out / "pruned/layer3")
    with pytest.raises(InputError, match="give the folder of one network"):
        write_dissection_report(out, concepts)


def test_an_imported_table_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "unit,category,label,score,object-label,object-truth,object-activation,object-intersect,object-iou\n"
        "1,object,dog,0.1,dog,100,120,20,0.1\n"
    )
    prunescope.import_netdissect(tmp_path / "table.csv", out=tmp_path / "out")
    prunescope.write_outcome(tmp_path / "out")
    content = read_data(tmp_path / "out", "study")
    assert (content["kind"], content["names"], content["curves"]["interpretable"]) == ("table", ["dog"], [1])


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no study"):
        prunescope.write_outcome(tmp_path)


def test_a_comparison_has_a_page_with_levels_of_equal_weights_side_by_side(tmp_path: Path) -> None:
    pruned = {"remaining": [0.5, 0.25]}
    one = write_study(tmp_path / "one", {(0, n): UNITS[0, n] for n in range(3)}, trials=1, pruning=pruned)
    other = write_study(tmp_path / "other", {(0, n): UNITS[0, n] for n in range(2)}, trials=1, levels=1)
    prunescope.compare([one, other], tmp_path / "out", formats=["svg"])
    content = read_data(tmp_path / "out", "study")
    assert content["trial_names"] == ["one", "other"]
    assert content["categories"] == ["color", "object", "scene"]
    assert content["keys"] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert [path.name for path in (tmp_path / "out/report/data").iterdir()] == ["study.js"]


def write_masks(root: Path, kept: int) -> None:
    """Write the masks of two levels, the second of which keeps the first `kept` of 4 weights into each of 8 units."""
    for level in range(2):
        mask = {
            f"layer4.{name}.weight": np.ones((8, 4, 1, 1), bool) for name in ("0.conv2", "10.conv2", "0.downsample.0")
        }
        mask["layer4.10.conv2.weight"][:, kept if level else 4 :] = False
        save_file(mask, root / f"trial-0/level-{level:02d}/mask.safetensors")


def test_the_weights_that_lead_into_units_are_counted_in_the_last_convolution(
    tmp_path: Path, concepts: ConceptData
) -> None:
    root = write_study(tmp_path, {(0, level): UNITS[0, level] for level in range(2)}, trials=1, levels=1)
    write_masks(root, kept=1)
    write_report(root, concepts)
    assert of_units(root)["into"].tolist() == [[1.0] * 8, [0.25] * 8]
    (root / "trial-0/level-01/mask.safetensors").write_bytes(b"damaged")
    write_report(root, concepts)
    assert "into" not in of_units(root)
    assert any("level-01/mask.safetensors: cannot be read" in note for note in read_data(root, "study")["notes"])


def test_other_bases_of_a_dissection_stand_beside_the_units(tmp_path: Path, concepts: ConceptData) -> None:
    out = tmp_path / "out"
    for number, name in enumerate(("layer4", "basis/rotate-0/layer4")):
        shutil.copytree(dissection(tmp_path / str(number)), out / name)
    write_dissection_report(out, concepts)
    content = read_data(out, "study")
    assert (content["axis"], content["curves"]["at_label"]) == ("Basis", ["units", "rotate-0"])
    assert any("direction 3 of a rotation has nothing to do with unit 3" in note for note in content["notes"])


def test_a_comparison_has_intervals_over_trials_or_images() -> None:
    one, other = (
        pd.DataFrame({"study": name, "trial": range(trials), "level": 0, "layer": "layer4", "weights_remaining": 1.0,
                      "interpretable": [10.0, 12.0, 14.0][:trials], "interpretable_low": 1.0})
        for name, trials in (("many", 3), ("single", 1))
    )  # fmt: skip
    found = side_by_side(pd.concat([one, other], ignore_index=True), ["many", "single"])
    assert found["interpretable"].tolist() == [12.0, 10.0]
    assert found["interpretable_low"].round(2).tolist() == [7.03, 1.0]  # 12 - 4.303 * 2 / sqrt(3)


def test_missing_levels_are_named_in_ranges(tmp_path: Path, concepts: ConceptData) -> None:
    root = write_study(tmp_path, {(0, 0): UNITS[0, 0]}, trials=2, levels=4)
    write_report(root, concepts)
    content = read_data(root, "study")
    assert content["unfinished"]
    assert "Missing: trial 0, levels 1 to 4; trial 1, levels 0 to 4." in content["notes"][0]


def test_the_clearest_exemplars_of_each_level_are_on_the_page() -> None:
    table = pd.DataFrame({"level": 1, "image": range(60), "class": 3, "dense": 3, "pruned": 4, "dense_agreeing": 2,
                          "pruned_agreeing": [2] * 59 + [3], "trials": 3})  # fmt: skip
    found = clearest(pd.concat([table, table.assign(level=2).head(1)]))
    assert found.groupby("level")["of"].agg(["size", "first"]).to_numpy().tolist() == [[50, 60], [1, 1]]
    assert found["image"].iloc[0] == 59
