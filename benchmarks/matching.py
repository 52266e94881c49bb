"""Measure the cost of matching the units of two networks relative to the networks' own forward passes.

    python benchmarks/matching.py [--images 128] [--repeats 3] [--layer layer4]

Two ResNet-50s with random weights run over drawn images of 224 pixels. The baseline decodes the same images and runs
both networks on them. The two loops take turns in the same run, and the ratio is the median over the turns, so changes
in the speed of the machine affect it little. Two parts of the matching are timed by themselves: adding the maps of a
batch, which grows with the number of images, and the result (assignment and CKA), which is computed once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunescope.concepts import ConceptData, open_concepts
from prunescope.dissection import UnitMatcher, match_units
from prunescope.miniature import make_miniature
from prunescope.networks import build_network, observe
from prunescope.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD

BATCH = 16


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layer", default="layer4")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the random weights are intended
    models = [build_network("torchvision:resnet50", seed=seed).eval() for seed in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        data = open_concepts(make_miniature(Path(folder) / "data", options.images, seed=0, size=224))

        def matching() -> None:
            match_units(*models, layers=[options.layer], concepts=data, batch_size=BATCH, progress=False)

        def bare() -> None:
            forward(models, data)

        bare()
        times = [[seconds(action) for action in (bare, matching)] for _ in range(options.repeats)]
    ratio = statistics.median(ours / other for other, ours in times)
    other, ours = (statistics.median(column) for column in zip(*times, strict=True))
    threads = torch.get_num_threads()
    print(f"{options.images} images of 224 px, two ResNet-50s, {options.layer}, {threads} threads\n")
    print(f"{'match_units / both bare forward passes':42}{ours:8.2f} s / {other:8.2f} s = {ratio:.3f}")
    outputs = maps(models, options.layer)
    matcher = UnitMatcher()
    matcher.add(*outputs)
    adding = statistics.median(seconds(lambda: matcher.add(*outputs)) for _ in range(options.repeats))
    both = other * BATCH / options.images
    print(f"{'  adding a batch / both bare forward passes':42}{adding:8.2f} s / {both:8.2f} s = {adding / both:.3f}")
    result = statistics.median(seconds(matcher.result) for _ in range(options.repeats))
    print(f"{'  the result, once':42}{result:8.2f} s")


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def forward(models: list[nn.Module], data: ConceptData) -> None:
    """Run the baseline loop, which decodes images as matching does and runs only the forward passes."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        for first in range(0, len(data), BATCH):
            pixels = np.stack([data.image(i) for i in range(first, min(first + BATCH, len(data)))])
            images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
            for model in models:
                model(images)


def maps(models: list[nn.Module], layer: str) -> list[torch.Tensor]:
    """Return the maps of a layer of each network for a batch of random images."""
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = []
    with torch.inference_mode():
        for model in models:
            with observe(model, [layer], {layer: 1}) as outputs:
                model(images)
            found.append(outputs[layer])
    return found


if __name__ == "__main__":
    main()
