"""Measure how often the intervals over images cover the truth, and how wide they are, by drawing images again.

    python benchmarks/coverage.py STUDY [--levels 0 4 8] [--redraws 200] [--images 1024] [--pool 8192]

STUDY is the directory of a study of the miniature, such as the demo's. A pool of labelled images is drawn, which no
training has seen, and the study's networks at these levels are dissected with all of them: these numbers are the truth.
Then images are drawn from the pool at random, with replacement, again and again, as many as the study has. Each time,
the networks are dissected with these images alone, with thresholds of their own, and the 95 % intervals are computed
from the counts by block as for a study.

The table has, for each level and number, the truth and the mean over the redraws; the share of intervals that cover the
truth (0.90 to 0.99 is right) and the mean over the redraws; and the ratio of the mean width of the intervals to the
real spread, which is the distance between the 2.5th and the 97.5th percentile of the numbers over the redraws (at most
1.4 is right).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from prunescope import load
from prunescope.concepts.broden import open_concepts
from prunescope.concepts.in_memory import ArrayConcepts
from prunescope.dissection.resampling import NONE, block_weights, resample_units
from prunescope.dissection.run import dissect_activations
from prunescope.dissection.scores import block_pairs, interpretable
from prunescope.evidence.agreement import agreement, detected_concepts
from prunescope.miniature import make_miniature

POOL_SEED = 300  # the miniature's studies use 100 and 200
INTERVAL = ["iou", "iou_low", "iou_high"]


def main() -> None:
    """Parse the options, dissect the redraws and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 4, 8])
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--pool", type=int, default=8192)
    options = parser.parse_args()
    levels = sorted({0, *options.levels})
    study = load(options.study)
    layer = study.recipe.dissection.layers[0]
    with tempfile.TemporaryDirectory() as folder:
        data = open_concepts(make_miniature(Path(folder) / "pool", options.pool, seed=POOL_SEED))
        labels = [data.image_labels(i) for i in range(len(data))]
        images = np.stack([data.image(i) for i in range(len(data))])
    maps = {level: activation_maps(study.network(0, level), layer, images, study.recipe.data) for level in levels}
    everything = np.arange(len(data))
    numbers, dissections = measured(data, images, labels, maps, everything)
    truth = {name: values[0] for name, values in numbers.items()}
    random = np.random.default_rng(0)
    found: dict[tuple[int, str], list[np.ndarray]] = {name: [] for name in truth}
    units: dict[int, list[pd.DataFrame]] = {level: [] for level in levels}
    for redraw in range(options.redraws):
        drawn = random.integers(0, len(data), options.images)
        numbers, of_levels = measured(data, images, labels, maps, drawn)
        for level, one in of_levels.items():
            units[level].append(one.units[["unit", "number", *INTERVAL]])
        for name, values in numbers.items():
            found[name].append(np.array([values[0], *np.quantile(values[1:], [0.025, 0.975])]))
        print(f"\r{redraw + 1} of {options.redraws} redraws", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| level | number | truth | mean | covers truth | covers mean | width / spread |")
    print("| --- " * 7 + "|")
    for level in levels:
        print_row(level, "IoU of a unit", *of_single_units(dissections[level], pd.concat(units[level])))
        for name in (name for of, name in found if of == level):
            values, low, high = np.array(found[level, name]).T
            covers = [((low <= of) & (of <= high)).mean() for of in (truth[level, name], values.mean())]
            spread = np.diff(np.quantile(values, [0.025, 0.975]))[0]
            print_row(level, name, truth[level, name], values.mean(), *covers, (high - low).mean() / spread)


def print_row(level, name, truth, mean, covers_truth, covers_mean, ratio):
    """Print a row of the table."""
    print(f"| {level} | {name} | {truth:.3g} | {mean:.3g} | {covers_truth:.1%} | {covers_mean:.1%} | {ratio:.2f} |")


def of_single_units(pool, redrawn):
    """Return the cells of the row on IoUs, over all units that are interpretable with the whole pool.

    A unit's IoU is that of its concept, which may be another one in each redraw; the truth is the IoU of the same unit
    and concept with the whole pool. Widths and spreads are those of the units' concepts with the whole pool.
    """
    pairs, own = pool.pairs[["unit", "number", "iou"]], pool.units[["unit", "number"]][interpretable(pool.units)]
    rows = redrawn[redrawn["unit"].isin(own["unit"])].merge(
        pairs.rename(columns={"iou": "truth"}), on=["unit", "number"], how="left"
    )
    rows["truth"], rows["mean"] = rows["truth"].fillna(0), rows.groupby(["unit", "number"])["iou"].transform("mean")
    covers = [rows[name].between(rows["iou_low"], rows["iou_high"]).mean() for name in ("truth", "mean")]
    same = rows.merge(own, on=["unit", "number"])
    often = same[same.groupby("unit")["iou"].transform("size") >= len(redrawn) / redrawn["unit"].nunique() / 2]
    spread = often.groupby("unit")["iou"].quantile([0.025, 0.975]).unstack().diff(axis=1).iloc[:, 1].mean()
    width = (often["iou_high"] - often["iou_low"]).groupby(often["unit"]).mean().mean()
    return rows["truth"].mean(), rows["iou"].mean(), *covers, width / spread


def activation_maps(model, layer, images, settings):
    """Return float32 [images, units, h, w]: the layer's output for the images, normalised as in the study."""
    kept = []
    model.eval().get_submodule(layer).register_forward_hook(lambda *given: kept.append(given[2].clone()))
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    with torch.no_grad():
        for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(256):
            model((part / 255 - mean) / std)
    return torch.cat(kept).numpy()


def measured(data, images, labels, maps, drawn):
    """Dissect the networks with the drawn images.

    Returns
    -------
    numbers
        For each level and name: [1 + resamples], the number with these images, and in each resample of their blocks.
    dissections
        The dissection of each level.
    """
    redrawn = ArrayConcepts(
        root="redrawn images",
        categories=data.categories,
        names=tuple(map(str, range(len(drawn)))),
        image_size=data.image_size,
        label_size=data.label_size,
        labels=data.labels,
        images=tuple(images[drawn]),
        labels_of_images=tuple(labels[i] for i in drawn),
        labelled=data.labelled[drawn],
    )
    numbers, dissections, dense = {}, {}, None
    for level, of_level in maps.items():
        found = dissect_activations(of_level[drawn], concepts=redrawn, chance=0, progress=False)
        dissections[level] = found
        detected, concepts = detections(found, data)
        dense = detected if dense is None else dense
        compared = agreement(dense, detected, concepts)
        counts = (detected != NONE).sum(axis=1)
        numbers[level, "interpretable"] = counts
        numbers[level, "concepts"] = detected_concepts(detected, concepts).sum(axis=1)
        if level > 0:
            numbers[level, "change of interpretable"] = counts - (dense != NONE).sum(axis=1)
            numbers[level, "still_interpretable"] = compared.still_interpretable
            numbers[level, "same_concept"] = compared.same_concept
    return numbers, dissections


def detections(found, data):
    """Return int [1 + resamples, units]: the concept that each unit detects with all images and in each resample."""
    tally, units = found.tally, found.units
    primary = np.array([data.categories.index(name) for name in data.labels["category"]])
    pairs = block_pairs(tally, {unit: unit for unit in range(len(units))}, primary)
    blocks = len(tally["block_truth"])
    weights = np.concatenate([np.ones((1, blocks), np.int64), block_weights(blocks)])
    return resample_units(pairs, weights).detected, len(data.labels)


if __name__ == "__main__":
    main()
