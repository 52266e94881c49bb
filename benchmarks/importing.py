"""Measure how fast annotations in COCO's format are imported, and whether the memory grows with their number.

    python benchmarks/importing.py [--images 20000] [--resize 224]

The benchmark draws JPEG files of 640 x 480 pixels with ten polygons each, like those of COCO, and imports a quarter of
them and then all of them. The memory is the highest resident size of the main process and of its workers, each import
in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prunescope import import_coco

DISTINCT = 64  # pictures; the others are copies of these under other names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--resize", type=int, default=224)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "images", options.images)
        for count in (options.images // 4, options.images):
            annotate(folder / f"instances_{count}.json", count)
            seconds, main_peak, worker_peak = alone(folder, count, options.resize)
            print(
                f"{count:6,} images: {count / seconds:6.1f} images a second, peak memory {main_peak} MiB in the main "
                f"process, {worker_peak} MiB in a worker",
                flush=True,
            )


def draw(folder: Path, count: int) -> None:
    """Write images with smooth structures and some noise, so that they take about as many bytes as photographs."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        file = folder / f"{index:06}.jpg"
        if index >= DISTINCT:
            file.hardlink_to(folder / f"{index % DISTINCT:06}.jpg")
            continue
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((640, 480))
        noise = random.normal(0, 8, (480, 640, 3))
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(file, quality=90)


def annotate(file: Path, count: int) -> None:
    """Write ten polygons of 20 corners for each image, in 80 categories."""
    random = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    annotations: list[dict[str, Any]] = []
    for image in range(count):
        for _ in range(10):
            x, y, size = random.uniform(0, 640), random.uniform(0, 480), random.uniform(10, 120)
            radius = size * random.uniform(0.6, 1, 20)
            points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).clip(0, (640, 480))
            annotations.append({
                "id": len(annotations), "image_id": image, "category_id": int(random.integers(80)), "iscrowd": 0,
                "segmentation": [points.round(2).ravel().tolist()],
            })  # fmt: skip
    images = [{"id": at, "file_name": f"{at:06}.jpg", "height": 480, "width": 640} for at in range(count)]
    categories = [{"id": at, "name": f"thing {at}"} for at in range(80)]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def alone(folder: Path, count: int, resize: int) -> tuple[float, int, int]:
    """Import in a new process; return the seconds and the peak memory of the process and of its workers in MiB."""
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    process = context.Process(target=_import, args=(folder, count, resize, found))
    process.start()
    result: tuple[float, int, int] = found.get()
    process.join()
    return result


def _import(folder: Path, count: int, resize: int, found: Any) -> None:
    began = time.perf_counter()
    import_coco(folder / "images", folder / f"instances_{count}.json", folder / f"out-{count}", resize=resize)
    seconds = time.perf_counter() - began
    peaks = (resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found.put((seconds, *peaks))


if __name__ == "__main__":
    main()
