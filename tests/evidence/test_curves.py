from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.errors import InputError
from prunescope.evidence import category_columns, consistency, curves, interpretable, write_evidence
from tests.evidence.fake_study import CATEGORIES, GONE, SCRIPT, UNITS, Row, units_table, write_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study")


def plain_consistency(before: list[Row], after: list[Row], bound: float) -> tuple[float, float]:
    """design.md's definition, unit by unit."""
    at_0 = still = same = 0
    for unit_0, unit_l in zip(before, after, strict=True):
        if unit_0 is None or unit_0[2] <= bound:
            continue
        at_0 += 1
        if unit_l is None or unit_l[2] <= bound:
            continue
        still += 1
        same += unit_0[0] == unit_l[0]
    return (still / at_0 if at_0 else math.nan, same / still if still else math.nan)


def test_a_row_stands_for_every_trial_level_and_layer_in_order(study: Path) -> None:
    table = curves(study)
    assert list(zip(table.trial, table.level, table.layer, strict=True)) == [(t, n, "layer4") for t, n in sorted(UNITS)]
    assert list(table.columns) == [
        *["trial", "level", "layer", "weights_remaining", "accuracy", "top5", "loss", "units", "dead", "interpretable"],
        *[
            "concepts",
            "color",
            "object",
            "scene",
            "still_interpretable",
            "same_concept",
            "concepts_still_detected",
            "matched_by_concept",
            "still_interpretable_floor",
            "same_concept_floor",
            "same_concept_kappa",
            "still_interpretable_across",
            "same_concept_across",
        ],
    ]
    assert category_columns(table) == list(CATEGORIES)
    assert table.weights_remaining.tolist() == [1, 0.5, 0.25, 1, 0.5, 0.25]
    assert table.accuracy.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.89, 0.79, 0.69])
    assert table.loss.tolist() == pytest.approx([0.4, 1.4, 2.4] * 2)


def test_counts_follow_the_bound_strictly_and_count_a_concept_once(study: Path) -> None:
    table = curves(study)
    assert table.units.tolist() == [8] * 6
    assert table.dead.tolist() == [1, 1, 5, 6, 7, 8]
    assert table.interpretable.tolist() == [5, 5, 1, 0, 1, 0]  # an IoU of 0.05 itself is not above the bound
    assert table.concepts.tolist() == [4, 4, 1, 0, 1, 0]  # two units for "dog" are one concept
    assert table[list(CATEGORIES)].to_numpy().tolist()[:3] == [[1, 2, 1], [0, 3, 1], [0, 1, 0]]


def test_consistency_compares_each_level_with_the_dense_network_of_its_trial(study: Path) -> None:
    table = curves(study)
    for row in table.itertuples():
        plain = plain_consistency(UNITS[row.trial, 0], UNITS[row.trial, row.level], 0.05)
        np.testing.assert_array_equal([row.still_interpretable, row.same_concept], plain)
    assert table.still_interpretable.tolist()[:3] == [1.0, 0.8, 0.2]
    assert table.same_concept.tolist()[:3] == [1.0, 0.75, 0.0]


row = st.none() | st.tuples(st.sampled_from("abc"), st.just("object"), st.sampled_from([0.0, 0.04, 0.05, 0.06, 0.5]))


@given(st.lists(st.tuples(row, row), min_size=1, max_size=12), st.sampled_from([0.04, 0.05]), st.randoms())
def test_consistency_equals_its_definition_whatever_the_order_of_the_rows(pairs, bound, random) -> None:
    before, after = [list(rows) for rows in zip(*pairs, strict=True)]
    order = list(range(len(pairs)))
    random.shuffle(order)
    found = consistency(units_table(before), units_table(after).iloc[order], bound)
    np.testing.assert_array_equal(found, plain_consistency(before, after, bound))


def test_a_dead_unit_is_not_interpretable_whatever_its_iou() -> None:
    table = pd.DataFrame({"label": ["dog", "dog"], "iou": [0.9, 0.9], "dead": [True, False]})
    assert interpretable(table).tolist() == [False, True]


def test_a_unit_that_is_no_longer_there_is_no_longer_interpretable() -> None:
    dense = units_table([("dog", "object", 0.3), ("cat", "object", 0.3)])
    assert consistency(dense, dense.iloc[1:]) == (0.5, 1.0)


def test_of_a_layer_that_lost_filters_the_units_left_are_counted_and_compared_by_their_numbers(tmp_path: Path) -> None:
    after = [GONE, ("dog", "object", 0.3), GONE, (SCRIPT, "object", 0.2), GONE, ("sky", "object", 0.3), None, GONE]
    table = curves(write_study(tmp_path, {(0, 0): UNITS[0, 0], (0, 1): after}, trials=1, levels=1))
    assert table.units.tolist() == [8, 4]
    assert table.dead.tolist() == [1, 1]
    assert table.interpretable.tolist() == [5, 3]
    assert table.still_interpretable.tolist() == [1.0, 2 / 5]
    assert table.same_concept.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("more", [{}, {"levels": 2}, {"levels": 2, "fraction": None}])
def test_levels_may_be_given_as_weights_remaining(tmp_path: Path, more: dict[str, object]) -> None:
    root = write_study(tmp_path, pruning={"remaining": [0.5, 0.25], "schedule": "one-shot", "masks": "own"} | more)
    table = write_evidence(root).curves
    assert table.level.tolist() == [0, 1, 2] * 2
    settings = json.loads((root / "evidence.json").read_text())["settings"]
    assert settings["pruning"]["remaining"] == [0.5, 0.25]
    assert settings["pruning"]["retraining"] == "rewind"


def test_without_level_0_the_consistencies_are_unknown(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path, {(0, 1): UNITS[0, 1]}))
    assert table.level.tolist() == [1]
    assert table[["still_interpretable", "same_concept"]].isna().all(axis=None)


def test_several_layers_have_a_row_each_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path, layers=["layer4", "layer3.1"]))
    assert table.layer.tolist()[:4] == ["layer4", "layer3.1"] * 2


def test_a_category_named_like_a_column_keeps_both(tmp_path: Path) -> None:
    table = curves(write_study(tmp_path, {(0, 0): [("low", "loss", 0.3)]}, trials=1))
    assert table["loss"].tolist() == pytest.approx([0.4])
    assert table["loss (category)"].tolist() == [1]


def test_the_bound_is_the_recipes(study: Path) -> None:
    recipe = study / "study.yaml"
    recipe.write_text(recipe.read_text().replace("iou: 0.05", "iou: 0.25"))
    assert curves(study).interpretable.tolist() == [2, 2, 0, 0, 1, 0]


def test_the_csv_holds_the_table_to_the_last_digit(study: Path) -> None:
    written = write_evidence(study).curves
    pd.testing.assert_frame_equal(pd.read_csv(study / "evidence.csv"), written, check_exact=True, check_dtype=False)


def test_the_document_says_the_same_by_trial_and_sums_up_by_level(study: Path) -> None:
    table = write_evidence(study).curves
    text = (study / "evidence.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["settings"]["dissection"] == {"quantile": 0.005, "presence": "image", "concepts": "concepts"}
    assert document["settings"]["pruning"]["fraction"] == 0.5
    assert document["missing"] == []
    first = document["trials"][0]["levels"][1]
    expected = {
        **{"units": 8, "dead": 1, "interpretable": 5, "concepts": 4},
        **{"by_category": {"color": 0, "object": 3, "scene": 1}, "still_interpretable": 0.8, "same_concept": 0.75},
        **{"concepts_still_detected": 0.75, "matched_by_concept": 0.6},
        **{"fate_dead": 1, "fate_lost": 1, "fate_gained": 1, "fate_kept": 3, "fate_changed": 1, "fate_never": 1},
    }
    layer = first["layers"]["layer4"]
    assert {name: layer[name] for name in expected} == expected
    assert document["trials"][1]["levels"][0]["layers"]["layer4"]["same_concept"] is None
    for entry in document["summary"]:
        rows = table[table.level == entry["level"]]
        assert entry["trials"] == 2
        assert entry["accuracy"] == {
            "mean": pytest.approx(np.mean(rows.accuracy)),
            "min": min(rows.accuracy),
            "max": max(rows.accuracy),
        }
        assert entry["by_category"]["object"]["max"] == max(rows.object)
    assert document["summary"][0]["still_interpretable"] == {"mean": 1.0, "min": 1.0, "max": 1.0}


def test_columns_that_an_earlier_version_did_not_write_are_named_with_the_command_that_adds_them(study: Path) -> None:
    with pytest.warns(
        UserWarning, match="6 of 6 dissections .* lack the columns iou_mirrored, p, precision, q, recall, shrinkage"
    ):
        write_evidence(study)
    lacking = json.loads((study / "evidence.json").read_text())["lacking"]
    assert f"run `prunescope study {study / 'study.yaml'} --out {study}`" in lacking
    for path in study.rglob("units.parquet"):
        numbers = dict.fromkeys(("iou_mirrored", "p", "precision", "q", "recall", "shrinkage"), 0.5)
        pd.read_parquet(path).assign(**numbers).to_parquet(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_evidence(study)
    assert "lacking" not in json.loads((study / "evidence.json").read_text())


def test_the_same_study_gives_the_same_bytes(study: Path) -> None:
    write_evidence(study)
    before = [(study / name).read_bytes() for name in ("evidence.csv", "evidence.json")]
    write_evidence(study)
    assert [(study / name).read_bytes() for name in ("evidence.csv", "evidence.json")] == before


def test_unfinished_levels_are_left_out_and_named(study: Path) -> None:
    (study / "trial-1/level-02/measured.json").unlink()
    (study / "trial-1/level-01/dissection/layer4/summary.json").unlink()
    (study / "trial-0/level-02/dissection/layer4/units.parquet").unlink()
    table = write_evidence(study).curves
    assert len(table) == 3
    missing = json.loads((study / "evidence.json").read_text())["missing"]
    assert missing == [{"trial": 0, "level": 2}, {"trial": 1, "level": 1}, {"trial": 1, "level": 2}]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("study.yaml", None, "no study.yaml"),
        ("study.yaml", "trials: [", "cannot be read as YAML"),
        ("study.yaml", "trials: 0\npruning: {levels: 2}\ndissection: {layers: [layer4]}", "trials"),
        ("study.yaml", "trials: 1\npruning: {levels: 2}\ndissection: {layers: []}", "dissection.layers"),
        ("study.yaml", "trials: 1\npruning: {}\ndissection: {layers: [layer4]}", "neither levels nor remaining"),
        ("study.yaml", "- a list", "the file"),
        ("trial-0/level-01/measured.json", "{", "cannot be read as JSON"),
        ("trial-0/level-01/measured.json", '{"top1": 0.5}', "weights_remaining"),
        ("trial-0/level-01/measured.json", "[]", "expected a JSON object"),
        ("trial-0/level-01/dissection/layer4/units.parquet", "PAR1", "cannot be read as parquet"),
    ],
)
def test_a_damaged_file_is_named(study: Path, path: str, content: str | None, message: str) -> None:
    (study / path).unlink()
    if content is not None:
        (study / path).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        curves(study)
    assert Path(path).name in str(caught.value)


def test_a_table_without_a_column_names_it(study: Path) -> None:
    path = study / "trial-0/level-00/dissection/layer4/units.parquet"
    pd.read_parquet(path).drop(columns="dead").to_parquet(path)
    with pytest.raises(InputError, match="there is no column dead"):
        curves(study)


def test_a_study_with_no_finished_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the study's 6 levels is finished"):
        write_evidence(write_study(tmp_path, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
