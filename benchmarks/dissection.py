"""Measure the cost of dissection relative to the network's own forward pass.

    python benchmarks/dissection.py [--images 256] [--repeats 3] [--quick]
    python benchmarks/dissection.py --chance 20 [--images 256] [--repeats 3]
    python benchmarks/dissection.py --gpu

Each row compares two loops that take turns in the same run. The ratio is the median over the turns of one loop's time
divided by the time of the other loop in the same turn, so changes in the speed of the machine affect it little. The
benchmark draws its own images in Broden's format (224 pixels, labels at 112 pixels, five label layers), and the network
has random weights.

With `--chance R`, only the cost of R permutations of the labels is measured: in time from a packed copy, and in memory
for the units of layer4 and the number of concepts of Broden.

With `--gpu`, the rows are measured on the GPU: dissection from a packed copy to the finished table, compared with the
forward pass on a batch that is already on the GPU.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from prunescope.concepts import ConceptData, open_concepts, pack_concepts
from prunescope.dissection import Budget, dissect, dissect_activations
from prunescope.dissection.arrangement import BLOCKS
from prunescope.dissection.batches import batches
from prunescope.dissection.forward import arithmetic
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import half_pixel_axis
from prunescope.dissection.settings import Precision
from prunescope.dissection.tally import MaskBatch, MaskTallyOnCpu, empty_counts
from prunescope.dissection.thresholds import LargestValues
from prunescope.dissection.workers import Workers
from prunescope.miniature import make_miniature
from prunescope.networks import build_network, observe
from prunescope.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD

LAYERS = ("layer1", "layer2", "layer3", "layer4")
BRODEN = 63_305
BRODEN_CONCEPTS = 1_197
BATCH = 16
GPU_BATCH = 256
GPU_IMAGES = 1 << 15


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, for a look")
    parser.add_argument("--chance", type=int, help="measure the cost of this many permutations of the labels only")
    parser.add_argument("--gpu", action="store_true", help="measure on the GPU instead")
    parser.add_argument("--memory", type=int, help="(internal) measure peak memory with this many images")
    parser.add_argument("--concepts", type=int, help="(internal) measure peak memory with this many concepts")
    options = parser.parse_args()
    if options.concepts is not None:
        print_peak_of_counts(options.concepts, options.chance)
        return
    if options.memory is not None:
        print_peak(options.memory)
        return
    if options.gpu:
        on_gpu(GPU_IMAGES)
        return
    images = 32 if options.quick else options.images
    repeats = 1 if options.quick else options.repeats
    torch.manual_seed(0)
    if options.chance is not None:
        print_chance(images, repeats, options.chance)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = open_concepts(draw(Path(folder) / "data", images))
        model = build_network("torchvision:resnet50", seed=0).eval()
        print(f"{images} images of 224 px, ResNet-50, {torch.get_num_threads()} threads, medians of {repeats}\n")
        bare, layer4 = turns(repeats, lambda: forward(model, data), lambda: run(model, data, LAYERS[3:]))
        print_row("layer4, decode to finished table / bare forward", layer4, bare, 1.08)
        four, bare_again = turns(repeats, lambda: run(model, data, LAYERS), lambda: forward(model, data))
        print_row("layer1 to layer4 at once / bare forward", four, bare_again, 1.4)
        ours, plain = tally_alone(data, repeats)
        print_row("tally of a kept map / the plain torch way", ours, plain, 1 / 12, unit="us")
        one, two, beside = scaling(data, repeats)
        print_row("two processes of one thread / one of one thread", [two], [one], 0.6)
        print(f"{'  two that share nothing, at the same time / one':58}", end="")
        print(f"{beside:8.2f} s / {one:8.2f} s = {beside / one:6.3f}   (half of it: {beside / one / 2:.3f})")
        print_memory(256 if not options.quick else 32, 2048 if not options.quick else 64)
        per_image = statistics.median(layer4) / images
        hours = per_image * BRODEN / 3600
        print(f"\nBroden's {BRODEN:,} images on this machine, from these parts:")
        print(f"  layer4: {hours:.1f} h ({per_image:.3f} s an image)")
        print_broden(model, data)


def draw(folder: Path, images: int) -> Path:
    """Draw a data set with the sizes of Broden: the miniature at 224 pixels, with labels resized to 112 pixels."""
    make_miniature(folder, images, seed=0, size=224)
    for file in (folder / "images").glob("*_*.png"):
        with Image.open(file) as labels:
            half = labels.resize((112, 112), Image.Resampling.NEAREST)
        half.save(file)
    index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)
    index.assign(sh="112", sw="112").to_csv(folder / "index.csv", index=False)
    return folder


def forward(model: nn.Module, data: ConceptData) -> None:
    """Run the baseline loop, which decodes images as dissection does and runs only the forward pass."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        for first in range(0, len(data), BATCH):
            pixels = np.stack([data.image(i) for i in range(first, min(first + BATCH, len(data)))])
            model((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std)


def run(model: nn.Module, data: ConceptData, layers: Sequence[str]) -> None:
    """Run a dissection, from decoding the images to the finished table."""
    dissect(model, layers=layers, concepts=data, batch_size=BATCH, progress=False)


def turns(repeats: int, *actions: Callable[[], object], warm_up: bool = True) -> list[list[float]]:
    """Run the actions in turn, by default once before to warm up, and return the seconds of each action by turn."""
    for action in actions if warm_up else ():
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, found in zip(actions, times, strict=True):
            began = time.perf_counter()
            action()
            found.append(time.perf_counter() - began)
    return times


def tally_alone(data: ConceptData, repeats: int) -> tuple[list[float], list[float]]:
    """Measure the microseconds per kept 7 x 7 map, counted by prunescope and by plain torch operations, in turns.

    The plain way upsamples each map, compares it with the threshold and counts the labels. Both use all threads.
    """
    random = np.random.default_rng(0)
    units, count = 2048, min(64, len(data))
    batch = next(batches(data, count, range(count), with_images=False))
    maps = np.maximum(random.normal(size=(count, units, 7, 7)), 0).astype(np.float32)
    thresholds = np.quantile(maps.transpose(1, 0, 2, 3).reshape(units, -1), 0.995, axis=1)
    image, unit = np.nonzero(maps.max(axis=(2, 3)) > thresholds)
    kept = KeptMaps(unit, image, maps.max(axis=(2, 3))[image, unit], maps[image, unit])
    counts = empty_counts(units, len(data.labels), len(data.categories), np.array([count * 224 * 224]))
    axes = (half_pixel_axis(7, data.label_size[0]), half_pixel_axis(7, data.label_size[1]))
    some = random.choice(len(unit), 500, replace=False)
    stacks = [torch.from_numpy(plain_layers(data, i)) for i in range(count)]

    def ours() -> None:
        with Workers(torch.get_num_threads()) as workers:
            MaskTallyOnCpu(counts, "image", axes, workers).add(MaskBatch(kept, thresholds, batch.labels))

    def plain() -> None:
        for place in some:
            stretched = nn.functional.interpolate(
                torch.from_numpy(kept.maps[place])[None, None], size=data.label_size, mode="bilinear"
            )[0, 0]
            mask = stretched > float(thresholds[unit[place]])
            for layer in stacks[image[place]]:
                torch.bincount(layer[mask], minlength=len(data.labels))

    fast, slow = turns(repeats, ours, plain)
    return [seconds / len(unit) * 1e6 for seconds in fast], [seconds / len(some) * 1e6 for seconds in slow]


def plain_layers(data: ConceptData, i: int) -> np.ndarray:
    """Unpack the labels of an image into layers of concept columns, int64 [layers, sh, sw]."""
    labels = data.image_labels(i)
    most = int(np.diff(labels.starts).max())
    table = np.zeros((len(labels.starts) - 1, most), np.int64)
    for row in range(len(table)):
        numbers = labels.numbers[labels.starts[row] : labels.starts[row + 1]]
        table[row, : len(numbers)] = np.searchsorted(data.labels.index, numbers)
    return table[labels.codes].transpose(2, 0, 1).copy()


def scaling(data: ConceptData, repeats: int) -> tuple[float, float, float]:
    """Measure the seconds of one process, of two processes that share the images, and of two independent processes.

    Each process has one thread, and the time to start it is not included. Two independent processes, each of which does
    the whole work at the same time as the other, show how far the machine itself scales.
    """
    script = (
        "import sys, time, torch\n"
        "torch.set_num_threads(1)\n"
        "from prunescope.concepts import open_concepts\n"
        "from prunescope.dissection import dissect\n"
        "from prunescope.processes import join_processes\n"
        "from prunescope.networks import build_network\n"
        "model = build_network('torchvision:resnet50', seed=0)\n"
        "data = open_concepts(sys.argv[1])\n"
        "with join_processes('cpu') as processes:\n"
        "    dissect(model, layers=['layer4'], concepts=data, batch_size=8, progress=False)\n"
        "    for _ in range(int(sys.argv[2])):\n"
        "        began = time.perf_counter()\n"
        "        dissect(model, layers=['layer4'], concepts=data, batch_size=8, progress=False)\n"
        "        if processes.rank == 0: print(time.perf_counter() - began, flush=True)\n"
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        part = draw(Path(folder) / "part", min(len(data), 64))
        file = Path(folder) / "run.py"
        file.write_text(script)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for start, times in (([sys.executable], 1), (torchrun, 1), ([sys.executable], 2)):
            command = [*start, str(file), str(part), str(repeats)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            running = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(times)
            ]
            outputs = [process.communicate()[0] for process in running]
            found.append(max(statistics.median(float(line) for line in output.split()) for output in outputs))
    return found[0], found[1], found[2]


def print_peak(images: int) -> None:
    """Dissect random maps with the shape of layer4's and print the peak memory beyond the maps themselves, in bytes."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data = open_concepts(make_miniature(Path(folder) / "data", images, seed=0, size=32))
        maps = random.random((images, 2048, 7, 7), np.float32)
        dissect_activations(
            maps[:8].repeat(images // 8, 0), concepts=data
        )  # compiles, and allocates memory that is kept
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        dissect_activations(maps, concepts=data, progress=False)
        print((kilobytes("VmHWM") - before) * 1024)


def kilobytes(field: str) -> int:
    """Return a field of this process's memory status in kilobytes (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def print_memory(few: int, many: int) -> None:
    """Print the peak memory of dissection beyond the given maps, for few and for many images."""
    peaks = []
    for images in (few, many):
        command = [sys.executable, __file__, "--memory", str(images)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{'peak memory above the maps, layer4: ' + f'{few} / {many:,} images':58}", end="")
    print(" / ".join(f"{peak / 2**20:,.0f} MiB" for peak in peaks))


def print_chance(images: int, repeats: int, chance: int) -> None:
    """Print what permuted labels add to a dissection from a packed copy, in time and in peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw(Path(folder) / "data", images)
        pack_concepts(root)
        data, model = open_concepts(root), build_network("torchvision:resnet50", seed=0).eval()
        print(f"{images} images of 224 px, ResNet-50, {torch.get_num_threads()} threads, medians of {repeats}\n")
        run_with, run_without = (
            functools.partial(dissect, model, layers=LAYERS[3:], concepts=data, batch_size=BATCH, chance=number)
            for number in (chance, 0)
        )
        bare, ours, without = turns(repeats, lambda: forward(model, data), run_with, run_without)
        print_row(f"layer4, {chance} permutations / none", ours, without, 1.1)
        print_row(f"layer4, {chance} permutations / bare forward", ours, bare, 1.08)
        print_row("layer4, no permutations / bare forward", without, bare, 1.03)
    peaks = []
    for number in (chance, 0):
        command = [sys.executable, __file__, "--concepts", str(BRODEN_CONCEPTS), "--chance", str(number)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{f'peak memory, 2,048 units, {BRODEN_CONCEPTS:,} concepts, {chance} / 0 permutations':58}", end="")
    print(" / ".join(f"{peak / 2**20:,.0f} MiB" for peak in peaks), f" (at most {200e6 / 2**20:,.0f} MiB more)")


def print_peak_of_counts(concepts: int, chance: int) -> None:
    """Dissect random maps of 2,048 units on random labels and print the peak memory beyond both, in bytes."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root, count = Path(folder), 64
        (root / "images").mkdir()
        (root / "category.csv").write_text("name\nobject\n")
        names = "".join(f"{number},concept {number},object\n" for number in range(1, concepts + 1))
        (root / "label.csv").write_text(f"number,name,category\n{names}")
        lines = ["image,split,ih,iw,sh,sw,object"]
        for i in range(count):
            cells = random.integers(1, concepts + 1, (8, 8), np.uint16).repeat(14, 0).repeat(14, 1)
            coded = np.stack([cells % 256, cells // 256, 0 * cells], axis=2).astype(np.uint8)
            Image.fromarray(coded).save(root / "images" / f"{i}_object.png")
            Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(root / "images" / f"{i}.jpg")
            lines.append(f"{i}.jpg,train,224,224,112,112,{i}_object.png")
        (root / "index.csv").write_text("\n".join([*lines, ""]))
        pack_concepts(root)
        data, maps = open_concepts(root), random.random((count, 2048, 7, 7), np.float32)
        dissect_activations(maps[:, :8], concepts=data, chance=min(chance, 1))  # compiles the kernels
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        dissect_activations(maps, concepts=data, chance=chance)
        print((kilobytes("VmHWM") - before) * 1024)


def print_broden(model: nn.Module, data: ConceptData) -> None:
    """Print estimates for all of Broden: the size of the stored maps of each layer, and the memory for everything else.

    Maps that may exceed their unit's threshold are stored until the thresholds are known.
    """
    some, budget = min(len(data), 32), Budget().on(torch.device("cpu"))
    found = dissect(model, layers=LAYERS, concepts=data, batch_size=BATCH, progress=False)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.from_numpy(np.stack([data.image(i) for i in range(some)])).permute(0, 3, 1, 2)
    with torch.inference_mode(), observe(model, LAYERS, dict.fromkeys(LAYERS, 1)) as outputs:
        model((pixels.float() / 255 - mean) / std)
    for layer, maps in outputs.items():
        thresholds = torch.tensor(found[layer].units["threshold"])
        above = (maps.amax((2, 3)) > thresholds).double().mean().item()
        waiting = above * maps[0].nbytes * BRODEN
        largest = LargestValues(1, BRODEN * maps[0, 0].numel(), 0.005).buffer.nbytes * maps.shape[1]
        counts = BLOCKS * maps.shape[1] * BRODEN_CONCEPTS * 4
        fits = "fits" if waiting < budget.memory + budget.disk else "does not fit: a second pass, up to this layer"
        print(
            f"  {layer}: {above:4.0%} of the maps wait, {waiting / 2**30:4,.0f} GiB (in the default budget that "
            f"{fits}); in memory {largest / 2**30:.2f} GiB of largest values, {counts / 2**30:.2f} GiB of counts, "
            f"{budget.memory / 2**30:.0f} GiB of maps"
        )


def print_row(what: str, ours: Sequence[float], other: Sequence[float], most: float, unit: str = "s") -> None:
    """Print the median times, the median of the ratios by turn, and the bound that the ratio should not exceed."""
    ratio = statistics.median(one / two for one, two in zip(ours, other, strict=True))
    times = " / ".join(f"{statistics.median(found):8.2f} {unit}" for found in (ours, other))
    print(f"{what:58}{times} = {ratio:6.3f}   (at most {most:.3f})")


def on_gpu(images: int) -> None:
    """Print the images per second on the GPU, for dissection from a packed copy and for the forward pass alone."""
    model = build_network("torchvision:resnet50", seed=0).eval().to("cuda")
    shown = torch.rand(GPU_BATCH, 3, 224, 224, device="cuda")
    with tempfile.TemporaryDirectory() as temporary:
        few = draw(Path(temporary) / "few", 256)
        many = Path(shutil.copytree(few, Path(temporary) / "many"))
        repeat(many, images // 256)
        for folder in (few, many):
            pack_concepts(folder)
        data = open_concepts(many)
        name = torch.cuda.get_device_name()
        print(f"{name}, ResNet-50, {len(data):,} images of 224 px, batch {GPU_BATCH}, channels last, images a second\n")
        print(f"{'':28}{'bare':>9}{'dissected':>11}   ratio")
        # Faster precisions vary more between repeats.
        for precision, repeats in (("fp32", 1), ("tf32", 2), ("bf16", 3)):
            dissected = functools.partial(dissect, model, batch_size=GPU_BATCH, device="cuda", precision=precision)
            forward_on_gpu(model, shown, 4 * GPU_BATCH, precision)
            dissected(layers=LAYERS, concepts=open_concepts(few))
            bare, layer4, four = turns(
                repeats,
                functools.partial(forward_on_gpu, model, shown, len(data), precision),
                functools.partial(dissected, layers=LAYERS[3:], concepts=data),
                functools.partial(dissected, layers=LAYERS, concepts=data),
                warm_up=False,
            )
            for what, seconds, least in (("layer4", layer4, 0.85), ("four layers at once", four, 0.7)):
                ratio = statistics.median(other / ours for ours, other in zip(seconds, bare, strict=True))
                rates = [len(data) / statistics.median(found) for found in (bare, seconds)]
                what = f"{precision}, {what}"
                print(f"{what:28}{rates[0]:9,.0f}{rates[1]:11,.0f}   {ratio:5.3f}   (at least {least})", flush=True)


def forward_on_gpu(model: nn.Module, shown: torch.Tensor, images: int, precision: Precision) -> None:
    """Run only the forward pass, on one batch that is already on the GPU, for at least `images` images."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = shown.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), arithmetic(precision, shown.device):
        for _ in range(-(-images // len(shown))):
            model(batch)
    torch.cuda.synchronize()


def repeat(folder: Path, times: int) -> None:
    """Make a data set `times` as large by adding links to its images, which is faster than drawing more images."""
    index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)
    parts = [index]
    for turn in range(1, times):
        (folder / "images" / str(turn)).mkdir()
        for name in index["image"]:
            os.link(folder / "images" / name, folder / "images" / str(turn) / name)
        parts.append(index.assign(image=[f"{turn}/{name}" for name in index["image"]]))
    pd.concat(parts).to_csv(folder / "index.csv", index=False)


if __name__ == "__main__":
    main()
