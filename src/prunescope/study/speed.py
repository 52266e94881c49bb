"""Measure how fast a recipe's network trains and is dissected on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from prunescope.networks.layers import units_axes
from prunescope.networks.observing import observe
from prunescope.networks.running import evaluating
from prunescope.networks.source import build_network
from prunescope.pruning import Mask
from prunescope.store.recipe import Recipe
from prunescope.tasks.order import Plan
from prunescope.tasks.source import Source
from prunescope.tasks.task import Task
from prunescope.training.loop import train
from prunescope.training.recipe import StepRange

STEPS = 4  # the first one is not counted, since it includes one-off setup
READING = 2.0  # seconds of reading that are measured, after the first batch of every worker
READ_AT_A_TIME = 64
MOST_AT_A_TIME = {"cpu": 16, "cuda": 256}


class Speed(NamedTuple):
    """The images per second in training, and in forward passes that observe the dissected layers."""

    training: float
    dissection: float


def measure_speed(recipe: Recipe, classes: int, device: str, read: Source | None = None) -> Speed:
    """Measure the speed of a few training steps and forward passes of a recipe's network on random images.

    If `read` is given, the speed of reading training images is measured as well. On a GPU, workers read images while it
    computes, so the slower of the two determines the speed; otherwise both times are added.

    Parameters
    ----------
    recipe
        The recipe. Its batch size is reduced so that a batch fits on the device.
    classes
        The number of classes of the task.
    device
        The device to run the network on.
    read
        The training images if they are read anew for every step, or None.

    Returns
    -------
    Speed
        The measured images per second.
    """
    most = MOST_AT_A_TIME.get(torch.device(device).type, 16)
    batch = min(recipe.training.batch_size, recipe.training.device_batch_size or most, most)
    size = recipe.data.size
    random = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8).to(memory_format=torch.channels_last)
    names = tuple(f"{number:04d}" for number in range(classes))
    images = Source(names, np.arange(batch) % classes, pixels=random)
    one = Source(names, np.zeros(1, np.int64), pixels=random[:1])
    task = Task("random images", size, "none", recipe.data.mean, recipe.data.std, 0, images, one)
    model = build_network(recipe.network, classes=classes, seed=recipe.seed)
    training = recipe.training.model_copy(
        update={"batch_size": batch, "learning_rate": 1e-9, "measure_every": None, "trackers": ()}
    )
    moments = [time.perf_counter()]
    train(
        model, task, training, seed=0, mask=Mask.dense(model), course=StepRange(0, STEPS, rate=1e-9), device=device,
        progress=lambda *_: moments.append(_now(device)),
    )  # fmt: skip
    steps = [after - before for before, after in pairwise(moments[1:])]
    inputs = torch.rand(batch, 3, size, size, device=device)
    layers = recipe.dissection.layers
    axes = units_axes(model, layers, (size, size), recipe.dissection.units_axis)

    def look() -> None:
        with evaluating(model), torch.inference_mode(), observe(model, layers, axes, lambda *_: None):
            model(inputs)

    each = median(steps) / batch
    if read is not None:
        reading = _seconds_to_read(recipe, read)
        each = max(each, reading) if torch.device(device).type != "cpu" and recipe.data.workers else each + reading
    return Speed(1 / each, batch / median(_timed(look, device) for _ in range(STEPS)))


def _seconds_to_read(recipe: Recipe, source: Source) -> float:
    """Return the seconds needed to read one training image while nothing else runs."""
    data = recipe.data
    task = Task("", data.size, data.augmentation, data.mean, data.std, data.workers, source, source)
    plan = Plan(len(source), min(recipe.training.batch_size, READ_AT_A_TIME), recipe.seed)
    began, images = time.perf_counter(), 0
    for number, batch in enumerate(task.training_batches(plan, 0, sys.maxsize, torch.device("cpu"))):
        if number < max(1, data.workers):
            began = time.perf_counter()
            continue
        images += len(batch.images)
        if time.perf_counter() - began > READING:
            break
    return (time.perf_counter() - began) / images


def _timed(work: Callable[[], None], device: str) -> float:
    began = _now(device)
    work()
    return _now(device) - began


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
