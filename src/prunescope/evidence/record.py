"""Write the evidence of a study: a table, and a JSON document with the same numbers and a summary over trials."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.evidence.tables import CONSISTENT, category_columns, gather
from prunescope.files import write_json, write_table
from prunescope.store.stored import StoredStudy, open_study
from prunescope.store.tables import missing_columns

OF_A_LEVEL = ("weights_remaining", "accuracy", "top5", "loss")
OF_A_LAYER = ("units", "dead", "interpretable", "concepts")
DISSECTED_WITH = ("quantile", "presence", "concepts")


def write_evidence(study_dir: str | Path) -> pd.DataFrame:
    """Write a study's ``evidence.csv`` and ``evidence.json``.

    The table contains `curves` in full precision. The document contains the settings, the same numbers by trial, level
    and layer, and for every level and layer the mean, minimum and maximum over the trials that have finished it. The
    same study always gives files with the same bytes.

    Parameters
    ----------
    study_dir : path
        A study's directory, finished or not.

    Returns
    -------
    DataFrame
        The table that `curves` returns.

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, or if a file of a level is damaged.
    """
    study = open_study(study_dir)
    table = gather(study)
    note = lacking(study)
    if note:
        warnings.warn(note, stacklevel=2)
    document = {
        "name": study.settings.name,
        "settings": _settings(study),
        **({"lacking": note} if note else {}),
        "missing": [{"trial": trial, "level": level} for trial, level in study.missing],
        "trials": [
            {"trial": int(str(trial)), "levels": _levels(rows)} for trial, rows in table.groupby("trial", sort=True)
        ],
        "summary": _summary(table),
    }
    write_table(study.root / "evidence.csv", table)
    write_json(study.root / "evidence.json", _without_nan(document))
    return table


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


def _settings(study: StoredStudy) -> dict[str, Any]:
    recipe = study.settings.model_dump(exclude={"name"}, mode="json")
    summary = study.summary(*study.finished[0], study.settings.layers[0])
    dissected = summary.get("settings", {})
    return {**recipe, "dissection": {key: dissected[key] for key in DISSECTED_WITH if key in dissected}}


def _levels(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the levels of one trial, each with the numbers of its layers."""
    categories = category_columns(rows)
    levels: dict[int, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        start = {"level": row["level"], **{name: row[name] for name in OF_A_LEVEL}, "layers": {}}
        level = levels.setdefault(row["level"], start)
        level["layers"][row["layer"]] = {
            **{name: row[name] for name in OF_A_LAYER},
            "by_category": {category: row[category] for category in categories},
            **{name: row[name] for name in CONSISTENT},
        }
    return list(levels.values())


def _summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the mean, minimum and maximum over trials for every level and layer."""
    entries = []
    for level in sorted(table["level"].unique()):
        for layer in table["layer"].unique():
            rows = table[(table["level"] == level) & (table["layer"] == layer)]
            spread = {name: _spread(rows[name]) for name in (*OF_A_LEVEL, *OF_A_LAYER, *CONSISTENT)}
            by_category = {category: _spread(rows[category]) for category in category_columns(table)}
            entries.append(
                {"level": int(level), "layer": layer, "trials": len(rows), **spread, "by_category": by_category}
            )
    return entries


def _spread(values: pd.Series[Any]) -> dict[str, float]:
    return {"mean": float(values.mean()), "min": values.min().item(), "max": values.max().item()}


def _without_nan(value: Any) -> Any:
    """Replace values that are not finite by None, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
