"""Studies are compared at equal weights and at equal accuracy, in pairs where they share dense networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

import prunescope
from prunescope import InputError
from prunescope.evidence import compare_studies, curves, study_evidence
from tests.cli.commands import typed
from tests.evidence.counted_study import write_counted


def sharing(of: Path, root: Path, **how: object) -> Path:
    """A study with the dense networks of another one."""
    write_counted(root, **how)  # type: ignore[arg-type]
    for folder in of.glob("trial-*/level-00"):
        there = root / folder.relative_to(of)
        shutil.rmtree(there)
        shutil.copytree(folder, there)
    return root


def at_weights(found: pd.DataFrame, quantity: str = "interpretable") -> pd.DataFrame:
    rows = found[(found["quantity"] == quantity) & (found["at"] == "weights_remaining")]
    return rows.set_index(rows["position"].round(6))


WEAK = (0.8, 0.7, 0.5, 0.3)


def test_trials_that_share_dense_networks_are_paired(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one", trials=3)
    other = sharing(one, tmp_path / "other", trials=3, strengths=WEAK)
    found = compare_studies([one, other]).differences
    assert found["paired"].all()
    rows = at_weights(found)
    assert rows.loc[1.0, ["difference", "low", "high"]].tolist() == [0, 0, 0]
    values = [curves(root).pivot(index="level", columns="trial", values="interpretable") for root in (one, other)]
    difference = (values[1] - values[0]).loc[2]
    low, high = stats.t.interval(0.95, 2, difference.mean(), difference.sem())
    assert rows.loc[0.25, ["difference", "low", "high"]].tolist() == pytest.approx([difference.mean(), low, high])


def test_other_trials_are_compared_by_welchs_interval(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one", trials=3)
    other = write_counted(tmp_path / "other", trials=2, strengths=WEAK)
    rows = at_weights(compare_studies([one, other]).differences)
    assert not rows["paired"].any()
    first, second = (curves(root).query("level == 2")["interpretable"] for root in (one, other))
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert rows.loc[0.25, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])


def test_single_trials_with_one_dense_network_are_compared_over_images(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one")
    other = sharing(one, tmp_path / "other", strengths=WEAK)
    row = at_weights(compare_studies([one, other]).differences).loc[0.25]
    replicates = [study_evidence(root).replicates["interpretable"][2] for root in (one, other)]
    assert row["interval"] == "images"
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(replicates[1] - replicates[0], [0.025, 0.975]))
    apart = compare_studies([one, write_counted(tmp_path / "apart", units=10)]).differences
    assert apart["low"].isna().all()


def test_numbers_between_levels_are_interpolated_on_the_logarithmic_axis(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one", trials=2)
    other = write_counted(tmp_path / "other", trials=2)
    for path in other.glob("trial-*/level-*/measured.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"weights_remaining": 0.25 ** content["level"]}))
    rows = at_weights(compare_studies([one, other]).differences)
    means = curves(other).groupby("level")["interpretable"].mean()
    assert rows["value"].tolist() == pytest.approx([means[0], (means[0] + means[1]) / 2, means[1]])


def with_accuracies(root: Path, accuracies: list[float]) -> Path:
    for path in root.glob("trial-*/level-*/measured.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"top1": accuracies[content["level"]]}))
    return root


def test_equal_accuracy_is_that_of_the_last_crossing(tmp_path: Path) -> None:
    one = with_accuracies(write_counted(tmp_path / "one", trials=2, levels=3), [0.9, 0.86, 0.91, 0.71])
    other = with_accuracies(write_counted(tmp_path / "other", trials=2, levels=3), [0.9, 0.9, 0.8, 0.7])
    found = compare_studies([one, other]).differences.query("at == 'accuracy' and quantity == 'interpretable'")
    row = found[found["position"].round(6) == 0.85].iloc[0]
    first, second = (curves(root).groupby("level")["interpretable"].mean() for root in (one, other))
    assert row["reference_value"] == pytest.approx(first[2] + (0.91 - 0.85) / 0.2 * (first[3] - first[2]))
    assert row["value"] == pytest.approx((second[1] + second[2]) / 2)


def test_the_command_writes_tables_and_figures_and_prints_differences(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one", trials=3)
    other = sharing(one, tmp_path / "other", trials=3, strengths=WEAK)
    third = sharing(one, tmp_path / "third", trials=3)
    result = typed("compare", one, other, third, "--out", tmp_path / "out", "--format", "svg")
    assert result.exit_code == 0, result.output
    names = ["compare-curves.svg", "compare-differences.svg", "curves.csv", "differences.csv", "report"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    table = pd.read_csv(tmp_path / "out" / "differences.csv", keep_default_na=True)
    found = prunescope.compare([one, other, third]).differences
    pd.testing.assert_frame_equal(table, found, check_dtype=False)
    assert "interpretable" in result.stdout


def test_only_common_layers_are_compared_and_the_others_are_named(tmp_path: Path) -> None:
    one = write_counted(tmp_path / "one", layers=("late", "early"))
    found = compare_studies([one, write_counted(tmp_path / "other", layers=("late",), accuracy=False)])
    assert set(found.differences["layer"]) == {"late"}
    assert set(found.differences["at"]) == {"weights_remaining"}
    assert any("The layers early are not compared" in note for note in found.notes)
    with pytest.raises(InputError, match="expected at least one layer in common"):
        compare_studies([one, write_counted(tmp_path / "third", layers=("middle",))])


def test_studies_that_cannot_be_compared_are_one_clear_error(tmp_path: Path) -> None:
    one, other = write_counted(tmp_path / "one"), write_counted(tmp_path / "other")
    for given, said in (
        ([one], "1 study is given"),
        ([one, one], "given twice"),
        ([one, tmp_path], "contains no study"),
    ):
        with pytest.raises(InputError, match=said):
            compare_studies(given)
    assert "is itself a study" in typed("compare", one, other, "--out", other).stderr
    for path in other.glob("trial-*/level-*/dissection/late/units.parquet"):
        units = pd.read_parquet(path)
        units.assign(number=units["number"].rank(method="dense", ascending=False).astype("Int64")).to_parquet(path)
    with pytest.raises(InputError, match=r"one and other, layer late: concept number .* several names"):
        compare_studies([one, other])


def test_another_bound_is_noted_and_one_level_is_enough(tmp_path: Path) -> None:
    one, other = write_counted(tmp_path / "one", levels=0), write_counted(tmp_path / "other")
    recipe = yaml.safe_load((other / "study.yaml").read_text())
    (other / "study.yaml").write_text(yaml.safe_dump(recipe | {"dissection": {"layers": ["late"], "iou": 0.04}}))
    for path in other.glob("trial-*/level-*/dissection/late/summary.json"):
        path.write_text(json.dumps({"settings": {"layer": "late"}}))
    found = compare_studies([one, other])
    assert any("above an IoU of 0.04" in note for note in found.notes)
    assert found.differences["position"].unique().tolist() == [1.0]
