"""Compare studies: differences at equal weights remaining and at equal accuracy, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.errors import InputError, refuse_text
from prunescope.evidence.over_trials import t_interval
from prunescope.evidence.reading import read_evidence
from prunescope.evidence.record import Evidence
from prunescope.evidence.tables import dense_units
from prunescope.evidence.units import other_numbers
from prunescope.progress import Progress, silent
from prunescope.store.stored import StoredStudy, open_study

COMPARED = ("accuracy", "interpretable", "concepts", "still_interpretable", "same_concept")
LOSSES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
BEYOND = 1.001  # levels of studies with the same schedule differ by rounding
OVER_TRIALS, OVER_IMAGES = "trials", "images"


@dataclass(frozen=True)
class Comparison:
    """Several studies side by side.

    Attributes
    ----------
    curves
        The evidence of all studies, with the study's name in the column study.
    differences
        A row for each study but the first, layer, quantity and point at which it is compared with the first one, with
        the columns study, reference (the first study), layer, quantity; at ("weights_remaining" or "accuracy") and
        position (its value, a fraction); value and reference_value (means over trials), difference, low and high (its
        95 % interval); trials (their number), paired (whether trials are paired) and interval ("trials", "images" or
        empty).
    notes
        Sentences about what is left out.
    """

    curves: pd.DataFrame
    differences: pd.DataFrame
    notes: tuple[str, ...]


def compare_studies(studies: Sequence[str | Path], *, progress: Progress = silent) -> Comparison:
    """Compare studies with the first of them at equal weights remaining and at equal accuracy.

    Numbers between two levels are interpolated on the logarithmic axis of the weights remaining. Studies are compared
    at the levels of the first study that the other one reaches, and at the accuracies that lie 0.5, 1, 2, 3, 5 and 10
    points below the mean accuracy of the first study's dense networks. A curve has an accuracy where it falls below it
    for the last time.

    Trials are paired if both studies have the same dense networks; the interval is then a t interval of the paired
    differences. Otherwise it is Welch's interval. If both studies have one trial, with the same dense network, it is a
    percentile interval over resampled images.

    Parameters
    ----------
    studies
        The directories of at least two studies or series.
    progress
        A function that is called with the number of studies read and their total number.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If there are fewer than two studies, a directory is given twice or contains no study, the studies have no layer
        in common, or their concepts have other numbers.
    """
    refuse_text(studies, "studies")
    paths = [Path(study) for study in studies]
    if len(paths) < 2:
        raise InputError(f"{len(paths)} study is given; give at least two to compare")
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a study is given twice; give each directory once")
    opened = [open_study(path) for path in paths]
    names = _names(opened)
    found = []
    for done, path in enumerate(paths):
        found.append(read_evidence(path))
        progress(done + 1, len(paths))
    notes = [f"{name}: {note}" for name, one in zip(names, found, strict=True) for note in one.notes]
    rows: list[dict[str, Any]] = []
    for name, study, evidence in list(zip(names, opened, found, strict=True))[1:]:
        layers = _common_layers((names[0], opened[0]), (name, study), notes)
        if study.settings.iou != opened[0].settings.iou:
            notes.append(
                f"{name} counts units above an IoU of {study.settings.iou:g} as interpretable, and {names[0]} above "
                f"{opened[0].settings.iou:g}, so that their counts cannot be compared directly."
            )
        paired = _share_dense(opened[0], study, layers)
        for layer in layers:
            for quantity in COMPARED:
                for row in _differences(found[0], evidence, layer, quantity, paired):
                    rows.append({"study": name, "reference": names[0], "layer": layer, "quantity": quantity} | row)
    curves = pd.concat(
        [one.curves.assign(study=name) for name, one in zip(names, found, strict=True)], ignore_index=True
    )
    curves = curves[["study", *curves.columns.drop("study")]]
    columns = [*("study", "reference", "layer", "quantity", "at", "position", "value", "reference_value")]
    columns += ["difference", "low", "high", "trials", "paired", "interval"]
    return Comparison(curves, pd.DataFrame(rows, columns=columns), tuple(notes))


def _names(studies: Sequence[StoredStudy]) -> list[str]:
    """Return names that tell studies apart: those of the recipes or, where two are equal, those of the folders."""
    names = [study.settings.name for study in studies]
    if len(set(names)) < len(names):
        names = [study.root.resolve().name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.root) for study in studies]


def _common_layers(one: tuple[str, StoredStudy], other: tuple[str, StoredStudy], notes: list[str]) -> list[str]:
    layers = [layer for layer in one[1].settings.layers if layer in other[1].settings.layers]
    if not layers:
        raise InputError(
            f"{one[0]} dissects {', '.join(one[1].settings.layers)}, and {other[0]} dissects "
            f"{', '.join(other[1].settings.layers)}; expected at least one layer in common"
        )
    left_out = [layer for layer in (*one[1].settings.layers, *other[1].settings.layers) if layer not in layers]
    if left_out:
        notes.append(f"The layers {', '.join(left_out)} are not compared, because {one[0]} or {other[0]} lacks them.")
    units = [dense_units(study) for study in (one[1], other[1])]
    for layer in layers:
        tables = [next((table for (_, of), table in each.items() if of == layer), None) for each in units]
        if tables[0] is not None and tables[1] is not None and (problem := other_numbers(tables[0], tables[1])):
            raise InputError(
                f"{one[0]} and {other[0]}, layer {layer}: {problem}. Compare studies that were dissected with the same "
                "labelled images"
            )
    return layers


def _share_dense(one: StoredStudy, other: StoredStudy, layers: Sequence[str]) -> bool:
    """Return whether two studies have the same dense networks, as far as their dissections show it."""
    first, second = dense_units(one), dense_units(other)
    common = [(trial, layer) for trial, layer in first if layer in layers and (trial, layer) in second]
    return bool(common) and all(
        first[key]["unit"].tolist() == second[key]["unit"].tolist()
        and np.array_equal(first[key]["iou"].to_numpy(), second[key]["iou"].to_numpy())
        for key in common
    )


def _differences(one: Evidence, other: Evidence, layer: str, quantity: str, paired: bool) -> list[dict[str, Any]]:
    """Return the rows of one layer and quantity."""
    first, second = (_Curves.of(evidence, layer, quantity) for evidence in (one, other))
    rows = []
    for weights in sorted({float(w) for w in first.levels}, reverse=True):
        rows.append(_row("weights_remaining", weights, first, second, paired))
    if quantity != "accuracy":
        dense = float(np.mean([accuracy[0] for accuracy in first.accuracy.values()]))
        rows += [_row("accuracy", dense - loss, first, second, paired) for loss in LOSSES if not np.isnan(dense)]
    return [row for row in rows if row is not None and not np.isnan(row["difference"])]


@dataclass(frozen=True)
class _Curves:
    """The curves of one quantity of one layer, by trial, from the most to the fewest weights remaining."""

    weights: Mapping[int, Array]
    accuracy: Mapping[int, Array]
    values: Mapping[int, Array]  # [levels, 1] or, for a single trial whose images were resampled, [levels, 1 + B]
    levels: Array  # the mean weights remaining of each level

    @classmethod
    def of(cls, evidence: Evidence, layer: str, quantity: str) -> _Curves:
        rows = evidence.curves[evidence.curves["layer"] == layer]
        weights, accuracy, values = {}, {}, {}
        for trial, of_trial in rows.groupby("trial", sort=True):
            line = of_trial.sort_values("weights_remaining", ascending=False, kind="stable")
            number = int(str(trial))
            weights[number] = line["weights_remaining"].to_numpy(np.float64)
            accuracy[number] = line["accuracy"].to_numpy(np.float64)
            columns = [line[quantity].to_numpy(np.float64)[:, None]]
            if quantity in evidence.replicates and rows["trial"].nunique() == 1:
                columns.append(evidence.replicates[quantity][line.index.to_numpy()])
            values[number] = np.concatenate(columns, axis=1)
        return cls(weights, accuracy, values, rows.groupby("level")["weights_remaining"].mean().to_numpy(np.float64))


def _row(at: str, position: float, first: _Curves, second: _Curves, paired: bool) -> dict[str, Any] | None:
    """Return the comparison at one point; None if a study does not reach it."""
    found = []
    for curves in (first, second):
        by_trial = {
            trial: _at(
                weights,
                curves.values[trial],
                position if at == "weights_remaining" else _last_crossing(weights, curves.accuracy[trial], position),
            )
            for trial, weights in curves.weights.items()
        }
        found.append({trial: value for trial, value in by_trial.items() if not np.isnan(value[0])})
    if paired:
        common = sorted(set(found[0]) & set(found[1]))
        found = [{trial: values[trial] for trial in common} for values in found]
    if not found[0] or not found[1]:
        return None
    means = [float(np.mean([value[0] for value in values.values()])) for values in found]
    low, high, interval = _interval(found[0], found[1], paired)
    return {
        "at": at, "position": position, "value": means[1], "reference_value": means[0],
        "difference": means[1] - means[0], "low": low, "high": high, "trials": min(len(found[0]), len(found[1])),
        "paired": paired, "interval": interval,
    }  # fmt: skip


def _interval(one: Mapping[int, Array], other: Mapping[int, Array], paired: bool) -> tuple[float, float, str]:
    first, second = (np.array([value[0] for value in values.values()]) for values in (one, other))
    if paired and len(first) > 1:
        return *t_interval(second - first), OVER_TRIALS
    if not paired and min(len(first), len(second)) > 1:
        from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

        if first.std() == second.std() == 0:
            return float(second[0] - first[0]), float(second[0] - first[0]), OVER_TRIALS
        low, high = CompareMeans(DescrStatsW(second), DescrStatsW(first)).tconfint_diff(usevar="unequal")
        return float(low), float(high), OVER_TRIALS
    replicates = [next(iter(values.values()))[1:] for values in (one, other)]
    if paired and len(first) == len(second) == 1 and 0 < len(replicates[0]) == len(replicates[1]):
        difference = replicates[1] - replicates[0]
        if not np.isnan(difference).any():
            low, high = np.quantile(difference, [0.025, 0.975])
            return float(low), float(high), OVER_IMAGES
    return float("nan"), float("nan"), ""


def _at(weights: Array, values: Array, target: float) -> Array:
    """Return the values, [columns], where `target` of the weights remain; NaN if the curve does not reach it."""
    known = ~np.isnan(values[:, 0])
    unknown = np.full(values.shape[1], np.nan)
    if np.isnan(target) or not known.any():
        return unknown
    x, y = np.log(weights[known])[::-1], values[known][::-1]
    at = np.log(target)
    if not x[0] - np.log(BEYOND) <= at <= x[-1] + np.log(BEYOND):
        return unknown
    right = int(np.clip(np.searchsorted(x, at), 1, max(1, len(x) - 1)))
    if len(x) == 1:
        only: Array = y[0]
        return only
    share = float(np.clip((at - x[right - 1]) / (x[right] - x[right - 1] or 1.0), 0, 1))
    found: Array = y[right - 1] * (1 - share) + y[right] * share
    return found


def _last_crossing(weights: Array, accuracy: Array, target: float) -> float:
    """Return the weights remaining at which the accuracy last falls below a target; NaN if it never does."""
    falls = np.flatnonzero((accuracy[:-1] >= target) & (accuracy[1:] < target))
    if not len(falls):
        return float("nan")
    last = int(falls[-1])
    share = (accuracy[last] - target) / (accuracy[last] - accuracy[last + 1])
    ends = np.log(weights[last : last + 2])
    return float(np.exp(ends[0] + share * (ends[1] - ends[0])))
