"""A small study whose dissections have stored counts by block of images, written without any network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import pair_scores, summarise, tally_arrays, unit_scores
from prunescope.dissection.tally import Tally

CATEGORIES = ("object", "scene")
LABELS = pd.DataFrame(
    {"name": [f"c{n}" for n in range(1, 9)], "category": ["object"] * 5 + ["scene"] * 3},
    index=pd.RangeIndex(1, 9, name="number"),
)


def random_tally(seed: Sequence[int], units: int, blocks: int, strength: float = 1.0) -> Tally:
    """Counts of units that each detect one concept, the more so the stronger they are; labels do not depend on them."""
    labels, masks = np.random.default_rng(99), np.random.default_rng(list(seed))
    truth = labels.integers(200, 800, (blocks, len(LABELS)))
    area = masks.integers(300, 500, (blocks, units))
    activation = (area[:, :, None] * [0.9, 0.8]).astype(np.int64)
    best = np.random.default_rng(7).integers(0, len(LABELS), units)
    share = masks.uniform(0, 0.08, (blocks, units, len(LABELS)))
    share[:, np.arange(units), best] += strength * np.linspace(0, 0.6, units) * masks.uniform(0.5, 1.5, (blocks, units))
    most = np.minimum(activation[:, :, (LABELS["category"] == "scene").astype(int)], truth[:, None, :])
    return Tally(truth, np.minimum(most * share, most).astype(np.int32), activation, area)


def dissection(tally: Tally, layer: str, settings: dict[str, Any]) -> LayerDissection:
    pairs = pair_scores(tally.total(), LABELS, CATEGORIES)
    count = tally.intersect.shape[1]
    known = pd.DataFrame({"unit": np.arange(count), "threshold": 0.5, "dead": np.zeros(count, bool)})
    units = unit_scores(pairs, known, CATEGORIES)
    summary = summarise(units, CATEGORIES, 0.05, {"layer": layer, **settings})
    return LayerDissection(layer, units, pairs, summary, tally_arrays(tally, LABELS, pairs))


def write_counted(
    root: Path, *, trials: int = 1, levels: int = 2, units: int = 12, layers: Sequence[str] = ("late",),
    accuracy: bool = True, strengths: Sequence[float] = (1.0, 1.0, 0.9, 0.3),
) -> Path:  # fmt: skip
    """Write a study with `levels` pruned levels."""
    root.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": root.name,
        "network": "prunescope:resnet8x8",
        "trials": trials,
        "pruning": {"levels": levels, "fraction": 0.5},
        "dissection": {"layers": list(layers), "iou": 0.05},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(recipe))
    for trial in range(trials):
        for level in range(levels + 1):
            folder = root / f"trial-{trial}" / f"level-{level:02d}"
            folder.mkdir(parents=True)
            measured: dict[str, Any] = {"trial": trial, "level": level, "weights_remaining": 0.5**level}
            measured |= {"top1": 0.9 - 0.002 * level**2, "loss": 0.5} if accuracy else {}
            (folder / "measured.json").write_text(json.dumps(measured))
            for layer in layers:
                tally = random_tally([trial, level, len(layer)], units, 8, strengths[level])
                dissection(tally, layer, {"trial": trial, "level": level}).save(folder / "dissection")
    return root
