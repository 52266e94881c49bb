"""What five ways to retrain cost as studies that share their dense networks, beside five studies on their own.

    python benchmarks/ways.py [--levels 2] [--trials 1] [--images 512]

Both run the package's recipes from the first step to the report: rewinding, to step 0 too, fine-tuning, learning-rate
rewinding, and new random weights, on drawn images. Each dense network is trained once where studies share, five times
where they do not; with few levels that is most of the work. One run each, the sharing one first, so that compiling
kernels counts against it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from prunescope.api import Study, several

WAYS = ("rewinding", "original-ticket", "fine-tuning", "learning-rate-rewinding", "reinitialised")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    changes = [
        f"pruning.levels={options.levels}",
        f"trials={options.trials}",
        f"data.task.miniature.images={options.images}",
        f"dissection.concepts.miniature.images={options.images // 4}",
        # On its own, it has nobody's masks to take.
        "pruning.masks=own",
    ]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for study in several(WAYS, Path(folder) / "together", changes=changes, device="cpu"):
            study.run()
        together = time.perf_counter() - began
        shared = dense_networks(Path(folder) / "together")
        began = time.perf_counter()
        for way in WAYS:
            Study(way, Path(folder) / "apart" / way, changes=changes, device="cpu").run()
        apart = time.perf_counter() - began
        alone = dense_networks(Path(folder) / "apart")
    print(f"{len(WAYS)} ways, {options.trials} trial(s), {options.levels} levels of pruning, {options.images} images")
    print(f"  sharing: {together:7.1f} s, {shared} dense networks trained")
    print(f"  apart:   {apart:7.1f} s, {alone} dense networks trained")
    print(f"  ratio:   {together / apart:7.3f}")


def dense_networks(root: Path) -> int:
    """Count the files that hold a trained dense network; those that are shared are one file by several names."""
    return len({path.stat().st_ino for path in root.glob("*/trial-*/level-00/weights.safetensors")})


if __name__ == "__main__":
    main()
