"""Names that become files stay inside the folder they belong to, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

import prunescope
from prunescope.dissection import LayerDissection
from prunescope.dissection.layer_files import is_complete, read_summary, read_units
from prunescope.files import inside
from prunescope.report import draw_figures
from prunescope.store import read_recipe
from tests.cli.commands import refused
from tests.evidence.fake_study import write_study
from tests.study.small import write_recipe

BAD = [
    "..",
    ".",
    "",
    " ",
    "a/b",
    "../a",
    "/tmp/a",
    "x/../../../../evil",
    "a\\b",
    "a\0b",
    "a\nb",
    "\x7f",
    "\ud800",
    "n" * 181,
]


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_file_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(prunescope.InputError, match=r"the layer .* cannot name a file in"):
        inside(tmp_path, name, "the layer")


@pytest.mark.parametrize(
    "name", ["layer4", "layer4.2", "features.29", "0", "conv 1", "größe", "...x", "n" * 180, "a:b"]
)
def test_a_name_of_a_layer_stays_as_it_is(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["x/../../../../evil", "/evil", "..", "a\\b", "a\0b"])
def test_a_foreign_study_cannot_make_report_write_outside_of_it(tmp_path: Path, name: str) -> None:
    study = write_study(tmp_path / "a" / "b" / "study")
    content = yaml.safe_load((study / "study.yaml").read_text())
    content["dissection"]["layers"] = [name]
    (study / "study.yaml").write_text(yaml.safe_dump(content))
    # What the command would look for: a finished level under that name.
    if "\0" not in name and not name.startswith("/"):
        for level in study.glob("trial-*/level-*/dissection"):
            (level / "x").mkdir()
            if not (level / name).exists():
                (level / "layer4").rename(level / name)
    before = everything(tmp_path)
    said = refused("report", study)
    assert "study.yaml: dissection.layers.0 is " in said
    assert "cannot name a file" in said
    assert everything(tmp_path) == before


@pytest.mark.parametrize("linked", ["figures", "report", "report/data", "report/sheets"])
def test_a_folder_that_is_a_link_out_of_the_study_is_not_written_through(tmp_path: Path, linked: str) -> None:
    small = write_recipe(tmp_path / "small.yaml", "task", "concepts")
    study = write_study(tmp_path / "study")
    (study / "study.yaml").write_text(read_recipe(small, ["dissection.layers=[layer4]"]).to_yaml())
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "trial-0-level-00-layer4-0.jpg").write_text("mine")
    (study / linked).parent.mkdir(exist_ok=True)
    (study / linked).symlink_to(mine)
    before = everything(tmp_path)
    assert f"{study / linked} is a link that leads out of {study}" in refused("report", study)
    assert everything(tmp_path) == before
    assert (mine / "trial-0-level-00-layer4-0.jpg").read_text() == "mine"


@pytest.mark.parametrize("name", ["x/../../evil", "..", "/evil", "a\0b"])
def test_a_recipe_with_such_a_layer_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    small = write_recipe(tmp_path / "small.yaml", "task", "concepts")
    with pytest.raises(prunescope.InputError, match=r"small\.yaml.*dissection.layers is .*: cannot name a file"):
        read_recipe(small, [f"dissection.layers={yaml.safe_dump([name], width=1000).strip()}"])


def test_saved_tables_stay_inside_their_directory(tmp_path: Path) -> None:
    units = pd.DataFrame({"unit": [0], "label": ["dog"], "category": ["object"], "iou": [0.5]})
    pairs = pd.DataFrame(
        {name: [] for name in ("unit", "label", "category", "truth", "activation", "intersect", "iou")}
    )
    found = LayerDissection("../evil", units, pairs, {"by_category": {}})
    for call in (
        lambda: found.save(tmp_path / "out"),
        lambda: read_units(tmp_path, "../evil"),
        lambda: read_summary(tmp_path, "../evil"),
        lambda: is_complete(tmp_path, "../evil"),
        lambda: draw_figures(pd.DataFrame({"layer": ["../evil"]}), tmp_path),
    ):
        with pytest.raises(prunescope.InputError, match=r"the layer '\.\./evil' cannot name a file"):
            call()
    assert everything(tmp_path) == set()


def test_weights_whose_stem_leaves_the_folder_are_refused_before_the_work(tmp_path: Path) -> None:
    files = [tmp_path / "one.pth", tmp_path / "...pth"]
    for file in files:
        file.write_bytes(b"")
    words = ["--weights", files[0], "--weights", files[1], "--concepts", tmp_path, "--out", tmp_path / "out"]
    assert "its stem '..' cannot name a file" in refused("dissect", "prunescope:resnet8x4", *words)


def test_a_link_in_the_place_of_a_half_written_file_is_not_written_through(tmp_path: Path) -> None:
    import os

    from prunescope.files import write_text

    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".evidence.{os.getpid()}.part.json").symlink_to(tmp_path / "mine")
    (tmp_path / "evidence.json").symlink_to(tmp_path / "mine")
    write_text(tmp_path / "evidence.json", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "evidence.json").read_text() == "new"
    assert not (tmp_path / "evidence.json").is_symlink()


def test_a_file_that_is_called_like_a_rewinding_point_is_no_traceback(tmp_path: Path) -> None:
    from prunescope.study.branching import Branch
    from prunescope.study.sharing import dense_elsewhere

    small = read_recipe(write_recipe(tmp_path / "small.yaml", "task", "concepts"))
    root = tmp_path / "study"
    level = root / "trial-0" / "level-00"
    level.mkdir(parents=True)
    (root / "study.yaml").write_text(small.to_yaml())
    for name in ("mask.safetensors", "weights.safetensors", "measured.json"):
        (level / name).write_bytes(b"")
    (root / "trial-0" / "rewind-xit.safetensors").write_bytes(b"")
    assert dense_elsewhere(small, 0, [Branch.open(root)], 3) is None
