"""Write the evidence of a study as JSON documents, for programs that do not read its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prunescope.evidence.over_trials import value_columns
from prunescope.evidence.tables import ENDS, category_columns
from prunescope.evidence.verdict import Verdict
from prunescope.store.stored import StoredStudy

OF_A_LEVEL = ("weights_remaining", "accuracy", "top5", "loss")
DISSECTED_WITH = ("quantile", "presence", "concepts")


def evidence_document(study: StoredStudy, curves: pd.DataFrame, lacking: str = "") -> dict[str, Any]:
    """Return the settings of a study, its numbers by trial, level and layer, and their spread over the trials.

    `lacking` says what dissections of earlier versions lack; it is left out if it is empty.
    """
    document = {
        "name": study.settings.name,
        "settings": _settings(study),
        **({"lacking": lacking} if lacking else {}),
        "missing": [{"trial": trial, "level": level} for trial, level in study.missing],
        "trials": [
            {"trial": int(str(trial)), "levels": _levels(rows)} for trial, rows in curves.groupby("trial", sort=True)
        ],
        "summary": _summary(curves),
    }
    found: dict[str, Any] = _without_nan(document)
    return found


def verdict_document(verdict: Verdict | None, notes: Sequence[str]) -> dict[str, Any]:
    """Return a verdict with its tables, one mapping per row; its hypothesis is None if there is no verdict."""
    if verdict is None:
        return {"hypothesis": None, "notes": list(notes)}
    tables = {name: _records(getattr(verdict, name)) for name in ("hypotheses", "levels", "breaks")}
    document = {"hypothesis": verdict.hypothesis, "text": verdict.text, **tables, "notes": list(notes)}
    found: dict[str, Any] = _without_nan(document)
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return list(value)
        return None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value

    return [{str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _settings(study: StoredStudy) -> dict[str, Any]:
    recipe = study.settings.model_dump(exclude={"name"}, mode="json")
    summary = study.summary(*study.finished[0], study.settings.layers[0])
    dissected = summary.get("settings", {})
    return {**recipe, "dissection": {key: dissected[key] for key in DISSECTED_WITH if key in dissected}}


def _of_a_layer(table: pd.DataFrame) -> list[str]:
    """Return the numbers that each layer has, without those of the whole level and the counts by category."""
    apart = {*OF_A_LEVEL, *category_columns(table)}
    return [name for name in value_columns(table) if name not in apart]


def _levels(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the levels of one trial, each with the numbers of its layers."""
    categories, numbers = category_columns(rows), _of_a_layer(rows)
    intervals = [name for name in value_columns(rows) if f"{name}{ENDS[0]}" in rows.columns]
    levels: dict[int, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        start = {"level": row["level"], **{name: row[name] for name in OF_A_LEVEL}, "layers": {}}
        level = levels.setdefault(row["level"], start)
        level["layers"][row["layer"]] = {
            **{name: row[name] for name in numbers},
            "by_category": {category: row[category] for category in categories},
            **({"intervals": {name: [row[f"{name}{end}"] for end in ENDS] for name in intervals}} if intervals else {}),
        }
    return list(levels.values())


def _summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the mean, minimum and maximum over trials for every level and layer."""
    entries = []
    for level in sorted(table["level"].unique()):
        for layer in table["layer"].unique():
            rows = table[(table["level"] == level) & (table["layer"] == layer)]
            spread = {name: _spread(rows[name]) for name in (*OF_A_LEVEL, *_of_a_layer(table))}
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
