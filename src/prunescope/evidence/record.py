"""Collect the evidence of a study, and write it to the study's directory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.errors import InputError
from prunescope.evidence.documents import evidence_document, verdict_document
from prunescope.evidence.fates import FATES, fate_counts, fates
from prunescope.evidence.of_images import accuracy_over_images, changed_images, class_accuracy, study_predictions
from prunescope.evidence.over_images import Key, OverImages, over_images
from prunescope.evidence.over_trials import over_trials, value_columns
from prunescope.evidence.sensitivity import sensitivity
from prunescope.evidence.tables import ENDS, FATE, RELIABILITY, dense_units, gather, units_correspond
from prunescope.evidence.verdict import Verdict
from prunescope.evidence.verdict_of_study import judge
from prunescope.files import write_arrays, write_json, write_table, write_text
from prunescope.progress import Progress, silent
from prunescope.store.stored import ReadOnce, StoredStudy, open_study
from prunescope.store.tables import missing_columns
from prunescope.store.tallies import read_chance

KEY = ["trial", "level", "layer"]


@dataclass(frozen=True)
class Evidence:
    """The numbers of a study, how certain they are, and what they say.

    Attributes
    ----------
    curves
        A row per trial, level and layer: the table that `prunescope.curves` returns, with the reliability, the number
        of units of each fate (`fate_kept`, ...), and `NAME_low` and `NAME_high` for each count and share NAME, the 95 %
        interval over resampled images.
    levels
        A row per level and layer: the means over trials with their t intervals; see `over_trials`.
    fates
        A row per trial, layer, level and unit; see `prunescope.evidence.fates`.
    sensitivity
        A row per trial, level, layer and bound of the IoU; see `prunescope.evidence.sensitivity`.
    replicates
        For some columns of `curves`: float64 [rows, resamples], the value in each resample of the images; NaN in rows
        without stored counts.
    verdict
        The verdict of `prunescope.evidence.verdict`, or None if there is none; `notes` say why.
    claims
        The claims of the paper, as `prunescope.evidence.claims` returns them, or None.
    notes
        Sentences about what is left out, and why.
    classes
        A row per trial, level and class: its accuracy; see `prunescope.evidence.class_accuracy`. None if no level has
        stored predictions.
    exemplars
        A row per level and image whose prediction pruning changes; see `prunescope.evidence.changed_images`. None if
        no level has stored predictions.
    """

    curves: pd.DataFrame
    levels: pd.DataFrame
    fates: pd.DataFrame
    sensitivity: pd.DataFrame
    replicates: Mapping[str, Array]
    verdict: Verdict | None
    claims: pd.DataFrame | None
    notes: tuple[str, ...]
    classes: pd.DataFrame | None = None
    exemplars: pd.DataFrame | None = None


def study_evidence(study_dir: str | Path, progress: Progress = silent) -> Evidence:
    """Compute the evidence of a study, which need not be finished.

    Parameters
    ----------
    study_dir : path
        The directory of a study or a series.
    progress
        A function that is called with the number of dissections done and their total number.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, or if a file of a level is damaged. Stored
        counts that are missing or damaged only leave the intervals out, which the notes say.
    """
    return _collect(_open(study_dir), progress)


def write_evidence(study_dir: str | Path, progress: Progress = silent) -> Evidence:
    """Compute the evidence of a study and write it to the study's directory.

    The files are ``evidence.csv``, ``levels.csv``, ``fates.parquet``, ``sensitivity.csv``, ``replicates.safetensors``,
    ``evidence.json``, ``verdict.json``, ``verdict.txt`` and ``claims.csv``, and, where predictions are stored,
    ``classes.csv`` and ``exemplars.csv``; docs/files.md describes them. The same study always gives files with the same
    bytes.

    Parameters
    ----------
    study_dir, progress
        As in `study_evidence`.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        As in `study_evidence`; nothing is written then.
    """
    study = _open(study_dir)
    found = _collect(study, progress)
    note = lacking(study)
    if note:
        warnings.warn(note, stacklevel=2)
    write_table(study.root / "evidence.csv", found.curves)
    write_table(study.root / "levels.csv", found.levels)
    write_table(study.root / "fates.parquet", found.fates)
    write_table(study.root / "sensitivity.csv", found.sensitivity)
    write_arrays(study.root / "replicates.safetensors", found.replicates)
    write_json(study.root / "evidence.json", evidence_document(study, found.curves, note))
    write_json(study.root / "verdict.json", verdict_document(found.verdict, found.notes))
    write_text(study.root / "verdict.txt", "\n".join(in_words(found)) + "\n")
    for name, table in (("claims", found.claims), ("classes", found.classes), ("exemplars", found.exemplars)):
        if table is not None:
            write_table(study.root / f"{name}.csv", table)
        else:
            (study.root / f"{name}.csv").unlink(missing_ok=True)
    return found


def in_words(found: Evidence) -> list[str]:
    """Return the verdict as paragraphs, followed by the notes on what is left out."""
    return [*([] if found.verdict is None else [found.verdict.text]), *found.notes]


def lacking(study: StoredStudy) -> str:
    """Describe the columns that dissections of earlier versions lack, and how to add them; empty if none do."""
    columns, folders = set[str](), list[Path]()
    for trial, level in study.finished:
        for layer in study.settings.layers:
            missing = missing_columns(*study.dissected(trial, level, layer))
            if missing:
                columns.update(missing)
                folders.append(study.dissection(trial, level, layer))
    if not folders:
        return ""
    command = "series" if study.settings.is_series else "study"
    return (
        f"{len(folders)} of {len(study.finished) * len(study.settings.layers)} dissections were made by an earlier "
        f"version and lack the columns {', '.join(sorted(columns))}, such as {folders[0]}. To add them, remove these "
        f"folders and run `prunescope {command} {study.root / 'study.yaml'} --out {study.root}`"
    )


def _collect(study: StoredStudy, progress: Progress) -> Evidence:
    table = gather(study)
    predictions = study_predictions(study)
    resampled = over_images(study, progress)
    if predictions is not None:
        keys = table[KEY].itertuples(index=False, name=None)
        resampled = resampled.with_accuracy(keys, accuracy_over_images(predictions))
    all_fates, at_bounds, notes = _by_unit(study, resampled)
    table = _with_columns(table, resampled, all_fates)
    replicates = _replicates(table, resampled)
    return conclude(table, all_fates, at_bounds, replicates, predictions, (*resampled.notes, *notes))


def conclude(
    table: pd.DataFrame,
    all_fates: pd.DataFrame,
    at_bounds: pd.DataFrame,
    replicates: Mapping[str, Array],
    predictions: pd.DataFrame | None,
    notes: Sequence[str],
) -> Evidence:
    """Judge a study by its numbers, and add what follows from its predictions.

    Parameters
    ----------
    table, all_fates, at_bounds, replicates, notes
        The fields curves, fates, sensitivity, replicates and notes of its `Evidence`. The reasons why the study or a
        part of it cannot be judged are added to the notes, unless they are among them.
    predictions
        The table that `study_predictions` returns.
    """
    verdict, of_paper, more = judge(table, replicates)
    return Evidence(
        curves=table,
        levels=over_trials(table),
        fates=all_fates,
        sensitivity=at_bounds,
        replicates=replicates,
        verdict=verdict,
        claims=of_paper,
        notes=tuple(dict.fromkeys((*notes, *more))),
        classes=None if predictions is None else class_accuracy(predictions),
        exemplars=None if predictions is None else changed_images(predictions),
    )


def _open(study_dir: str | Path) -> ReadOnce:
    return ReadOnce(**vars(open_study(study_dir)))


def _by_unit(study: StoredStudy, resampled: OverImages) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return the fates of units, the counts at each bound, and notes on the dissections without fates."""
    dense = dense_units(study)
    of_units, at_bounds, notes = [], [], []
    for trial, level in study.finished:
        for layer in study.settings.layers:
            key: Key = (trial, level, layer)
            units, summary = study.dissected(*key)
            try:
                chance = read_chance(study.dissection(*key), units)
            except InputError as error:
                chance = {}
                notes.append(f"Counts with permuted labels at other bounds of the IoU are left out: {error}.")
            at_bounds.append(sensitivity(units, **chance).assign(trial=trial, level=level, layer=layer))
            if (trial, layer) not in dense or not units_correspond(summary):
                continue
            before, after = (
                table.assign(**resampled.sets.get(of, {}))
                for table, of in ((dense[trial, layer], (trial, 0, layer)), (units, key))
            )
            of_units.append(fates(before, after, study.settings.iou).assign(trial=trial, level=level, layer=layer))
    if len(of_units) < len(at_bounds):
        notes.append(
            f"The fates of units are left out for {len(at_bounds) - len(of_units)} of {len(at_bounds)} dissections, "
            "because it is unknown which units of level 0 theirs are, or because level 0 is not finished."
        )
    empty = pd.DataFrame(columns=[*KEY, "unit", "fate"])
    return _joined(of_units) if of_units else empty, _joined(at_bounds), notes


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat(tables, ignore_index=True)
    return joined[[*KEY, *joined.columns.drop(KEY)]]


def _with_columns(table: pd.DataFrame, resampled: OverImages, all_fates: pd.DataFrame) -> pd.DataFrame:
    """Add the reliability, the counts of fates and the ends of intervals to the table of curves."""
    counts = {key: fate_counts(rows) for key, rows in all_fates.groupby(KEY, sort=False)}
    keys = list(table[KEY].itertuples(index=False, name=None))
    columns: dict[str, list[float]] = {}
    for name in (f"{FATE}{fate}" for fate in FATES if counts):
        columns[name] = [counts.get(key, {}).get(name, float("nan")) for key in keys]
    if resampled.columns:
        names = [RELIABILITY, *(f"{name}{end}" for name in value_columns(table) for end in ENDS)]
        for name in names:
            column = [resampled.columns.get(key, {}).get(name, float("nan")) for key in keys]
            if any(name in of_key for of_key in resampled.columns.values()):
                columns[name] = column
    return table.assign(**columns)


def _replicates(table: pd.DataFrame, resampled: OverImages) -> dict[str, Array]:
    keys = list(table[KEY].itertuples(index=False, name=None))
    names = dict.fromkeys(name for found in resampled.replicates.values() for name in found)
    arrays = {}
    for name in names:
        known = {key: found[name] for key, found in resampled.replicates.items() if name in found}
        array = np.full((len(keys), len(next(iter(known.values())))), np.nan)
        for row, key in enumerate(keys):
            if key in known:
                array[row] = known[key]
        arrays[name] = array
    return arrays
