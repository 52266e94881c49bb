"""The evidence of a study has intervals, fates, counts at other bounds and a verdict, or says what is missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats

from prunescope.dissection.resampling import block_weights
from prunescope.evidence import study_evidence, write_evidence
from prunescope.evidence.fates import FATES
from tests.evidence.counted_study import CATEGORIES, LABELS, random_tally, write_counted
from tests.evidence.fake_study import write_study

AT_1 = "trial-0/level-01/dissection/late"


def plain_counts(seed: list[int], strength: float, weights: np.ndarray) -> tuple[list[int], list[list[str | None]]]:
    """The number of interpretable units and the concept of each unit (or None) in every resample, by definition."""
    tally = random_tally(seed, 12, 8, strength)
    primary = [CATEGORIES.index(category) for category in LABELS["category"]]
    counts, concepts = [], []
    for row in weights:
        truth, intersect, activation = (
            np.tensordot(row, part, axes=(0, 0)) for part in (tally.truth, tally.intersect, tally.activation)
        )
        scores = intersect / (activation[:, primary] + truth - intersect)
        best = [LABELS["name"].iloc[int(unit.argmax())] if unit.max() > 0.05 else None for unit in scores]
        counts.append(sum(concept is not None for concept in best))
        concepts.append(best)
    return counts, concepts


def test_intervals_are_the_percentiles_over_the_same_resamples_of_all_levels(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study"))
    weights = block_weights(8)
    counts, concepts = zip(*(plain_counts([0, n, 4], s, weights) for n, s in enumerate((1.0, 1.0, 0.9))), strict=True)
    for level, row in enumerate(found.curves.itertuples()):
        ends = np.quantile(counts[level], [0.025, 0.975])
        assert [row.interpretable_low, row.interpretable_high] == pytest.approx(ends)
        still = [
            sum(a is not None and b is not None for a, b in zip(x, y, strict=True)) / sum(a is not None for a in x)
            for x, y in zip(concepts[0], concepts[level], strict=True)
        ]
        assert [row.still_interpretable_low, row.still_interpretable_high] == pytest.approx(
            np.quantile(still, [0.025, 0.975])
        )
    np.testing.assert_array_equal(found.replicates["interpretable"], counts)
    assert found.notes[0].startswith("The accuracy is taken as it was measured")


def test_one_trial_is_judged_by_its_images(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study", levels=3))
    assert found.verdict is not None
    assert "speak of this initialisation alone" in found.verdict.text
    levels = found.verdict.levels.query("quantity == 'interpretable'").set_index("level")
    assert levels["decision"].tolist()[-1] == "fewer"


def test_trials_are_averaged_with_a_t_interval(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study", trials=3))
    for row in found.levels.itertuples():
        values = found.curves.query("level == @row.level")["concepts"]
        assert (row.trials, row.concepts) == (3, pytest.approx(values.mean()))
        if values.std() > 0:
            ends = stats.t.interval(0.95, 2, values.mean(), values.sem())
            assert [row.concepts_low, row.concepts_high] == pytest.approx(ends)
    assert found.curves["same_concept_across"].notna().all()
    single = study_evidence(write_counted(tmp_path / "single"))
    assert single.levels["concepts_low"].isna().all()
    assert single.curves["same_concept_across"].isna().all()


def test_every_unit_has_a_fate_and_the_counts_add_up(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study", levels=3))
    assert len(found.fates) == 4 * 12
    counts = found.curves[[f"fate_{fate}" for fate in FATES]]
    assert counts.sum(axis=1).tolist() == [12] * 4
    assert counts["fate_kept"].iloc[0] == found.curves["interpretable"].iloc[0]
    assert counts["fate_lost"].iloc[-1] > 0
    table = found.fates.query("level == 2").reset_index(drop=True)
    np.testing.assert_array_equal(table["dense_iou"], found.fates.query("level == 0")["iou"])


def test_counts_at_the_studys_own_bound_are_those_of_the_curves(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study"))
    at = found.sensitivity.query("bound == 0.05")
    assert at[["interpretable", "concepts"]].to_numpy().tolist() == (
        found.curves[["interpretable", "concepts"]].to_numpy().tolist()
    )
    assert found.sensitivity.groupby("level")["interpretable"].apply(lambda v: v.is_monotonic_decreasing).all()


def test_counts_with_permuted_labels_are_given_at_every_bound_where_they_are_stored(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study")
    path = root / AT_1 / "tally.safetensors"
    chance = np.random.default_rng(0).uniform(0, 0.1, (20, 12))
    concept = np.random.default_rng(1).integers(1, 9, (20, 12)).astype(np.int32)
    save_file({**load_file(path), "chance_iou": chance, "chance_concept": concept}, path)
    found = study_evidence(root).sensitivity.set_index(["level", "bound"])
    assert found.loc[(1, 0.05), "chance_interpretable"] == pytest.approx((chance > 0.05).sum(axis=1).mean())
    distinct = [len({*row[iou > 0.05].tolist()}) for row, iou in zip(concept, chance, strict=True)]
    assert found.loc[(1, 0.05), "chance_concepts"] == pytest.approx(np.mean(distinct))
    assert found.loc[0, ["chance_interpretable", "chance_concepts"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"chance_iou": np.full((3, 12), np.nan)}, "chance_iou is not everywhere a finite number"),
        ({"chance_iou": np.zeros((3, 11))}, r"chance_iou is float64 \[3, 11\], expected real numbers"),
        ({"chance_concept": np.ones((2, 12), np.int32)}, r"chance_concept is \[2, 12\], and chance_iou \[3, 12\]"),
    ],
)
def test_counts_with_permuted_labels_that_cannot_be_are_left_out_and_named(
    tmp_path: Path, changed: dict[str, np.ndarray], said: str
) -> None:
    root = write_counted(tmp_path / "study", levels=1)
    path = root / AT_1 / "tally.safetensors"
    right = {"chance_iou": np.full((3, 12), 0.1), "chance_concept": np.ones((3, 12), np.int32)}
    save_file({**load_file(path), **right, **changed}, path)
    found = study_evidence(root)
    assert "chance_interpretable" not in found.sensitivity
    (note,) = [note for note in found.notes if "with permuted labels" in note]
    assert re.search(f"{re.escape(str(path))}: {said}", note)


def test_the_files_hold_the_evidence_and_are_the_same_every_time(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study", trials=2)
    found = write_evidence(root)
    names = [
        *["evidence.csv", "evidence.json", "levels.csv", "fates.parquet", "sensitivity.csv", "replicates.safetensors"],
        *["verdict.json", "verdict.txt", "claims.csv"],
    ]
    first = {name: (root / name).read_bytes() for name in names}
    verdict = json.loads(first["verdict.json"])
    assert found.verdict is not None
    assert (verdict["hypothesis"], verdict["text"]) == (found.verdict.hypothesis, found.verdict.text)
    assert first["verdict.txt"].decode().startswith(found.verdict.text)
    table = pd.read_csv(root / "evidence.csv")
    pd.testing.assert_frame_equal(table, found.curves, check_exact=True, check_dtype=False)
    write_evidence(root)
    assert {name: (root / name).read_bytes() for name in names} == first


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def of_another(path: Path) -> None:
    shutil.copy(path.parents[3] / "level-02" / "dissection" / "late" / path.name, path)


@pytest.mark.parametrize("damage", [remove, cut, of_another])
def test_a_level_with_missing_or_damaged_counts_has_no_intervals_and_is_named(tmp_path: Path, damage) -> None:
    root = write_counted(tmp_path / "study", levels=3)
    damage(root / AT_1 / "tally.safetensors")
    found = study_evidence(root)
    assert found.curves["interpretable_low"].notna().tolist() == [True, False, True, True]
    assert f"left out for 1 of 4 dissections: {root / AT_1}/tally.safetensors" in found.notes[0]
    assert "Level 1 without stored counts is left out of the verdict." in found.notes
    assert found.verdict is not None


def test_blocks_of_other_images_are_not_mixed(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study")
    path = root / AT_1 / "tally.safetensors"
    arrays = load_file(path)
    save_file(
        {
            **arrays,
            **{name: arrays[name][::-1].copy() for name in arrays if name.startswith("block_") and "pairs" not in name},
        },
        path,
    )
    found = study_evidence(root)
    assert found.curves["interpretable_low"].notna().tolist() == [True, False, True]
    assert "grouped into other blocks" in found.notes[0]


def test_a_study_without_stored_counts_is_judged_by_its_trials_alone(tmp_path: Path) -> None:
    found = study_evidence(write_study(tmp_path / "two"))
    assert found.verdict is not None
    assert "left out for 6 of 6 dissections" in found.notes[0]
    assert not [name for name in found.curves if name.endswith("_low")]
    root = tmp_path / "one"
    shutil.copytree(tmp_path / "two", root)
    shutil.rmtree(root / "trial-1")
    found = study_evidence(root)
    assert found.verdict is None
    assert any(note.startswith("There is no verdict. There is one trial") for note in found.notes)


@pytest.mark.parametrize("trials", [1, 2])
def test_one_level_gives_numbers_and_the_reason_why_there_is_no_verdict(tmp_path: Path, trials: int) -> None:
    found = write_evidence(write_counted(tmp_path / "study", trials=trials, levels=0))
    assert found.verdict is None
    assert found.claims is None
    assert "There is no verdict. Only level 0 is there" in found.notes[-1]
    assert not (tmp_path / "study" / "claims.csv").exists()


def test_no_interpretable_unit_and_no_accuracy_are_no_error(tmp_path: Path) -> None:
    found = study_evidence(write_counted(tmp_path / "study", strengths=(0.0, 0.0, 0.0), accuracy=False, trials=2))
    assert found.curves["interpretable"].sum() == 0
    assert found.verdict is not None
    assert "There are no interpretable units" in found.verdict.text
    assert "Accuracy is not known" in found.verdict.text
