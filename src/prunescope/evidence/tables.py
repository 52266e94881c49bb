"""Collect what the units of a study detect at each level in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.scores import concept_columns, interpretable
from prunescope.errors import InputError
from prunescope.evidence.agreement import agreement, detections
from prunescope.evidence.baselines import BASELINES, BASIS, baselines, compared_with_beside, in_bases, tables_beside
from prunescope.evidence.by_concept import compare_concepts
from prunescope.evidence.consistency import compare_units
from prunescope.evidence.of_dissections import study_of_dissections
from prunescope.evidence.units import other_numbers
from prunescope.store.measured import Measured
from prunescope.store.pairs import category_names
from prunescope.store.stored import StoredStudy, open_study

COUNTED = ("trial", "level", "layer", "weights_remaining", "accuracy", "top5", "loss", "units", "dead", "interpretable")
CONSISTENT = ("still_interpretable", "same_concept", "concepts_still_detected", "matched_by_concept")
ON_A_SCALE = (
    "still_interpretable_floor",
    "same_concept_floor",
    "same_concept_kappa",
    "still_interpretable_across",
    "same_concept_across",
)
RELIABILITY = "reliability"
ENDS = ("_low", "_high")  # of the columns that hold the ends of intervals
FATE = "fate_"
POSITIONS = ("at", "at_label")  # of a series that has a horizontal axis of its own


def curves(
    study_dir: str | Path | Sequence[Dissection | LayerDissection],
    *,
    weights_remaining: Sequence[float] | None = None,
    accuracy: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Return the numbers of a study in a table with a row for each finished trial, level and layer.

    Parameters
    ----------
    study_dir : path, or sequence of Dissection or LayerDissection
        A study's directory, finished or not; or the dissections of one network at several levels, the first of which is
        level 0. All must have the same layers, and must have been made with the same settings.
    weights_remaining : sequence of float, optional
        The weights remaining of each dissection, as fractions. They are required for dissections, and are read from the
        files of a study.
    accuracy : sequence of float, optional
        The top-1 accuracy of each dissected network, as a fraction.

    Returns
    -------
    DataFrame
        The table, sorted by trial, level and layer (in the order of the recipe), with these columns:

        - trial, level, layer;
        - weights_remaining (a fraction), accuracy (top-1, a fraction), top5 (a fraction) and loss;
        - units (the number that the layer still has if filters were removed), dead and interpretable;
        - concepts (the number of distinct best concepts of the interpretable units, told apart by their numbers);
        - one column per category (the number of those concepts in the category);
        - still_interpretable and same_concept (see `consistency`; also NaN if the trial's level 0 is not finished, or
          if it is unknown which units correspond: those of a series that have no numbers, and those of dissections
          whose units are fewer than at level 0 and numbered from 0, or have other numbers);
        - concepts_still_detected and matched_by_concept (see the functions of these names);
        - what still_interpretable and same_concept are compared with: still_interpretable_floor and same_concept_floor
          (their expected values if the units were renumbered at random), same_concept_kappa (Cohen's kappa of the units
          that are interpretable at both levels), and still_interpretable_across and same_concept_across (the same two
          measures between level 0 of another trial and this level, as the mean over the other trials);
        - where the study has what they need: above_chance (interpretable units with q < 0.05), chance_interpretable and
          chance_concepts (the mean counts with permuted labels), localised (units that are interpretable, but not with
          mirrored masks), untrained_interpretable and untrained_concepts (the counts of the network before training),
          and retrained_still_interpretable and retrained_same_concept (the consistency of the network that was trained
          again without pruning);
        - where the layers are dissected in other bases, basis_NAME, the number of concepts that the directions of the
          basis detect, divided by that of the units;
        - for a series with a horizontal axis of its own, at (a number) and at_label (its text).

        For dissections, the trial is 0, and what is not given is NaN.

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, or if a file of a level is damaged. For
        dissections, if their layers, settings or concept numbers differ, or if `weights_remaining` or `accuracy` does
        not contain one fraction for each of them.

    Examples
    --------
    ::

        found = [prunescope.dissect(model, layers=["layer4"], concepts="broden1_224") for model in (dense, pruned)]
        prunescope.curves(found, weights_remaining=[1.0, 0.2])
    """
    if isinstance(study_dir, str | Path):
        if weights_remaining is not None or accuracy is not None:
            raise InputError(
                f"weights_remaining and accuracy are read from the files of the study in {study_dir}; leave them out"
            )
        return gather(open_study(study_dir))
    return gather(study_of_dissections(study_dir, weights_remaining, accuracy))


def gather(study: StoredStudy) -> pd.DataFrame:
    """Return the numbers of a study that is already open; see `curves`."""
    rows: list[dict[str, object]] = []
    counts: list[Mapping[str, int]] = []
    _check_counts(study)
    dense = dense_units(study)
    beside = tables_beside(study)
    for trial, level in study.finished:
        measured = study.measured(trial, level)
        for layer in study.settings.layers:
            units, summary = study.dissected(trial, level, layer)
            found = units[interpretable(units, study.settings.iou)].drop_duplicates(concept_columns(units))
            rows.append(
                {
                    "trial": trial,
                    "level": level,
                    "layer": layer,
                    "weights_remaining": measured.weights_remaining,
                    "accuracy": _or_nan(measured.top1),
                    "top5": _or_nan(measured.top5),
                    "loss": _or_nan(measured.loss),
                    "units": len(units),
                    "dead": int(units["dead"].sum()),
                    "interpretable": int(interpretable(units, study.settings.iou).sum()),
                    "concepts": len(found),
                    **_compared(study, dense, (trial, level, layer), units, summary),
                    **baselines(units, summary, study.settings.iou),
                    **compared_with_beside(
                        beside.get(("untrained", trial, layer)),
                        beside.get(("retrained", trial, layer)),
                        dense.get((trial, layer)),
                        study.settings.iou,
                    ),
                    **in_bases(study, trial, level, layer, len(found)),
                    "at": measured.at,
                }
            )
            counts.append({category: int((found["category"] == category).sum()) for category in _categories(units)})
    columns = [*COUNTED, "concepts", *CONSISTENT, *ON_A_SCALE]
    columns += [name for name in BASELINES if any(name in row for row in rows)]
    columns += sorted({name for row in rows for name in row if name.startswith(BASIS)})
    if study.settings.axis is not None:
        columns += POSITIONS
        _add_positions(rows)
    categories = {category: category_column(category) for row in counts for category in row}
    table = pd.DataFrame(rows, columns=columns)
    for index, (category, column) in enumerate(categories.items()):
        table.insert(len(COUNTED) + 1 + index, column, [row.get(category, 0) for row in counts])
    return table


def dense_units(study: StoredStudy) -> dict[tuple[int, str], pd.DataFrame]:
    """Return the units of the dense networks that are finished, by trial and layer."""
    trials = [trial for trial, level in study.finished if level == 0]
    return {(trial, layer): study.units(trial, 0, layer) for trial in trials for layer in study.settings.layers}


def _compared(
    study: StoredStudy,
    dense: Mapping[tuple[int, str], pd.DataFrame],
    key: tuple[int, int, str],
    units: pd.DataFrame,
    summary: Mapping[str, Any],
) -> dict[str, float]:
    """Return how far the units of a level agree with the dense network of its trial, and with those of the others."""
    (trial, level, layer), iou = key, study.settings.iou
    columns = dict.fromkeys((*CONSISTENT, *ON_A_SCALE), float("nan"))
    if (trial, layer) not in dense:
        return columns
    before = dense[trial, layer]
    if problem := other_numbers(before, units):
        raise InputError(
            f"{study.root}: trial {trial}, level {level}, layer {layer}: {problem}; remove the level's dissection and "
            "run the study again"
        )
    if not units_correspond(summary):
        names = ("concepts_still_detected", "matched_by_concept")
        return columns | dict(zip(names, compare_concepts(before, units, iou), strict=True))
    columns |= {name: float(value[0]) for name, value in vars(agreement(*detections(before, units, iou))).items()}
    others = [
        compare_units(table, units, iou)
        for (other, of), table in dense.items()
        if other != trial and of == layer and not other_numbers(table, units)
    ]
    names = ("still_interpretable_across", "same_concept_across")
    return columns | dict(zip(names, _means(others), strict=True))


def _means(pairs: list[tuple[float, float]]) -> list[float]:
    """Return the means of the first and of the second numbers that are known."""
    found = np.full((2, max(1, len(pairs))), np.nan)
    if pairs:
        found[:] = np.array(pairs).T
    return [float(row[~np.isnan(row)].mean()) if (~np.isnan(row)).any() else float("nan") for row in found]


def units_correspond(summary: Mapping[str, Any]) -> bool:
    """Return whether it is known which units of the trial's level 0 those of a dissection correspond to."""
    settings = summary.get("settings", {})
    return not (isinstance(settings, dict) and settings.get("unit_numbers") == "unknown")


def _add_positions(rows: list[dict[str, object]]) -> None:
    """Turn the positions of checkpoints into numbers, and name them; labels are numbered in the order of the levels."""
    given = list(dict.fromkeys(row["at"] for row in sorted(rows, key=lambda row: int(str(row["level"])))))
    numeric = all(isinstance(value, int | float) for value in given)
    for row in rows:
        value = row["at"]
        row["at_label"] = f"{value:g}" if isinstance(value, int | float) else str(value)
        row["at"] = float(str(value)) if numeric else float(given.index(value))


def _check_counts(study: StoredStudy) -> None:
    """Raise if the counts of weights contradict each other: other prunable weights, or weights that come back."""
    earlier: dict[int, Measured] = {}
    for trial, level in study.finished:
        measured = study.measured(trial, level)
        before = earlier.setdefault(trial, measured)
        earlier[trial] = measured
        where = f"{study.root}: trial {trial}, level {level}"
        both_known = None not in (measured.prunable, before.prunable)
        if both_known and not study.settings.is_series and measured.prunable != before.prunable:
            raise InputError(
                f"{where}: measured.json has {measured.prunable} prunable weights, but the level before has "
                f"{before.prunable}; remove the file that is wrong and run the study again"
            )
        pruning = study.settings.pruning
        if (
            pruning is not None
            and pruning.schedule == "iterative"
            and measured.weights_remaining > before.weights_remaining
        ):
            raise InputError(
                f"{where}: measured.json states that {measured.weights_remaining:.4g} of the weights remain, more than "
                f"the {before.weights_remaining:.4g} of the level before; remove the file that is wrong and run the "
                "study again"
            )


def category_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns of `curves` that count the detected concepts of a category."""
    return [column for column in table.columns if not _taken(str(column))]


def _taken(column: str) -> bool:
    """Return whether a column of the evidence cannot be that of a category."""
    names = {*COUNTED, "concepts", *CONSISTENT, *ON_A_SCALE, *BASELINES, *POSITIONS, RELIABILITY}
    return column in names or column.endswith(ENDS) or column.startswith((FATE, BASIS))


def _categories(units: pd.DataFrame) -> list[str]:
    """Return the categories of a table of units, in the order of its columns."""
    named = category_names(units)
    return [*named, *(str(category) for category in units["category"].dropna().unique() if category not in named)]


def category_column(category: str) -> str:
    """Return the name of the column of `curves` that counts the detected concepts of a category."""
    return f"{category} (category)" if _taken(category) else category


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
