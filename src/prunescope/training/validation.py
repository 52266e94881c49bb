"""Measure the accuracy of a network on the validation set."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

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
    processes = processes or Processes()
    sums = torch.zeros(3, dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        positions = processes.share_of(len(task.val)) if processes.count > 1 else None
        for images, targets in task.validation_batches(batch_size, torch.device(device), positions):
            scores = model(images).float()
            top = scores.topk(min(5, scores.shape[1]), dim=1).indices == targets[:, None]
            loss = nn.functional.cross_entropy(scores, targets, reduction="sum")
            sums += torch.stack([top[:, 0].sum(), top.sum(), loss]).double().cpu()
    top1, top5, loss = (processes.sum(sums) / len(task.val)).tolist()
    return ValidationResult(top1, top5, loss)
