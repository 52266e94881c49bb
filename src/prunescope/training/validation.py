"""Measure the accuracy of a network on the validation set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.networks.running import evaluating
from prunescope.processes import Processes
from prunescope.tasks.task import Task


class ValidationResult(NamedTuple):
    """A network's accuracies on the validation set, as fractions, and its mean cross-entropy loss."""

    top1: float
    top5: float
    loss: float


def measure(
    model: nn.Module,
    task: Task,
    batch_size: int,
    device: str | torch.device = "cpu",
    processes: Processes | None = None,
) -> ValidationResult:
    """Measure a network on the validation set, in evaluation mode.

    Parameters
    ----------
    model
        The network, which has to be on `device` already.
    task
        The task. Its validation images are used in order.
    batch_size
        The number of images in each forward pass.
    device
        The device of the network.
    processes
        The processes that share the images. Each of them has to make this call. By default this process works alone.

    Returns
    -------
    ValidationResult
        The top-1 and top-5 accuracy and the mean cross-entropy loss over all validation images.
    """
    return measure_images(model, task, batch_size, device, processes)[0]


def measure_images(
    model: nn.Module,
    task: Task,
    batch_size: int,
    device: str | torch.device = "cpu",
    processes: Processes | None = None,
) -> tuple[ValidationResult, pd.DataFrame]:
    """Measure a network on the validation set, and return its prediction for each image as well.

    Parameters
    ----------
    model, task, batch_size, device, processes
        As in `measure`.

    Returns
    -------
    result : ValidationResult
        The top-1 and top-5 accuracy and the mean cross-entropy loss over all validation images.
    predictions : DataFrame
        A row per validation image, the same in every process: ``image``, the index in the validation set, ``class`` and
        ``predicted``, the numbers of its class and of the class with the highest score (int32), and ``probability``,
        the softmax probability of the image's class (float32). ``top1`` is the share of rows in which ``predicted``
        equals ``class``.
    """
    processes = processes or Processes()
    sums = torch.zeros(3, dtype=torch.float64)
    share = processes.share_of(len(task.val))
    found: list[Tensor] = []  # float64 [n, 3] for each batch: class, predicted class, probability of the class
    with evaluating(model), torch.inference_mode():
        positions = share if processes.count > 1 else None
        for images, targets in task.validation_batches(batch_size, torch.device(device), positions):
            scores = model(images).float()
            highest = scores.topk(min(5, scores.shape[1]), dim=1).indices
            top = highest == targets[:, None]
            loss = nn.functional.cross_entropy(scores, targets, reduction="sum")
            sums += torch.stack([top[:, 0].sum(), top.sum(), loss]).double().cpu()
            probability = scores.softmax(dim=1).gather(1, targets[:, None])[:, 0]
            found.append(torch.stack([targets.double(), highest[:, 0].double(), probability.double()], dim=1).cpu())
    top1, top5, loss = (processes.sum(sums) / len(task.val)).tolist()
    rows = torch.zeros(len(task.val), 3, dtype=torch.float64)
    if found:
        rows[share.start : share.stop] = torch.cat(found)
    # Each row is zero in all processes but one, so that the sum gathers the rows exactly and in the images' order.
    return ValidationResult(top1, top5, loss), _table(processes.sum(rows))


def _table(rows: Tensor) -> pd.DataFrame:
    classes, predicted, probability = rows.numpy().T
    return pd.DataFrame(
        {
            "image": np.arange(len(rows), dtype=np.int32),
            "class": classes.astype(np.int32),
            "predicted": predicted.astype(np.int32),
            "probability": probability.astype(np.float32),
        }
    )
