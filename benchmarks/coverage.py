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
import torch

from prunescope import load
from prunescope.concepts.broden import open_concepts
from prunescope.concepts.in_memory import ArrayConcepts
from prunescope.dissection.resampling import NONE, block_weights, resample_units
from prunescope.dissection.run import dissect_activations
from prunescope.dissection.scores import block_pairs
from prunescope.evidence.agreement import agreement, detected_concepts
from prunescope.miniature import make_miniature

POOL_SEED = 300  # the miniature's studies use 100 and 200
NAMES = ("interpretable", "concepts", "change of interpretable", "still_interpretable", "same_concept")


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
    truth = {name: values[0] for name, values in measured(data, images, labels, maps, everything).items()}
    random = np.random.default_rng(0)
    found: dict[tuple[int, str], list[np.ndarray]] = {name: [] for name in truth}
    for redraw in range(options.redraws):
        drawn = random.integers(0, len(data), options.images)
        for name, values in measured(data, images, labels, maps, drawn).items():
            found[name].append(np.array([values[0], *np.quantile(values[1:], [0.025, 0.975])]))
        print(f"\r{redraw + 1} of {options.redraws} redraws", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| level | number | truth | mean | covers truth | covers mean | width / spread |")
    print("| --- " * 7 + "|")
    for (level, name), rows in found.items():
        values, low, high = np.array(rows).T
        spread = np.diff(np.quantile(values, [0.025, 0.975]))[0]
        covers = [((low <= of) & (of <= high)).mean() for of in (truth[level, name], values.mean())]
        cells = [f"{truth[level, name]:.3g}", f"{values.mean():.3g}", *(f"{share:.1%}" for share in covers)]
        print(f"| {level} | {name} | " + " | ".join(cells) + f" | {(high - low).mean() / spread:.2f} |")


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
    """Return the numbers of each level with the drawn images, and in each resample of their blocks, [1 + resamples]."""
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
    numbers, dense = {}, None
    for level, of_level in maps.items():
        found = dissect_activations(of_level[drawn], concepts=redrawn, chance=0, progress=False)
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
    return numbers


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
