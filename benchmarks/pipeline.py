"""Compare the speed of the input pipeline with that of torchvision's usual pipeline.

    python benchmarks/pipeline.py [--images 1024] [--workers 2] [--repeats 5] [--quick]
    python benchmarks/pipeline.py --gpu

Both pipelines read the same JPEG files with the same number of worker processes, crop, flip and normalise the images as
is usual in training on ImageNet, and deliver normalised batches of 224 pixels on the network's device (the GPU, if
there is one). The usual pipeline consists of ImageFolder, RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize
and DataLoader. The two pipelines take turns, and the ratio in each row is that of the median times. The times of both
include starting the workers. The last column is the same ratio for processor seconds, including those of the workers,
which other work on the machine affects less.

The images are noise with the spectrum of natural images (amplitude 1 / frequency, Field 1987), so that they compress
like photographs. At 500 x 375 pixels, the most frequent size in ImageNet, and quality 90, a file has about 110 kB,
which is the mean size of ImageNet's files.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prunescope.devices import import_torchvision
from prunescope.networks import build_network
from prunescope.processes import Processes
from prunescope.pruning import prune
from prunescope.tasks import Task, open_task
from prunescope.tasks.order import Plan
from prunescope.training import Training
from prunescope.training.acceleration import accelerating
from prunescope.training.descent import Descent, optimiser_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224
BATCH = 64
GPU_BATCH = 256
DRAWN = 64  # the number of different images; further files are links to them
SHAPES = ((500, 375), (1000, 750), (2000, 1500))


def main() -> None:
    """Parse the options, run the measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="measure beside a GPU's step of training")
    parser.add_argument("--quick", action="store_true", help="few images, for a look")
    options = parser.parse_args()
    if options.gpu:
        on_gpu()
        return
    images, repeats = (256, 1) if options.quick else (options.images, options.repeats)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"{images} images, {options.workers} workers, {os.cpu_count()} processors, to {device}, medians of {repeats}\n"
    )
    print(f"{'images a second':36}{'ours':>8}{'plain':>8}   ratio                     by processor seconds")
    for width, height in SHAPES:
        # Larger images take longer to decode, and fewer of them are enough to measure the ratio.
        count = max(2 * BATCH, images * 500 // width)
        with tempfile.TemporaryDirectory() as folder:
            size = write_images(Path(folder), count, width, height)
            task = open_task(folder, size=SIZE, augmentation="imagenet", mean=MEAN, std=STD, workers=options.workers)
            plain = plain_loader(Path(folder), options.workers, device)
            ours, other = turns(repeats, partial(read, task, device), partial(read_plain, plain, device))
        wall, processors = other / ours
        least = "(at least 1.200)" if (width, height) == SHAPES[0] else ""
        what = f"{width} x {height} pixels, {size / 1000:.0f} kB"
        print(
            f"{what:36}{count / ours[0]:8.0f}{count / other[0]:8.0f}   {wall:6.3f} {least:18} {processors:6.3f}",
            flush=True,
        )


def on_gpu() -> None:
    """Print the images per second of the pipeline, of training steps, and of both together (bf16, batch size 256)."""
    device, workers, count = torch.device("cuda", 0), max(1, (os.cpu_count() or 1) - 1), 24 * GPU_BATCH
    with tempfile.TemporaryDirectory() as folder, ExitStack() as during:
        write_images(Path(folder), count, *SHAPES[0])
        task = open_task(folder, size=SIZE, augmentation="imagenet", mean=MEAN, std=STD, workers=workers)
        plan = Plan(len(task.train), GPU_BATCH, seed=0)
        model = build_network("torchvision:resnet50", classes=1000, seed=0).to(
            device, memory_format=torch.channels_last
        )
        training = Training.model_validate(
            {"length": "1ep", "batch_size": GPU_BATCH, "learning_rate": 0.01, "precision": "bf16"}
        )
        accelerator = during.enter_context(accelerating(training, device, Processes(), None))
        optimiser = optimiser_of(model, training, device)
        descent = Descent.prepare(
            model, optimiser, prune(model, fraction=0.8), training, GPU_BATCH, accelerator, Processes()
        )
        batch = next(task.training_batches(plan, 0, 1, device))
        stepping = steady(descent.step(batch, 0.01) for _ in range(24))
        reading = steady(task.training_batches(plan, 0, plan.steps_per_epoch, device))
        both = steady(
            descent.step(batch, 0.01) for batch in task.training_batches(plan, 0, plan.steps_per_epoch, device)
        )
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} processors, {workers} workers, images a second")
    for what, rate in (("read: JPEG of 500 x 375", reading), ("training step alone, bf16", stepping), ("both", both)):
        print(f"  {what:28}{rate:8,.0f}")
    print(f"  read / training step {reading / stepping:.3f} (at least 1), both / training step {both / stepping:.3f}")


def steady(batches: Iterable[object]) -> float:
    """Return the images per second, leaving out four batches in which workers start and buffers are allocated."""
    began, count = 0.0, 0
    for count, _ in enumerate(batches, 1):
        if count == 4:
            torch.cuda.synchronize()
            began = time.perf_counter()
    torch.cuda.synchronize()
    return (count - 4) * GPU_BATCH / (time.perf_counter() - began)


def write_images(root: Path, count: int, width: int, height: int) -> float:
    """Write a data set for ImageFolder with two classes and one validation image per class.

    Returns the mean size of the training files in bytes.
    """
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("one", "other"):
            (root / split / name).mkdir(parents=True)
    files = []
    for number in range(count):
        file = root / "train" / ("one", "other")[number % 2] / f"{number:06d}.jpg"
        if number < DRAWN:
            noise(random, width, height).save(file, quality=90)
            files.append(file)
        else:
            os.link(files[number % DRAWN], file)
    for number, name in enumerate(("one", "other")):
        os.link(files[number], root / "val" / name / "0.jpg")
    return statistics.mean(file.stat().st_size for file in files)


def noise(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw noise with amplitude 1 / frequency, in which colour varies a quarter as much as brightness."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(4):
        spectrum = np.fft.rfft2(random.normal(size=(height, width))) / frequency
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append(plane / plane.std())
    brightness, *colors = planes
    pixels = 120 + 50 * brightness[..., None] + 12.5 * np.stack(colors, axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def plain_loader(root: Path, workers: int, device: torch.device) -> torch.utils.data.DataLoader[object]:
    """Return a loader with torchvision's usual training pipeline."""
    import_torchvision()
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    images = ImageFolder(str(root / "train"), transforms.Compose(steps))
    pinned = device.type == "cuda"
    return torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, drop_last=True, num_workers=workers, pin_memory=pinned
    )


def read(task: Task, device: torch.device) -> None:
    """Read one epoch of batches from prunescope's pipeline."""
    plan = Plan(len(task.train), BATCH, seed=0)
    for _ in task.training_batches(plan, 0, plan.steps_per_epoch, device):
        pass
    finish(device)


def read_plain(loader: torch.utils.data.DataLoader[object], device: torch.device) -> None:
    """Read one epoch of batches from torchvision's pipeline."""
    for images, targets in loader:
        images.to(device, non_blocking=True)
        targets.to(device, non_blocking=True)
    finish(device)


def finish(device: torch.device) -> None:
    """Wait until the GPU has finished, if the device is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def turns(repeats: int, *actions: Callable[[], None]) -> list[np.ndarray]:
    """Run the actions in turn, after one turn to warm up, and return the median seconds of each.

    The two numbers of an action are seconds of wall-clock time and of processor time.
    """
    times: list[list[np.ndarray]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for action, found in zip(actions, times, strict=True):
            began = seconds()
            action()
            if turn:
                found.append(seconds() - began)
    return [np.median(found, axis=0) for found in times]


def seconds() -> np.ndarray:
    """Return the clock time, and the processor seconds of this process and of the workers that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in spent)])


if __name__ == "__main__":
    main()
