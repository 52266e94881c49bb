"""Labels as Broden's format defines them, read slowly and plainly: what stands on which pixel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class PlainLabels(NamedTuple):
    """One image's labels: a mask [sh, sw] for each concept by number, and for each category by name."""

    concepts: dict[int, np.ndarray]
    categories: dict[str, np.ndarray]


def plain_labels(root: Path, i: int) -> PlainLabels:
    """Read the labels of image `i` of the index: a number is everywhere, a PNG has red + 256 x green, 0 is nothing."""
    with (root / "index.csv").open(encoding="utf-8-sig", newline="") as file:
        row = list(csv.DictReader(file))[i]
    with (root / "category.csv").open(encoding="utf-8-sig", newline="") as file:
        names = [line["name"] for line in csv.DictReader(file)]
    height, width = int(row["sh"]), int(row["sw"])
    concepts: dict[int, np.ndarray] = {}
    categories = {name: np.zeros((height, width), dtype=bool) for name in names}
    for name in names:
        for item in row[name].split(";"):
            if not item:
                continue
            if item.isdigit():
                numbers = np.full((height, width), int(item))
            else:
                pixels = np.asarray(Image.open(root / "images" / item)).astype(int)
                numbers = pixels[:, :, 0] + 256 * pixels[:, :, 1]
            for y in range(height):
                for x in range(width):
                    number = int(numbers[y, x])
                    if number:
                        concepts.setdefault(number, np.zeros((height, width), dtype=bool))[y, x] = True
                        categories[name][y, x] = True
    return PlainLabels(concepts, categories)
