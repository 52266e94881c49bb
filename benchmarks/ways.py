"""Compare the cost of five studies that share their dense networks with that of five independent studies.

    python benchmarks/ways.py [--levels 2] [--trials 1] [--images 512]

The five studies retrain in different ways: rewinding, rewinding to step 0, fine-tuning, learning-rate rewinding, and
new random weights. Each runs a recipe of the package on drawn images, from the first step to the report. Each dense
network is trained once if the studies share it and five times otherwise, which is most of the work if there are few
levels.
Both variants run once. The sharing one runs first, so that the time to compile kernels counts against it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from prunescope import Study, studies

WAYS = ("rewinding", "original-ticket", "fine-tuning", "learning-rate-rewinding", "reinitialised")


def main() -> None:
    """Parse the options, run the measurements and print the results."""
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
        # A study that runs on its own has no other study to take masks from.
        "pruning.masks=own",
    ]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for study in studies(WAYS, Path(folder) / "together", changes=changes, device="cpu"):
            study.run(report=False)
        together = time.perf_counter() - began
        shared = dense_networks(Path(folder) / "together")
        began = time.perf_counter()
        for way in WAYS:
            Study(way, Path(folder) / "apart" / way, changes=changes, device="cpu").run(report=False)
        apart = time.perf_counter() - began
        alone = dense_networks(Path(folder) / "apart")
    print(f"{len(WAYS)} ways, {options.trials} trial(s), {options.levels} levels of pruning, {options.images} images")
    print(f"  sharing: {together:7.1f} s, {shared} dense networks trained")
    print(f"  apart:   {apart:7.1f} s, {alone} dense networks trained")
    print(f"  ratio:   {together / apart:7.3f}")


def dense_networks(root: Path) -> int:
    """Count the trained dense networks; a shared network is one file with several names and counts once."""
    return len({path.stat().st_ino for path in root.glob("*/trial-*/level-00/weights.safetensors")})


if __name__ == "__main__":
    main()
