"""A small task and networks to train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from prunescope.networks import build_network
from prunescope.pruning import Mask, prune
from prunescope.tasks import Task, open_task
from prunescope.training import Training


def folder_task(root: Path, images: int = 12, side: int = 16) -> Path:
    """Two classes, told apart by brightness."""
    random = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 6)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (side, side, 3)) + 130 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number:03d}.png")
    return root


def opened(root: Path, in_memory: bool = True, augmentation: str = "shift-flip", workers: int = 0) -> Task:
    return open_task(
        root,
        size=16,
        augmentation=augmentation,  # type: ignore[arg-type]
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        in_memory=in_memory,
        workers=workers,
    )


def recipe(length: str = "3ep", **changes: object) -> Training:
    fields = {"length": length, "batch_size": 8, "learning_rate": 0.05, "weight_decay": 1e-3} | changes
    return Training.model_validate(fields)


def network(seed: int = 0) -> nn.Module:
    return build_network("prunescope:resnet8x4", classes=2, seed=seed)


def plain_network(dropout: float = 0.0) -> nn.Module:
    """A network without batch statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(),
            nn.Dropout(dropout), nn.Linear(100, 2),
        )  # fmt: skip


def half_mask(model: nn.Module) -> Mask:
    return prune(model, fraction=0.5)


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])
