"""A study with known content, written file by file: what the tests of evidence and report read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

SCRIPT = "<script>alert(1)</script>"
CATEGORIES = ("color", "object", "scene")
# By trial and level: a row per unit of (label, category, iou); None is a unit that meets no concept and is dead.
Row = tuple[str, str, float] | None
# A place in a list of rows where the unit was removed with its filter.
GONE: Row = ("gone", "", -1.0)
UNITS: dict[tuple[int, int], list[Row]] = {
    (0, 0): [
        ("dog", "object", 0.30),
        ("dog", "object", 0.20),
        ("red", "color", 0.10),
        (SCRIPT, "object", 0.08),
        ("street", "scene", 0.05),
        ("sky", "object", 0.01),
        None,
        ("street", "scene", 0.40),
    ],
    (0, 1): [
        ("dog", "object", 0.31),
        ("cat", "object", 0.20),
        ("red", "color", 0.04),
        (SCRIPT, "object", 0.09),
        ("street", "scene", 0.06),
        ("sky", "object", 0.02),
        None,
        ("street", "scene", 0.30),
    ],
    (0, 2): [
        ("red", "color", 0.02),
        ("cat", "object", 0.06),
        None,
        None,
        ("street", "scene", 0.01),
        None,
        None,
        None,
    ],
    (1, 0): [None, None, ("sky", "object", 0.04), None, None, None, None, ("red", "color", 0.01)],
    (1, 1): [("dog", "object", 0.5), None, None, None, None, None, None, None],
    (1, 2): [None, None, None, None, None, None, None, None],
}


def units_table(rows: Sequence[Row]) -> pd.DataFrame:
    """A dissection's table with the given best concepts; a unit's number is its place."""
    units = [unit for unit, row in enumerate(rows) if row is not GONE]
    rows = [rows[unit] for unit in units]
    columns: dict[str, list[object]] = {
        "unit": list(units),
        "label": [row and row[0] for row in rows],
        "category": [row and row[1] for row in rows],
        "iou": [row[2] if row else 0.0 for row in rows],
        "threshold": [0.5] * len(rows),
        "dead": [row is None for row in rows],
    }
    for category in CATEGORIES:
        columns[f"{category}-label"] = [row[0] if row and row[1] == category else None for row in rows]
        columns[f"{category}-iou"] = [row[2] if row and row[1] == category else 0.0 for row in rows]
    return pd.DataFrame(columns)


def write_level(
    root: Path, trial: int, level: int, rows: Sequence[Row], layers: Sequence[str], images: int = 6, seed: int = 0
) -> None:
    """Write one finished level: measurements, tables, and four example images of every unit that is not dead."""
    folder = root / f"trial-{trial}" / f"level-{level:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    measured = {
        "trial": trial,
        "level": level,
        "weights_remaining": 0.5**level,
        "kept": 1000 // 2**level,
        "prunable": 1000,
        "steps": 10,
        "top1": 0.9 - 0.1 * level - 0.01 * trial,
        "top5": 0.99,
        "loss": 0.4 + level,
    }
    (folder / "measured.json").write_text(json.dumps(measured))
    random = np.random.default_rng([seed, trial, level])
    table = units_table(rows)
    units, rows = table["unit"].to_numpy(np.int64), [row for row in rows if row is not GONE]
    for layer in layers:
        dissection = folder / "dissection" / layer
        dissection.mkdir(parents=True)
        table.to_parquet(dissection / "units.parquet", index=False)
        shown = random.integers(0, images, (len(rows), 4))
        shown[[row is None for row in rows]] = -1
        maps = random.uniform(0, 1, (len(rows), 4, 3, 5)).astype(np.float32)
        examples = {"images": shown.astype(np.int64), "maps": maps, "units": units}
        save_file(examples, dissection / "examples.safetensors")
        settings = {"quantile": 0.005, "iou": 0.05, "presence": "image", "concepts": "concepts"}
        (dissection / "summary.json").write_text(json.dumps({"units": len(rows), "settings": settings}))


def write_study(
    root: Path,
    units: dict[tuple[int, int], list[Row]] | None = None,
    *,
    trials: int = 2,
    levels: int = 2,
    layers: Sequence[str] = ("layer4",),
    pruning: dict[str, object] | None = None,
) -> Path:
    """Write a study: by default two trials, three levels and eight units."""
    root.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": "tiny",
        "network": "prunescope:resnet8x8",
        "trials": trials,
        "pruning": {"levels": levels, "fraction": 0.5} if pruning is None else pruning,
        "dissection": {"layers": list(layers), "iou": 0.05, "quantile": 0.005},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(recipe))
    for (trial, level), rows in (UNITS if units is None else units).items():
        write_level(root, trial, level, rows, layers)
    return root
