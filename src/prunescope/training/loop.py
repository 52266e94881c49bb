"""Training a network under a mask, and measuring it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.layers import evaluating
from prunescope.progress import Progress, silent
from prunescope.pruning import Mask
from prunescope.training.data import Batch, Task
from prunescope.training.plan import Plan
from prunescope.training.recipe import Course, Training, learning_rate


class Measured(NamedTuple):
    """How well a network classifies the validation set; accuracies are fractions."""

    top1: float
    top5: float
    loss: float


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    mask: Mask,
    course: Course,
    device: str | torch.device = "cpu",
    at_step: Mapping[int, Callable[[], None]] | None = None,
    checkpoints: Path | None = None,
    tracking: Path | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Train through the steps of `course`; momentum starts at zero.

    After every step each pruned weight is exactly zero: its gradient is set to zero before the step, so that neither
    its momentum nor its weight decay ever moves it.

    Parameters
    ----------
    model
        Trained in place.
    task
        What it learns.
    training
        The recipe.
    seed
        Of the data order and the augmentation.
    mask
        Which weights are kept.
    course
        Which steps; the learning-rate schedule and the data order go by their numbers (design: Rewinding).
    device
        Where it runs.
    at_step
        Called before the step of that number; `course.stop` is the end.
    checkpoints
        A folder for this training's checkpoints.
    tracking
        A folder that trackers write to.
    progress
        Called with steps done and steps in all.

    Returns
    -------
    pd.DataFrame
        A row per epoch, and where measured: step, epoch, learning_rate, loss (the mean over the row's steps), top1,
        top5, validation_loss.

    Raises
    ------
    InputError
        The loss is not finite: step and learning rate are named.
    """
    device = torch.device(device)
    plan = Plan(len(task.train), training.batch_size, seed)
    per_epoch = plan.steps_per_epoch
    start, stop = course.start, course.stop
    measure_every = training.measure_every.iterations(per_epoch) if training.measure_every else stop
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mask.apply(model)
    holes = [(weight, (~mask[name]).to(device)) for name, weight in mask.parameters(model).items()]
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )
    actions = dict(at_step or {})
    rows: list[dict[str, float]] = []
    losses: list[Tensor] = []
    model.train()
    for step, batch in enumerate(task.training_batches(plan, start, stop, device), start):
        if step in actions:
            actions[step]()
        rate = learning_rate(training, step, per_epoch) if course.rate is None else course.rate
        losses.append(_take_step(model, batch, optimiser, rate, holes))
        done = step + 1
        progress(done - start, stop - start)
        if done % per_epoch and done % measure_every and done != stop:
            continue
        row = {"step": done, "epoch": done / per_epoch, "learning_rate": rate, "loss": _mean(losses, step, rate)}
        if done % measure_every == 0 and done != stop:
            row |= _measured(model, task, training.batch_size, device)
        rows.append(row)
        losses.clear()
    if stop in actions:
        actions[stop]()
    last = rows.pop() if rows else {"step": stop, "epoch": stop / per_epoch}
    rows.append(last | _measured(model, task, training.batch_size, device))
    return pd.DataFrame(rows, columns=["step", "epoch", "learning_rate", "loss", "top1", "top5", "validation_loss"])


def measure(model: nn.Module, task: Task, batch_size: int, device: str | torch.device = "cpu") -> Measured:
    """Measure a network on the validation set, in evaluation mode.

    Parameters
    ----------
    model
        Already on `device`.
    task
        Its validation images are used, in order.
    batch_size
        Images at a time.
    device
        Where the network is.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        for images, targets in task.validation_batches(batch_size, torch.device(device)):
            scores = model(images).float()
            top = scores.topk(min(5, scores.shape[1]), dim=1).indices == targets[:, None]
            loss = nn.functional.cross_entropy(scores, targets, reduction="sum")
            sums += torch.stack([top[:, 0].sum(), top.sum(), loss]).double().cpu()
    top1, top5, loss = (sums / len(task.val)).tolist()
    return Measured(top1, top5, loss)


def _measured(model: nn.Module, task: Task, batch_size: int, device: torch.device) -> dict[str, float]:
    found = measure(model, task, batch_size, device)
    return {"top1": found.top1, "top5": found.top5, "validation_loss": found.loss}


def _take_step(
    model: nn.Module, batch: Batch, optimiser: torch.optim.SGD, rate: float, holes: list[tuple[nn.Parameter, Tensor]]
) -> Tensor:
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    for weight, hole in holes:
        if weight.grad is not None:
            weight.grad.masked_fill_(hole, 0.0)
    optimiser.step()
    return loss.detach()


def _mean(losses: list[Tensor], step: int, rate: float) -> float:
    values = torch.stack(losses).double().cpu()
    bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"training diverged: the loss is {values[bad[0]].item()} at step {step - len(losses) + 1 + bad[0]}, "
            f"learning rate about {rate:g}; try a lower learning_rate or a longer warmup"
        )
    return values.mean().item()
