"""Measure the cost of verifying the checksums of a packed copy of concepts.

    python benchmarks/packed.py [--images 512] [--repeats 5]

The benchmark reads the images (224 x 224 pixels) and labels (112 x 112) of a packed copy of the miniature, which is in
the page cache after the first turn. The checksum of an image or its labels is verified only when they are read for the
first time after the copy was opened. Therefore, each turn opens the copy and times a first and a second pass through
it. Every image is copied in memory, which any use of it would do at least. The last column of the output shows the rate
without a packed copy.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prunescope.concepts import ConceptData, open_concepts, pack_concepts
from prunescope.miniature import make_miniature


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = make_miniature(Path(folder) / "data", options.images, seed=0, size=224)
        pack_concepts(root)
        print(f"{options.images} images, medians of {options.repeats}\n")
        print(
            "| a second | first read, with checksum | read again | from PNG and JPEG files |\n| --- | --- | --- | --- |"
        )
        for name, read in {"images": read_images, "labels": read_labels}.items():
            print(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates(root, read, options.repeats)) + " |")


def read_images(data: ConceptData) -> None:
    """Read all images and copy them in memory."""
    for i in range(len(data)):
        data.image(i).copy()


def read_labels(data: ConceptData) -> None:
    """Read all labels."""
    for i in range(len(data)):
        data.image_labels(i).codes.max()


def rates(root: Path, read: Callable[[ConceptData], None], repeats: int) -> list[float]:
    """Return the reads per second of the first pass, of the second pass and without a packed copy."""
    times: list[list[float]] = []
    for _ in range(repeats + 1):
        data = open_concepts(root)
        passes = [data, data] if times else [data, data, dataclasses.replace(data, packed=None)]
        found = []
        for one in passes:
            began = time.perf_counter()
            read(one)
            found.append(time.perf_counter() - began)
        times.append(found)
    # The first turn only fills the page cache. The original files are read in it alone, because they are slow to read.
    medians = [statistics.median(turn[at] for turn in times[1:]) for at in range(2)]
    return [len(data) / seconds for seconds in (*medians, times[0][2])]


if __name__ == "__main__":
    main()
