"""Measure the report page of a study of the paper's size, on simulated tables, maps and images.

Run it with `python benchmarks/report.py`, which takes a few minutes and 1 GB in a temporary folder. `--units`,
`--levels`, `--trials` and `--images` make it smaller. With Playwright installed and a Chromium on the path, it also
measures the page in the browser.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from prunescope.concepts.pixels import ImageLabels
from prunescope.report import write_report

SIZE = 224
CATEGORIES = ("object", "part", "material", "color")


@dataclass(frozen=True)
class Drawn:
    """Labelled images made of smooth colours, noise and boxes, so that a thumbnail has about the size of a photo's."""

    count: int
    concepts: int = 1000
    root: str = "simulated images"
    categories: tuple[str, ...] = CATEGORIES
    image_size: tuple[int, int] = (SIZE, SIZE)
    label_size: tuple[int, int] = (SIZE // 2, SIZE // 2)

    @property
    def names(self) -> list[str]:
        """Return a name for each image."""
        return [f"{image}.jpg" for image in range(self.count)]

    @property
    def labels(self) -> pd.DataFrame:
        """Return the concepts."""
        numbers = range(1, self.concepts + 1)
        categories = [CATEGORIES[number % len(CATEGORIES)] for number in numbers]
        return pd.DataFrame({"name": [f"concept {n}" for n in numbers], "category": categories}, index=numbers)

    def __len__(self) -> int:
        return self.count

    def image(self, i: int) -> np.ndarray:
        """Return an image."""
        random = np.random.default_rng(i)
        coarse = random.integers(0, 256, (28, 28, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        fine = random.integers(0, 30, (SIZE, SIZE, 1), dtype=np.uint8)
        return np.asarray(coarse // 2 + fine, np.uint8)

    def image_labels(self, i: int) -> ImageLabels:
        """Return the labels of an image."""
        random = np.random.default_rng(i)
        codes = random.integers(0, 20, (7, 7), dtype=np.uint16).repeat(16, 0).repeat(16, 1)
        numbers = random.choice(np.arange(1, self.concepts + 1), 20, replace=False).astype(np.int32)
        return ImageLabels(codes, np.arange(21, dtype=np.int32), numbers)


def write_simulated(root: Path, trials: int, levels: int, units: int, images: int, concepts: Drawn) -> None:
    """Write the tables, maps and pairs of a study in which units keep most of their images from level to level."""
    recipe = {
        "name": "simulated", "network": "simulated", "trials": trials,
        "pruning": {"levels": levels - 1, "fraction": 0.2}, "dissection": {"layers": ["layer4"], "iou": 0.05},
    }  # fmt: skip
    (root / "study.yaml").write_text(yaml.safe_dump(recipe))
    labels = concepts.labels
    for trial in range(trials):
        random = np.random.default_rng(trial)
        shown = random.integers(0, images, (units, 4))
        number = random.integers(1, concepts.concepts + 1, units)
        for level in range(levels):
            folder = root / f"trial-{trial}" / f"level-{level:02d}"
            out = folder / "dissection" / "layer4"
            out.mkdir(parents=True)
            changed = random.random(units) < 0.1
            number[changed] = random.integers(1, concepts.concepts + 1, changed.sum())
            other = random.random((units, 4)) < 0.2
            shown[other] = random.integers(0, images, other.sum())
            iou = random.beta(1.2, 12, units)
            kept = round(1000 * 0.8**level) / 1000
            measured = {"trial": trial, "level": level, "weights_remaining": kept, "kept": round(1000 * kept),
                        "prunable": 1000, "steps": 10, "top1": 0.7, "top5": 0.9, "loss": 1.0}  # fmt: skip
            (folder / "measured.json").write_text(json.dumps(measured))
            table = pd.DataFrame({
                "unit": np.arange(units), "label": labels["name"][number].to_numpy(),
                "category": labels["category"][number].to_numpy(), "iou": iou, "threshold": 1.5, "dead": False,
                "number": number, "precision": 0.2, "recall": 0.2, "iou_mirrored": iou / 2, "p": 0.01, "q": 0.02,
                "iou_low": 0.8 * iou, "iou_high": 1.2 * iou,
            })  # fmt: skip
            for category in CATEGORIES:
                is_it = table["category"] == category
                table[f"{category}-label"] = table["label"].where(is_it)
                table[f"{category}-iou"] = table["iou"].where(is_it, 0.0)
            table.to_parquet(out / "units.parquet", index=False)
            pairs = pd.DataFrame({"unit": np.arange(units).repeat(100), "number": random.integers(1, 1001, 100 * units),
                                  "iou": random.beta(1, 60, 100 * units)})  # fmt: skip
            pairs.to_parquet(out / "pairs.parquet", index=False)
            maps = np.maximum(random.normal(0.3, 1, (units, 4, 7, 7)), 0).astype(np.float32)
            save_file({"images": shown.astype(np.int64), "maps": maps, "units": np.arange(units)},
                      out / "examples.safetensors")  # fmt: skip
            settings = {"quantile": 0.005, "iou": 0.05, "presence": "image"}
            (out / "summary.json").write_text(json.dumps({"units": units, "settings": settings}))


def in_browser(page: Path) -> None:
    """Print how long the page takes in Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the browser was not measured: Playwright is not installed")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened: Any = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        opened.goto(page.as_uri())
        opened.wait_for_selector("html[data-ready]", state="attached")
        print(f"first screen: {time.perf_counter() - began:.2f} s (at most 2)")
        opened.goto(page.as_uri() + "#view=units")
        opened.wait_for_selector("tr[data-unit]")
        opened.wait_for_timeout(1000)
        settled = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        for name, action in {
            "sorting by concept": "[...document.querySelectorAll('th button')][1].click()",
            "searching": "(() => { const f = document.getElementById('find'); f.value = '12';"
            " f.dispatchEvent(new Event('input')); })()",
            "moving the slider by one level": "(() => { const s = document.getElementById('level');"
            " s.value = 3; s.dispatchEvent(new Event('input')); })()",
        }.items():
            script = f"(async () => {{ const t = performance.now(); {action}; await {settled}; "
            took = opened.evaluate(script + "return performance.now() - t; })()")
            print(f"{name}: {took:.0f} ms (at most 100)")
            opened.wait_for_timeout(500)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"trials": 3, "levels": 21, "units": 2048, "images": 30_000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, concepts = Path(folder), Drawn(given.images)
        write_simulated(root, given.trials, given.levels, given.units, given.images, concepts)
        began, processor = time.perf_counter(), time.process_time()
        shown = sys.stderr.isatty()
        page = write_report(
            root,
            concepts,
            progress=lambda done, of: print(f"\r{done} of {of}", end="", file=sys.stderr) if shown else None,
        )
        took, used = time.perf_counter() - began, time.process_time() - processor
        files = [path for path in (root / "report").rglob("*") if path.is_file()]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"writing: {took:.0f} s, {used:.0f} s of processor time (at most 180 s on two cores)")
        print(f"memory: {memory:.2f} GiB (at most 3)")
        for kind in ("units", "maps", "sheet", ""):
            size = sum(path.stat().st_size for path in files if path.name.startswith(kind))
            print(f"{kind or 'all'} files: {size / 1e6:.1f} MB{'' if kind else ' (at most 150)'}")
        in_browser(page)


if __name__ == "__main__":
    main()
