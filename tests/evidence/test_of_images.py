"""Accuracy by class and the images whose prediction pruning changes, from the predictions of a study's levels."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from prunescope.errors import InputError
from prunescope.evidence import (
    changed_images,
    class_accuracy,
    read_evidence,
    study_evidence,
    study_predictions,
    write_evidence,
)
from prunescope.store.stored import open_study
from tests.evidence.counted_study import write_counted
from tests.evidence.fake_study import write_study

CLASSES = [0, 0, 0, 1, 1]
# By trial and level: the predicted class of each image.
PREDICTED = {
    (0, 0): [0, 0, 0, 1, 1],
    (1, 0): [0, 0, 1, 1, 0],
    (2, 0): [0, 0, 0, 1, 2],
    (0, 1): [0, 1, 1, 0, 0],
    (1, 1): [0, 1, 2, 1, 0],
    (2, 1): [0, 0, 0, 0, 0],
}


def table_of(predicted: dict[tuple[int, int], list[int]]) -> pd.DataFrame:
    tables = [
        pd.DataFrame({"trial": trial, "level": level, "image": range(5), "class": CLASSES, "predicted": row})
        for (trial, level), row in predicted.items()
    ]
    return pd.concat(tables, ignore_index=True)


def store(root: Path, trial: int, level: int, predicted: list[int], classes: list[int] = CLASSES) -> Path:
    """Write a level's predictions, and their accuracy into its measurements."""
    folder = root / f"trial-{trial}" / f"level-{level:02d}"
    table = pd.DataFrame({"image": range(5), "class": classes, "predicted": predicted, "probability": 0.5})
    table.to_parquet(folder / "predictions.parquet")
    measured = json.loads((folder / "measured.json").read_text())
    top1 = float((table["class"] == table["predicted"]).mean())
    (folder / "measured.json").write_text(json.dumps(measured | {"top1": top1, "top5": 1.0}))
    return folder / "predictions.parquet"


def test_each_class_has_its_accuracy_with_wilsons_interval() -> None:
    found = class_accuracy(table_of(PREDICTED)).set_index(["trial", "level", "class"])
    assert len(found) == 3 * 2 * 2
    row = found.loc[(1, 0, 0)]
    assert row["images"] == 3
    assert row["accuracy"] == 2 / 3
    # Wilson 1927, equation 4, written out.
    n, p, z = 3, 2 / 3, 1.959963984540054
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert row["accuracy_low"] == pytest.approx((centre - half) / (1 + z**2 / n))
    assert row["accuracy_high"] == pytest.approx((centre + half) / (1 + z**2 / n))


def test_an_image_is_changed_if_most_trials_predict_another_class_than_most_dense_networks() -> None:
    found = changed_images(table_of(PREDICTED))
    # Image 2 has three different predictions at level 1, and image 4 at level 0: ties, and thus no change.
    assert found.to_dict("records") == [
        {
            "level": 1, "image": image, "class": own, "dense": dense, "pruned": pruned,
            "dense_agreeing": 3, "pruned_agreeing": 2, "trials": 3,
        }
        for image, own, dense, pruned in [(1, 0, 0, 1), (3, 1, 1, 0)]
    ]  # fmt: skip


def test_a_level_is_compared_over_the_trials_that_have_it_and_level_0() -> None:
    without = {key: row for key, row in PREDICTED.items() if key not in [(1, 1), (2, 0)]}
    found = changed_images(table_of(without))
    assert found["image"].tolist() == [1, 2, 3, 4]
    assert found["trials"].tolist() == [1] * 4
    nothing = changed_images(table_of({key: row for key, row in PREDICTED.items() if key[1] == 0}))
    assert nothing.empty
    assert list(nothing.columns) == list(found.columns)


def test_the_tables_are_written_with_the_evidence_where_there_are_predictions(tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    assert write_evidence(root).classes is None
    assert not (root / "classes.csv").exists()
    # The other levels are those of an earlier version.
    paths = [store(root, trial, level, PREDICTED[trial, level]) for trial in (0, 1) for level in (0, 1)]
    found = write_evidence(root)
    given = {key: PREDICTED[key] for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    pd.testing.assert_frame_equal(found.classes, class_accuracy(table_of(given)), check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(root / "classes.csv"), found.classes, check_dtype=False)
    exemplars = pd.read_csv(root / "exemplars.csv")
    assert exemplars[["level", "image"]].to_numpy().tolist() == [[1, 1]]
    pd.testing.assert_frame_equal(read_evidence(root).exemplars, exemplars, check_dtype=False)
    for path in paths:
        path.unlink()
    write_evidence(root)
    assert not [name for name in ("classes.csv", "exemplars.csv") if (root / name).exists()]


def test_the_accuracy_of_one_trial_is_resampled_over_the_same_images_at_every_level(tmp_path: Path) -> None:
    root = write_counted(tmp_path / "study")
    for level, predicted in enumerate([[0, 0, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 1, 1]]):
        path = store(root, 0, level, predicted)
    found = study_evidence(root)
    accuracy = found.replicates["accuracy"]
    np.testing.assert_array_equal(accuracy[0], accuracy[2])
    assert (accuracy[0] != accuracy[1]).any()
    assert accuracy[0].mean() == pytest.approx(0.8, abs=0.02)
    assert accuracy[0].std() == pytest.approx((0.8 * 0.2 / 5) ** 0.5, rel=0.1)
    ends = np.quantile(accuracy[1], [0.025, 0.975])
    assert found.curves.loc[1, ["accuracy_low", "accuracy_high"]].tolist() == pytest.approx(ends)
    assert not any(note.startswith("The accuracy is taken as it was measured") for note in found.notes)
    write_evidence(root)
    np.testing.assert_array_equal(read_evidence(root).replicates["accuracy"], accuracy)
    # Evidence that was written without the resampled accuracy, as by an earlier version, is computed again.
    save_file({"interpretable": found.replicates["interpretable"]}, root / "replicates.safetensors")
    np.testing.assert_array_equal(read_evidence(root).replicates["accuracy"], accuracy)
    path.unlink()
    found = study_evidence(root)
    assert found.curves["accuracy_low"].notna().tolist() == [True, True, False]
    assert any(note.startswith("The accuracy is taken as it was measured") for note in found.notes)


def test_predictions_for_other_images_than_another_levels_are_refused(tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    first = store(root, 0, 0, PREDICTED[0, 0])
    other = store(root, 1, 1, PREDICTED[1, 1], [0, 0, 1, 1, 1])
    with pytest.raises(InputError, match=f"{re.escape(str(other))}: .* differ from those in {re.escape(str(first))}"):
        study_predictions(open_study(root))


def test_predictions_that_contradict_the_measured_accuracy_stop_the_evidence(tmp_path: Path) -> None:
    root = write_study(tmp_path / "study")
    path = store(root, 0, 0, PREDICTED[0, 0])
    pd.read_parquet(path).assign(predicted=2).to_parquet(path)
    with pytest.raises(InputError, match=re.escape(f"{path}: the accuracy of the predictions is 0.0, but")):
        write_evidence(root)
    assert not (root / "evidence.csv").exists()
