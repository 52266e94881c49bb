"""Labels as Broden's format defines them, read slowly and plainly: what stands on which pixel."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def plain_labels(root: Path, i: int) -> dict[int, np.ndarray]:
    """Read the labels of image `i` of the index as a mask [sh, sw] for each concept by number.

    A number is everywhere, a PNG has red + 256 x green, 0 is nothing.
    """
    with (root / "index.csv").open(encoding="utf-8-sig", newline="") as file:
        row = list(csv.DictReader(file))[i]
    with (root / "category.csv").open(encoding="utf-8-sig", newline="") as file:
        names = [line["name"] for line in csv.DictReader(file)]
    height, width = int(row["sh"]), int(row["sw"])
    concepts: dict[int, np.ndarray] = {}
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
    return concepts
