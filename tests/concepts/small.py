"""Small data sets in Broden's format, written for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Item = int | np.ndarray  # an image-level number, or a layer of numbers [sh, sw]


def save_layer(path: Path, numbers: np.ndarray, mode: str = "RGB") -> None:
    channels = [numbers % 256, numbers // 256, np.zeros_like(numbers), np.full_like(numbers, 7)][: len(mode)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


def write_concepts(
    root: Path,
    images: Sequence[Mapping[str, Sequence[Item]]],
    labels: Mapping[int, str],
    image_size: tuple[int, int] = (6, 8),
    label_size: tuple[int, int] = (3, 4),
) -> Path:
    """Write a data set: for each image the items by category, and the concepts' category cells by number."""
    names = list(dict.fromkeys(kind.split("(")[0] for cell in labels.values() for kind in cell.split(";")))
    lines = [f"image,split,ih,iw,sh,sw,{','.join(names)}"]
    rng = np.random.default_rng(0)
    for at, items in enumerate(images):
        picture = root / "images" / "made" / f"{at}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*image_size, 3), dtype=np.uint8)).save(picture)
        cells = []
        for name in names:
            cell = []
            for layer, item in enumerate(items.get(name, ())):
                if isinstance(item, int):
                    cell.append(str(item))
                else:
                    cell.append(f"made/{at}_{name}{layer}.png")
                    save_layer(root / "images" / cell[-1], item)
            cells.append(";".join(cell))
        split = "val" if at % 3 == 2 else "train"
        sizes = ",".join(map(str, (*image_size, *label_size)))
        lines.append(f"made/{at}.png,{split},{sizes},{','.join(cells)}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    (root / "category.csv").write_text("name,first,last,count,frequency\n" + "".join(f"{n},1,1,1,1\n" for n in names))
    rows = [f"{number},concept{number},{cell},1,1.0,\n" for number, cell in labels.items()]
    (root / "label.csv").write_text("number,name,category,frequency,coverage,syns\n" + "".join(rows))
    return root


def two_images(root: Path) -> Path:
    """Write two images of 6 x 8 pixels with labels of 3 x 4: objects drawn, a scene for all of an image, fabric."""
    thing = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 0, 300, 300]])
    return write_concepts(
        root,
        [{"object": [thing], "scene": [7]}, {"object": [thing.T.reshape(3, 4), 2 * (thing > 0)], "material": [thing]}],
        {1: "object(1)", 2: "object(2)", 7: "scene(1)", 300: "object(2);material(1)"},
    )


def change(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
