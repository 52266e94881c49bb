"""Tables of units that cannot be, or that contradict what is beside them, are named instead of being believed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from prunescope.errors import InputError
from prunescope.evidence import consistency, curves
from tests.evidence.fake_study import units_table, write_study

LEVEL = "trial-0/level-01/dissection/layer4"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", layers=("layer4", "layer3"))


def with_value(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[1, column] = value
        return table

    return change


def with_number(row: int, value: int | None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Give every unit's concept a number, and that of one row another."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        numbers = pd.Series(range(1, len(table) + 1), dtype="Int64").where(table["label"].notna())
        numbers[row] = value
        return table.assign(number=numbers)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_value("iou", 1.5), "in row 1 iou is .*1.5.*, expected a number from 0 to 1"),
        (with_value("iou", -0.1), "in row 1 iou is"),
        (with_value("iou", float("nan")), "in row 1 iou is"),
        (with_value("object-iou", float("inf")), "in row 1 object-iou is"),
        (with_value("unit", 0), "in row 1 unit is .*0.*, expected each unit once"),
        (with_value("unit", -1), "in row 1 unit is"),
        (lambda table: table.astype({"unit": float}), "unit is float64, expected whole numbers"),
        (lambda table: table.astype({"dead": float}), "dead is float64, expected true or false"),
        (lambda table: table.astype({"iou": str}), "iou is .*, expected numbers from 0 to 1"),
        (with_value("label", None), "in row 1 category is"),
        (with_value("label", ""), "in row 1 label is ''"),
        (with_value("iou", 0.25), "in row 1 iou is .*0.25.*, expected that of object-iou"),
        (with_value("label", "dog"), "in row 1 label is 'dog', expected that of object-label"),
        (with_value("color-iou", 0.5), "in row 1 color-iou is .*0.5.*, expected at most iou"),
        (with_value("dead", True), "in row 1 dead is .*True.*, expected false, since the unit has a label"),
        (lambda table: table.drop(columns="object-label"), "there is no column object-label"),
        (with_number(1, 0), "in row 1 number is .*0.*, expected a number from 1"),
        (with_number(1, None), "in row 1 number is .*, expected a value where there is a label, and none elsewhere"),
        (with_number(6, 3), "in row 6 number is .*3.*, expected a value where there is a label, and none elsewhere"),
        (lambda table: table.assign(number="1"), "number is .*, expected whole numbers"),
        (lambda table: pd.concat([table, table.tail(1)]), "expected each unit once"),
        (lambda table: table.head(7), r"summary\.json: units is 8, but units\.parquet in the same folder gives 7"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_row_and_column(
    study: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    curves(study)
    path = study / LEVEL / "units.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(InputError, match=f"{LEVEL}.*{said}.*remove .*{LEVEL} and run the study again"):
        curves(study)


@pytest.mark.parametrize(
    ("counts", "settings", "said"),
    [
        ({"interpretable": 8}, {}, "interpretable is 8, but units.parquet in the same folder gives 5"),
        ({"units": 9}, {}, "units is 9"),
        ({"dead": 0}, {}, "dead is 0"),
        ({"concepts": 9}, {}, "concepts is 9, but units.parquet in the same folder gives 4"),
        ({"by_category": {"object": 4, "scene": 1}}, {}, "by_category is {'object': 4, 'scene': 1}"),
        ({"by_category": 4}, {}, "by_category is 4, expected a number for each category"),
        ({"units_by_category": {"zoo": 1}}, {}, "units_by_category is {'zoo': 1}"),
        ({}, {"layer": "layer3"}, "layer is 'layer3', but the study expects layer 'layer4'"),
        ({}, {"trial": 1}, "trial is 1, but the study expects trial 0"),
        ({}, {"level": 0}, "level is 0, but the study expects level 1"),
        ({}, {"network": "torchvision:resnet18"}, "network is 'torchvision:resnet18'"),
        ({}, {"quantile": 0.01}, "quantile is 0.01"),
    ],
)
def test_a_summary_that_contradicts_its_table_its_folder_or_the_recipe_is_refused(
    study: Path, counts: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    path = study / LEVEL / "summary.json"
    summary = json.loads(path.read_text())
    same = {"interpretable": 5, "dead": 1}
    own = {"layer": "layer4", "trial": 0, "level": 1, "network": "prunescope:resnet8x8"}
    path.write_text(json.dumps(summary | same | {"settings": summary["settings"] | own}))
    curves(study)
    path.write_text(json.dumps(summary | counts | {"settings": summary["settings"] | settings}))
    with pytest.raises(InputError, match=rf"{LEVEL}/summary\.json: {said}"):
        curves(study)


@pytest.mark.parametrize(
    ("kept", "prunable", "said"),
    [
        (500, 1001, "has 1001 prunable weights, but the level before has 1000"),
        (1000, 1000, "states that 1 of the weights remain, more than the 0\\.5"),
    ],
)
def test_counts_of_weights_that_other_levels_contradict_are_refused(
    study: Path, kept: int, prunable: int, said: str
) -> None:
    level = 1 if prunable > 1000 else 2
    path = study / f"trial-0/level-{level:02d}/measured.json"
    counts = {"kept": kept, "prunable": prunable, "weights_remaining": kept / prunable}
    path.write_text(json.dumps(json.loads(path.read_text()) | counts))
    with pytest.raises(InputError, match=rf"trial 0, level {level}: measured\.json .*({said})"):
        curves(study)


def test_a_dissection_of_another_layer_copied_over_is_refused(study: Path) -> None:
    for layer in ("layer3", "layer4"):
        path = study / LEVEL.replace("layer4", layer) / "summary.json"
        summary = json.loads(path.read_text())
        path.write_text(json.dumps(summary | {"settings": summary["settings"] | {"layer": layer}}))
    curves(study)
    shutil.rmtree(study / LEVEL)
    shutil.copytree(study / LEVEL.replace("layer4", "layer3"), study / LEVEL)
    with pytest.raises(InputError, match="layer is 'layer3', but the study expects layer 'layer4'"):
        curves(study)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 10**9}, "trials is 1000000000"),
        ({"trials": True}, "trials is True"),
        ({"pruning": {"levels": 10**9}}, "pruning.levels is 1000000000"),
        ({"pruning": {"levels": -1}}, "pruning.levels is -1"),
        ({"pruning": {"remaining": [0.5, 1.5]}}, "pruning.remaining.1 is 1.5"),
        ({"pruning": {"levels": 2, "fraction": 5}}, "pruning.fraction is 5"),
        ({"dissection": {"layers": ["layer4"], "iou": 7}}, "dissection.iou is 7"),
        ({"dissection": {"layers": ["layer4", "layer3", "layer4"]}}, "dissection.layers is .*'layer4' is listed twice"),
        ({"dissection": {"layers": ["layer4"], "iou": float("nan")}}, "dissection.iou is nan"),
    ],
)
def test_a_study_yaml_whose_numbers_cannot_be_is_refused(study: Path, changes: dict[str, Any], said: str) -> None:
    path = study / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(InputError) as error:
        curves(study)
    assert re.match(f"{re.escape(str(path))}: {said}", str(error.value))


@pytest.mark.parametrize("other", [{"number": [2, 1]}, {"category": ["object", "part"]}, {"label": ["dog", "sea"]}])
def test_tables_that_number_their_concepts_differently_are_told_of(other: dict[str, Any]) -> None:
    dense = units_table([("dog", "object", 0.3), ("sky", "object", 0.2)]).assign(number=[1, 2])
    assert consistency(dense, dense) == (1, 1)
    with pytest.warns(UserWarning, match=r"concept number [12] has several names or categories"):
        assert consistency(dense, dense.assign(**other))[1] < 1


def test_a_study_whose_levels_number_their_concepts_differently_is_refused(study: Path) -> None:
    for level in (0, 1):
        for layer in ("layer3", "layer4"):
            path = study / f"trial-0/level-{level:02d}/dissection/{layer}/units.parquet"
            table = pd.read_parquet(path)
            numbers = pd.Series(range(1 + level, len(table) + 1 + level), dtype="Int64")
            table.assign(number=numbers.where(table["label"].notna())).to_parquet(path, index=False)
    with pytest.raises(InputError, match=r"trial 0, level 1, layer layer4: concept number \d+ has several names"):
        curves(study)


def test_tables_of_different_units_are_refused_with_their_numbers() -> None:
    small = units_table([("dog", "object", 0.3)] * 4)
    large = units_table([("dog", "object", 0.3)] * 8)
    with pytest.raises(InputError, match=r"0 has 4 units and that of level l 8, of which 4 .* such as unit 4;"):
        consistency(small, large)
    with pytest.raises(InputError, match=r"same layer; where filters were removed, `Dissection.numbered`"):
        consistency(small, small.assign(unit=small["unit"] + 100))
    # Filters were removed: those that are left have their numbers.
    assert consistency(large, large.iloc[[1, 5]]) == (0.25, 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: pd.concat([table, table]), "the table of level l: in row 4 unit is .*, expected each unit once"),
        (lambda table: table.drop(columns="dead"), "the table of level l: there is no column dead"),
        (lambda table: table.assign(iou=2.0), "the table of level l: in row 0 iou is"),
        (lambda table: table.assign(layer=["a", "a", "b", "b"]), "the table of level l: contains the layers a, b"),
        (lambda table: table.assign(layer="b"), "the tables are of the layers a, b"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(change: Callable[[pd.DataFrame], pd.DataFrame], said: str) -> None:
    table = units_table([("dog", "object", 0.3)] * 4).assign(layer="a")
    assert consistency(table, table) == (1.0, 1.0)
    with pytest.raises(InputError, match=said):
        consistency(table, change(table))
