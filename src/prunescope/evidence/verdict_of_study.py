"""Judge a study from its evidence: the verdict and the paper's claims, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.errors import InputError
from prunescope.evidence.chains import QUANTITIES
from prunescope.evidence.claims import claims
from prunescope.evidence.verdict import Replicates, Verdict, verdict


def judge(
    table: pd.DataFrame, replicates: Mapping[str, Array], *, margin: float = 0.1, accuracy_margin: float = 0.01
) -> tuple[Verdict | None, pd.DataFrame | None, tuple[str, ...]]:
    """Return the verdict on a study, the paper's claims, and notes on what could not be judged or is left out.

    Parameters
    ----------
    table
        The curves of the study, with a row per trial, level and layer.
    replicates
        For the columns interpretable, concepts and, if it was resampled, accuracy: float64 [rows, resamples], the
        values in each resample of the images; NaN in rows without stored counts. They are needed for one trial.
    margin, accuracy_margin
        As in `prunescope.evidence.verdict`.
    """
    notes: list[str] = []
    found: Verdict | None = None
    of_paper: pd.DataFrame | None = None
    try:
        rows, of_images, as_measured = table, None, False
        if table.loc[table["level"] == 0, "trial"].nunique() < 2:
            rows, of_images, as_measured = _one_trial(table, replicates, notes)
        found = verdict(rows, margin=margin, accuracy_margin=accuracy_margin, replicates=of_images)
        if as_measured:
            notes.append(
                "The accuracy is taken as it was measured, without its own uncertainty, because there is one trial and "
                "not every level has stored predictions for the validation images."
            )
    except InputError as error:
        notes.append(f"There is no verdict. {_sentence(error)}")
    try:
        of_paper = claims(table)
    except InputError as error:
        if found is not None:
            notes.append(f"The paper's claims are left out. {_sentence(error)}")
    return found, of_paper, tuple(notes)


def _one_trial(
    table: pd.DataFrame, replicates: Mapping[str, Array], notes: list[str]
) -> tuple[pd.DataFrame, Replicates, bool]:
    """Return the rows of a single trial that were resampled, and their values in each resample.

    The last element is whether the accuracy was measured but not resampled, so that it is the same in each resample.
    """
    rows = table.reset_index(drop=True)
    rows = rows[rows["trial"] == rows.loc[rows["level"] == 0, "trial"].min()] if (rows["level"] == 0).any() else rows
    if not all(name in replicates for name in QUANTITIES):
        raise InputError(
            "there is one trial, and the counts by block of images from which it could be judged are missing"
        )
    unknown = np.isnan(replicates[QUANTITIES[0]][rows.index.to_numpy()]).any(axis=1)
    incomplete = sorted({int(level) for level in rows["level"].to_numpy()[unknown]})
    if incomplete:
        notes.append(
            f"Level{'s' if len(incomplete) > 1 else ''} {', '.join(map(str, incomplete))} without stored counts "
            f"{'are' if len(incomplete) > 1 else 'is'} left out of the verdict."
        )
    rows = rows[~rows["level"].isin(incomplete)].sort_values("level", kind="stable")
    counts: dict[str, dict[str, Array]] = {}
    for layer, of_layer in rows.groupby("layer", sort=False):
        counts[str(layer)] = {name: replicates[name][of_layer.index.to_numpy()] for name in QUANTITIES}
    first = rows.drop_duplicates("level")
    accuracy: Array | None = None
    resampled = replicates["accuracy"][first.index.to_numpy()] if "accuracy" in replicates else None
    if resampled is not None and not np.isnan(resampled).any():
        accuracy = resampled
    elif first["accuracy"].notna().all() and len(first):
        resamples = replicates[QUANTITIES[0]].shape[1]
        accuracy = np.repeat(first["accuracy"].to_numpy(np.float64)[:, None], resamples, axis=1)
        return rows, Replicates(counts, accuracy), True
    return rows, Replicates(counts, accuracy), False


def _sentence(error: Exception) -> str:
    text = str(error).removeprefix("curves: ")
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
