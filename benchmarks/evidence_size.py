"""Measure time and memory of the evidence of a large study, on simulated counts.

    python benchmarks/evidence_size.py [DIR] [--trials 3] [--levels 21] [--units 2048] [--concepts 1197]

The study is written to DIR, unless it is there already, and its evidence is computed in a process of its own, with a
progress bar if standard error is a terminal. By default, the study has the size of the paper's: three trials with 21
levels of ResNet-18's or ResNet-50's last layer, the concepts of Broden, 32 blocks of images and 20 permutations. Every
level has predictions for 50,000 validation images of 1,000 classes. Without DIR, a temporary folder is used.

Masks have half a percent of 790 million labelled pixels, as with 63,305 images of 112 x 112. Every unit has 300
concepts in common with its masks, and detects one of them, the better the higher a random number of its own is and the
earlier the level. About 25 concepts of a unit have an IoU above 0.01.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from prunescope.dissection.resampling import block_weights, resample_units
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import (
    block_pairs,
    pair_scores,
    resampled_columns,
    summarise,
    tally_arrays,
    unit_scores,
)
from prunescope.dissection.tally import Tally

BLOCKS, PERMUTATIONS = 32, 20
PIXELS, MASKED = 790_000_000, 0.005
MET = 300  # concepts that have pixels in common with a unit's masks
SHARES = {"color": 0.01, "material": 0.03, "object": 0.42, "part": 0.18, "scene": 0.36}
IMAGES, CLASSES = 50_000, 1000
LAYER = "layer4"
CHILD = """
import sys
from prunescope.evidence import write_evidence
from prunescope.progress import shown_progress
with shown_progress("auto", "evidence") as progress:
    write_evidence(sys.argv[1], progress)
"""


def main() -> None:
    """Parse the options, write the study and measure its evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--levels", type=int, default=21, help="including level 0")
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--concepts", type=int, default=1197)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.directory or Path(temporary) / "study"
        if not (root / "study.yaml").is_file():
            write_study(root, options.trials, options.levels, options.units, options.concepts)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", CHILD, str(root)], check=True)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{seconds:.0f} s (at most 180), {used.ru_utime + used.ru_stime:.0f} s of processor time, "
        f"{used.ru_maxrss / 2**20:.2f} GiB (at most 4)"
    )


def write_study(root, trials, levels, units, concepts):
    """Write a study with simulated counts; study.yaml comes last, so that an interrupted study is written again."""
    labels = simulated_labels(concepts)
    truth = simulated_truth(labels, np.random.default_rng(0))
    for trial in range(trials):
        for level in range(levels):
            folder = root / f"trial-{trial}" / f"level-{level:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            predictions = simulated_predictions(trial, level)
            predictions.to_parquet(folder / "predictions.parquet", index=False)
            right = float((predictions["class"] == predictions["predicted"]).mean())
            measured = {"trial": trial, "level": level, "weights_remaining": 0.8**level, "top1": right, "loss": 1.0}
            (folder / "measured.json").write_text(json.dumps(measured))
            tally = simulated_tally(labels, truth, units, trial, level)
            simulated_dissection(tally, labels, trial, level).save(folder / "dissection", replace=True)
            print(f"\rwritten: trial {trial}, level {level}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    recipe = {"name": "simulated", "network": "torchvision:resnet50", "trials": trials}
    recipe |= {"pruning": {"levels": levels - 1, "fraction": 0.2}, "dissection": {"layers": [LAYER], "iou": 0.05}}
    (root / "study.yaml").write_text(yaml.safe_dump(recipe))


def simulated_labels(concepts):
    """Return the concepts by number, with their names and categories."""
    ends = np.round(np.cumsum(list(SHARES.values())) * concepts).astype(int)
    categories = np.repeat(list(SHARES), np.diff(ends, prepend=0))
    names = [f"concept {number}" for number in range(1, concepts + 1)]
    return pd.DataFrame({"name": names, "category": categories}, index=pd.RangeIndex(1, concepts + 1, name="number"))


def simulated_truth(labels, random):
    """Return int64 [blocks, concepts]: the pixels of each concept, from a hundred thousandth of all to a tenth."""
    share = 10 ** random.uniform(-5, -1, len(labels)) / BLOCKS
    return (PIXELS * share * random.lognormal(0, 0.2, (BLOCKS, len(labels)))).astype(np.int64)


def simulated_tally(labels, truth, units, trial, level):
    """Return the counts of one level, whose units detect their concepts less well the later the level is."""
    of_trial, of_level = np.random.default_rng([trial]), np.random.default_rng([trial, level])
    area = (PIXELS * MASKED / BLOCKS * of_level.lognormal(0, 0.2, (BLOCKS, units))).astype(np.int64)
    activation = (area[:, :, None] * of_trial.uniform(0.4, 1, len(SHARES))).astype(np.int64)
    strength = of_trial.uniform(0, 0.5, units) * (1 - level / 40)
    intersect = np.zeros((BLOCKS, units, len(labels)), np.int32)
    primary = np.searchsorted(np.unique(labels["category"]), labels["category"])
    for unit in range(units):
        met = of_trial.choice(len(labels), min(MET, len(labels)), replace=False)
        share = of_trial.lognormal(-4.5, 1.2, len(met)) * of_level.lognormal(0, 0.2, len(met))
        share[0] += strength[unit] * of_level.lognormal(0, 0.1)
        most = np.minimum(activation[:, unit, primary[met]], truth[:, met])
        noise = of_level.lognormal(0, 0.3, most.shape)
        intersect[:, unit, met] = np.minimum(most, most * share * noise)
    return Tally(truth, intersect, activation, area)


def simulated_dissection(tally, labels, trial, level):
    """Return what a dissection stores for these counts, with random values for what is compared with chance."""
    random = np.random.default_rng([trial, level, 1])
    units, categories = tally.area.shape[1], tuple(SHARES)
    pairs = pair_scores(tally.total(), labels, categories)
    known = pd.DataFrame({"unit": np.arange(units), "threshold": 0.5, "dead": np.zeros(units, bool)})
    table = unit_scores(pairs, known, categories)
    arrays = tally_arrays(tally, labels, pairs) | {
        "chance_iou": random.uniform(0, 0.06, (PERMUTATIONS, units)),
        "chance_concept": random.integers(1, len(labels) + 1, (PERMUTATIONS, units)).astype(np.int32),
    }
    rows, primary = {unit: unit for unit in range(units)}, labels["category"].map(categories.index).to_numpy()
    found = resample_units(block_pairs(arrays, rows, primary), block_weights(BLOCKS))
    q = random.uniform(0, 0.1, units)
    table = table.assign(shrinkage=0.0, iou_mirrored=random.uniform(0, 0.1, units), p=q / 2, q=q)
    table = table.assign(**resampled_columns(found, arrays["numbers"]))
    summary = summarise(table, categories, 0.05, {"layer": LAYER, "trial": trial, "level": level})
    return LayerDissection(LAYER, table, pairs, summary, arrays)


def simulated_predictions(trial, level):
    """Return predictions for the validation images, of which a quarter and later more are wrong."""
    random = np.random.default_rng([trial, level, 2])
    wrong = random.uniform(size=IMAGES) < 0.25 + 0.01 * level
    classes = np.arange(IMAGES) % CLASSES
    predicted = np.where(wrong, (classes + 1 + random.integers(0, CLASSES - 1, IMAGES)) % CLASSES, classes)
    columns = {"image": np.arange(IMAGES), "class": classes, "predicted": predicted}
    return pd.DataFrame({name: column.astype(np.int32) for name, column in columns.items()}).assign(
        probability=random.uniform(0, 1, IMAGES).astype(np.float32)
    )


if __name__ == "__main__":
    main()
