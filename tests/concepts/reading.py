"""A second reader of Broden's format, written from its description alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def concepts_of(root: Path) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """Return for each image, by its name without folder and suffix, the pixels of each (category, concept), bool."""
    with (root / "label.csv").open(encoding="utf-8", newline="") as file:
        names = {int(line["number"]): line["name"] for line in csv.DictReader(file)}
    with (root / "category.csv").open(encoding="utf-8", newline="") as file:
        categories = [line["name"] for line in csv.DictReader(file)]
    found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    with (root / "index.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            picture = Image.open(root / "images" / line["image"])
            assert picture.size == (int(line["iw"]), int(line["ih"]))
            mine = found.setdefault(line["image"].removeprefix("pictures/").rsplit(".", 1)[0], {})
            for category in categories:
                for item in filter(None, line[category].split(";")):
                    numbers = np.full((int(line["sh"]), int(line["sw"])), int(item) if item.isdigit() else 0)
                    if not item.isdigit():
                        pixels = np.asarray(Image.open(root / "images" / item)).astype(int)
                        numbers = pixels[..., 0] + 256 * pixels[..., 1]
                    for number in set(numbers.ravel().tolist()) - {0}:
                        key = (category, names[number])
                        mine[key] = mine.get(key, np.zeros(numbers.shape, bool)) | (numbers == number)
    return found
