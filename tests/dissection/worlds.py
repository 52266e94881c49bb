"""Small random data sets in Broden's format, and activation maps with every corner in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "dissection"
CATEGORIES = ("color", "object", "part", "scene", "nowhere")
# Concept 5 is held by object and part, and covers most in part.
CONCEPTS = {
    1: ("color",),
    2: ("color",),
    3: ("object",),
    5: ("object", "part"),
    6: ("part",),
    8: ("scene",),
    9: ("nowhere",),
}
PRIMARY = {1: "color", 2: "color", 3: "object", 5: "part", 6: "part", 8: "scene", 9: "nowhere"}
PIXEL_LAYERS = {"color": (1, 2), "object": (3, 5), "part": (5, 6)}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class World:
    """`images` random labelled images; maps of `shape` for `units` units."""

    images: int
    units: int
    seed: int
    shape: tuple[int, int]
    label_size: tuple[int, int]

    @classmethod
    def strategy(cls) -> st.SearchStrategy[World]:
        """Any map and label size; where labels are 1, 2, 4 times as fine as maps, values may tie with thresholds."""
        side, finer = st.integers(1, 7), st.sampled_from([1, 2, 4])
        counts = {"images": st.integers(1, 5), "units": st.integers(1, 4), "seed": st.integers(0, 10**6)}
        tying = st.tuples(side, side, finer, finer).flatmap(
            lambda s: st.builds(cls, **counts, shape=st.just(s[:2]), label_size=st.just((s[0] * s[2], s[1] * s[3])))
        )
        return tying | st.builds(cls, **counts, shape=st.tuples(side, side), label_size=st.tuples(side, side))

    def stacks(self) -> list[dict[str, list[Array]]]:
        """Label layers of every image: none, one or two of a category, an image-level scene now and then."""
        random = np.random.default_rng(self.seed)
        stacks = []
        for _ in range(self.images):
            stack: dict[str, list[Array]] = {category: [] for category in CATEGORIES}
            for category, numbers in PIXEL_LAYERS.items():
                for _ in range(int(random.integers(0, 3))):
                    stack[category].append(random.choice((0, *numbers), self.label_size).astype(np.int64))
            if random.random() < 0.5:
                stack["scene"].append(np.full(self.label_size, 8))
            if not any(stack.values()):
                stack["color"].append(np.zeros(self.label_size, np.int64))
            stacks.append(stack)
        return stacks

    def primary(self) -> dict[int, str]:
        return PRIMARY

    def features(self, seed: int) -> Array:
        """Multiples of 1/4 where arithmetic on them is exact, so that values tie; unit 0 constant now and then."""
        random = np.random.default_rng(seed)
        shape = (self.images, self.units, *self.shape)
        exact = all(label / side in (1, 2, 4) for label, side in zip(self.label_size, self.shape, strict=True))
        maps = (random.integers(-4, 5, shape) / 4 if exact else random.normal(size=shape)).astype(np.float32)
        if random.random() < 0.3:
            maps[:, 0] = maps[0, 0, 0, 0]
        if random.random() < 0.3:
            maps = np.maximum(maps, 0)
        return maps


def write_world(world: World, folder: Path) -> Path:
    """Write a world in Broden's format."""
    (folder / "images").mkdir()
    sh, sw = world.label_size
    rows = ["image,split,ih,iw,sh,sw," + ",".join(CATEGORIES)]
    for number, stack in enumerate(world.stacks()):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        cells = []
        for category, layers in stack.items():
            items = []
            for place, layer in enumerate(layers):
                if category == "scene":
                    items.append("8")
                    continue
                pixels = np.stack([layer % 256, layer // 256, np.zeros_like(layer)], -1).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / f"{number}_{category}{place}.png")
                items.append(f"{number}_{category}{place}.png")
            cells.append(";".join(items))
        rows.append(f"{number}.png,train,8,8,{sh},{sw}," + ",".join(cells))
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    lines = [f"{name},1,9,1,1" for name in CATEGORIES]
    (folder / "category.csv").write_text("name,first,last,count,frequency\n" + "\n".join(lines) + "\n")
    lines = [f"{n},c{n},{';'.join(f'{c}(1)' for c in held)},1,1,\n" for n, held in CONCEPTS.items()]
    (folder / "label.csv").write_text("number,name,category,frequency,coverage,syns\n" + "".join(lines))
    for category in CATEGORIES:
        held = [(n, 2.0 if PRIMARY[n] == category else 1.0) for n, names in CONCEPTS.items() if category in names]
        lines = [f"{code},{n},c{n},1,{coverage}" for code, (n, coverage) in enumerate(held, 1)]
        (folder / f"c_{category}.csv").write_text("code,number,name,frequency,coverage\n" + "\n".join(lines) + "\n")
    return folder
