"""Read the evidence that is stored with a study, or compute it where it is missing or no longer right."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.evidence.of_images import study_predictions
from prunescope.evidence.over_images import REPLICATED
from prunescope.evidence.record import KEY, Evidence, conclude, study_evidence
from prunescope.evidence.tables import gather
from prunescope.evidence.verdict import FEWEST_RESAMPLES
from prunescope.files import read_file
from prunescope.progress import Progress, silent
from prunescope.reading import read_arrays, read_json, read_parquet
from prunescope.store.stored import open_study


def read_evidence(study_dir: str | Path, progress: Progress = silent) -> Evidence:
    """Return the evidence of a study, from its files if they agree with the study's dissections.

    Otherwise, as for a study that is still running or was made by an earlier version, it is computed. Nothing is
    written.

    Parameters
    ----------
    study_dir, progress
        As in `study_evidence`.

    Raises
    ------
    InputError
        As in `study_evidence`.
    """
    study = open_study(study_dir)
    try:
        curves = pd.read_csv(BytesIO(read_file(study.root / "evidence.csv")))
        plain = gather(study)
        pd.testing.assert_frame_equal(curves[list(plain.columns)], plain, check_exact=True, check_dtype=False)
        fates = read_parquet(study.root / "fates.parquet")
        sensitivity = pd.read_csv(BytesIO(read_file(study.root / "sensitivity.csv")))
        if not all(set(KEY) <= set(table.columns) for table in (fates, sensitivity)):
            raise ValueError("the tables are those of another version")
        notes = read_json(study.root / "verdict.json")["notes"]
        replicates = _replicates(study.root / "replicates.safetensors", len(curves))
        predictions = study_predictions(study)
        if predictions is not None and "accuracy" not in replicates:
            raise ValueError("the accuracy is not resampled, as by another version")
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        return study_evidence(study_dir, progress)
    return conclude(curves, fates, sensitivity, replicates, predictions, [str(note) for note in notes])


def _replicates(path: Path, rows: int) -> dict[str, Array]:
    arrays = read_arrays(path)
    for name, array in arrays.items():
        if array.dtype != np.float64 or array.ndim != 2 or len(array) != rows or array.shape[1] < FEWEST_RESAMPLES:
            raise ValueError(f"{name} does not fit the table")
    return {name: arrays[name] for name in (*REPLICATED, "accuracy") if name in arrays}
