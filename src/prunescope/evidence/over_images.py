"""Compute the numbers of a study again for bootstrap resamples of the labelled images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import NONE, Resampled, block_weights, resample_units
from prunescope.dissection.scores import interpretable, resampled_columns, score_column
from prunescope.errors import InputError
from prunescope.evidence.agreement import agreement, detected_concepts, shares
from prunescope.evidence.fates import SETS
from prunescope.evidence.tables import ENDS, RELIABILITY, category_column, units_correspond
from prunescope.progress import Progress, silent
from prunescope.store.dissections import UNITS
from prunescope.store.stored import StoredStudy
from prunescope.store.tallies import TALLY_FILE, BlockCounts, read_block_counts

Key = tuple[int, int, str]  # trial, level, layer
REPLICATED = ("interpretable", "concepts", "still_interpretable", "same_concept")


@dataclass(frozen=True)
class OverImages:
    """The numbers of a study over resamples of its labelled images.

    Attributes
    ----------
    columns
        For each trial, level and layer whose counts could be used: reliability, and `NAME_low` and `NAME_high` for each
        count and share NAME, the percentile interval of 95 %.
    replicates
        For each of them and each name in `REPLICATED`, and for accuracy where it was added: float64 [resamples], its
        value in each resample.
    sets
        For each of them whose table of units has no concept sets, as in earlier versions, the columns that
        `resampled_columns` adds to it.
    notes
        Sentences about dissections that were left out.
    """

    columns: dict[Key, dict[str, float]]
    replicates: dict[Key, dict[str, Array]]
    sets: dict[Key, dict[str, Any]]
    notes: tuple[str, ...]

    def with_accuracy(self, keys: Iterable[Key], accuracy: Mapping[tuple[int, int], Array]) -> OverImages:
        """Add the accuracy, and its interval, to the rows of networks whose predictions were resampled.

        Parameters
        ----------
        keys
            The trial, level and layer of all rows.
        accuracy
            For each trial and level, float64 [resamples], as `accuracy_over_images` returns it.
        """
        columns, replicates = dict(self.columns), dict(self.replicates)
        for key in keys:
            values = accuracy.get(key[:2])
            if values is not None:
                columns[key] = columns.get(key, {}) | percentile_intervals({"accuracy": values})
                replicates[key] = replicates.get(key, {}) | {"accuracy": values}
        return replace(self, columns=columns, replicates=replicates)


@dataclass(frozen=True)
class _Level:
    """The units of one level over resamples."""

    units: pd.DataFrame
    tally: BlockCounts
    found: Resampled
    corresponds: bool


def over_images(study: StoredStudy, progress: Progress = silent) -> OverImages:
    """Resample the labelled images of a study, with the same resamples for all its trials and levels.

    Dissections whose stored counts are missing or damaged are left out, and so are those whose images are grouped into
    other blocks than in the rest of the study.

    Parameters
    ----------
    study
        The study.
    progress
        A function that is called with the number of dissections done and their total number.
    """
    found = OverImages({}, {}, {}, ())
    problems: list[str] = []
    done, total = 0, len(study.finished) * len(study.settings.layers)
    for layer in study.settings.layers:
        dense: dict[int, _Level] = {}
        first: BlockCounts | None = None
        # The dense networks come first, because the levels of every trial are compared with all of them.
        for trial, level in sorted(study.finished, key=lambda key: (key[1] > 0, key)):
            key = (trial, level, layer)
            try:
                one = _resampled(study, key, first)
            except InputError as error:
                problems.append(str(error))
            else:
                first = first or one.tally
                if level == 0:
                    dense[trial] = one
                else:
                    _add(found, key, one, dense, study.settings.iou)
            done += 1
            progress(done, total)
        for trial, one in dense.items():
            _add(found, (trial, 0, layer), one, dense, study.settings.iou)
    return replace(found, notes=_notes(problems, total))


def _notes(problems: list[str], total: int) -> tuple[str, ...]:
    if not problems:
        return ()
    example = problems[0] if len(problems) == 1 else f"for example, {problems[0]}"
    return (
        f"Intervals over images are left out for {len(problems)} of {total} dissections: {example}. To compute them, "
        "remove the dissection's folder and run the study again.",
    )


def _add(found: OverImages, key: Key, one: _Level, dense: Mapping[int, _Level], iou: float) -> None:
    values = dict(_values(one, key[0], dense))
    interpretable_units = interpretable(one.units, iou).to_numpy()
    kept = one.found.kept[interpretable_units]
    found.columns[key] = {RELIABILITY: float(kept.mean()) if len(kept) else float("nan")} | percentile_intervals(values)
    found.replicates[key] = {name: values[name] for name in REPLICATED if name in values}
    if SETS not in one.units.columns:
        found.sets[key] = resampled_columns(one.found, one.tally.numbers)


def _resampled(study: StoredStudy, key: Key, first: BlockCounts | None) -> _Level:
    """Resample one dissection, whose images must be grouped into the same blocks as in the `first` one."""
    units, summary = study.dissected(*key)
    folder = study.dissection(*key)
    if "number" not in units.columns:
        raise InputError(f"{folder / UNITS}: there is no column number, as in a table of an earlier version")
    if score_column(units) != "iou":
        raise InputError(f"{folder}: the concepts of units were chosen by another score than the IoU")
    tally = read_block_counts(folder, units)
    if first is not None and not (
        np.array_equal(first.numbers, tally.numbers) and np.array_equal(first.truth, tally.truth)
    ):
        raise InputError(
            f"{folder}: the labelled images are grouped into other blocks than in the first dissection of this layer, "
            "as by another version"
        )
    found = resample_units(tally.pairs, block_weights(len(tally.truth)), study.settings.iou)
    numbers = np.where(found.label == NONE, NONE, tally.numbers[found.label])
    if not np.array_equal(numbers, units["number"].fillna(NONE).to_numpy(np.int64)):
        raise InputError(f"{folder / TALLY_FILE}: its best concepts are not those of units.parquet beside it")
    return _Level(units, tally, found, units_correspond(summary))


def _values(one: _Level, trial: int, dense: Mapping[int, _Level]) -> Iterator[tuple[str, Array]]:
    """Yield the name of each column of the evidence that has an interval, and its value in each resample."""
    detected, concepts = one.found.detected, len(one.tally.numbers)
    present = detected_concepts(detected, concepts)
    yield "interpretable", one.found.interpretable
    yield "concepts", present.sum(axis=1)
    for category in dict.fromkeys(one.tally.category.values()):
        of_category = [column for column, name in one.tally.category.items() if name == category]
        yield category_column(category), present[:, of_category].sum(axis=1)
    if trial not in dense:
        return
    if not one.corresponds:
        width = max(detected.shape[1], dense[trial].found.detected.shape[1])
        found = agreement(_padded(dense[trial].found.detected, width), _padded(detected, width), concepts)
        yield "concepts_still_detected", found.concepts_still_detected
        yield "matched_by_concept", found.matched_by_concept
        return
    yield from vars(agreement(dense[trial].found.detected, _aligned(one, dense[trial]), concepts)).items()
    others = [level for other, level in dense.items() if other != trial]
    if others:
        pairs = np.array([shares(level.found.detected, _aligned(one, level)) for level in others])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no known value is NaN, which is right here
            still, same = np.nanmean(pairs, axis=0)
        yield "still_interpretable_across", still
        yield "same_concept_across", same


def _aligned(one: _Level, dense: _Level) -> Array:
    """Return what the units of a level detect, with a column for each unit of a dense network."""
    rows = pd.Series(np.arange(len(one.units)), index=one.units["unit"]).reindex(dense.units["unit"], fill_value=NONE)
    aligned: Array = np.where(rows.to_numpy() == NONE, NONE, one.found.detected[:, rows.to_numpy()])
    return aligned


def _padded(detected: Array, width: int) -> Array:
    return np.pad(detected, ((0, 0), (0, width - detected.shape[1])), constant_values=NONE)


def percentile_intervals(values: Mapping[str, Array]) -> dict[str, float]:
    """Return the ends of the 95 % percentile interval of each number, as columns `NAME_low` and `NAME_high`.

    Parameters
    ----------
    values
        For each number NAME, its values over resamples. Values that are NaN are left out.
    """
    found: dict[str, float] = {}
    for name, resampled in values.items():
        known = resampled[~np.isnan(resampled)]
        ends = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found |= {f"{name}{end}": float(value) for end, value in zip(ENDS, ends, strict=True)}
    return found
