"""Train a network under a mask, and measure its accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.processes import Processes, join_processes
from prunescope.progress import Progress, silent
from prunescope.pruning import Mask
from prunescope.randomness import leaving_generators, seed_layers
from prunescope.tasks.order import Plan
from prunescope.tasks.task import Task
from prunescope.training.acceleration import accelerating, synchronising_statistics
from prunescope.training.checkpoints import Checkpoints, TrainingRecord, identity_of
from prunescope.training.descent import Descent, compiling_every_level, momentum_of, optimiser_of
from prunescope.training.interrupts import finishing_first
from prunescope.training.pace import Pace
from prunescope.training.recipe import StepRange, Training, learning_rate
from prunescope.training.steps import Step
from prunescope.training.validation import measure_images

COLUMNS = ["step", "epoch", "learning_rate", "loss", "top1", "top5", "validation_loss"]


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    mask: Mask,
    course: StepRange,
    device: str | torch.device = "cpu",
    at_step: Mapping[int, Callable[[], None]] | None = None,
    at_end: Callable[[pd.DataFrame], None] | None = None,
    checkpoints: Path | None = None,
    tracking: Path | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Train a network under a mask, for the steps given by `course`; momentum starts at zero.

    After every step, each pruned weight and its momentum are exactly zero. For distributed training, every process
    started by `accelerate launch` or `torchrun` makes this call and trains on its share of every batch. Only the main
    process writes files and reports progress.

    Parameters
    ----------
    model
        The network, which is trained in place.
    task
        The classification task.
    training
        The hyperparameters.
    seed
        The seed of the data order, the augmentation and the network's random layers, such as dropout.
    mask
        The mask of the kept weights.
    course
        The steps to train for. Their numbers determine the learning rate and the images of each step (see
        docs/pruning.md).
    device
        The device to run on.
    at_step
        Functions by step number, each called before that step; `course.stop` stands for the end of training. Only the
        main process calls them, but all processes have to be given them. The weights are checked to be finite before
        each call. A run resumed from a checkpoint calls only those at the checkpoint's step or later.
    at_end
        A function that is called with the trained network's predictions for the validation images, as `measure_images`
        returns them. Only the main process calls it, but all processes have to be given one.
    checkpoints
        A folder for the checkpoints of this training. If it holds checkpoints, training resumes from the last intact
        one. On a single CPU, the weights and rows are then identical to those of a run that was never interrupted.
    tracking
        A folder that trackers write to.
    progress
        Called with the number of steps done and the total number of steps.

    Returns
    -------
    pd.DataFrame
        A table with one row per epoch and one per measurement. Its columns are step, epoch, learning_rate, loss (the
        mean over the row's steps), top1, top5 and validation_loss (measured in float32 for any precision of training).

    Raises
    ------
    InputError
        If the loss or a weight is not finite (the message gives the step and the learning rate), if a batch has fewer
        images than there are processes, if the checkpoints belong to another training, or if the recipe needs
        something that the device or the installed packages do not support.
    """
    device = torch.device(device)
    with ExitStack() as during:
        processes = during.enter_context(join_processes(device))
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        accelerator = during.enter_context(accelerating(training, device, processes, tracking))
        if training.compile:
            during.enter_context(compiling_every_level())
        during.enter_context(leaving_generators(device))
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        mask.apply(model)
        if training.synchronise_statistics and processes.count > 1:
            during.enter_context(synchronising_statistics(model, device))
        plan = Plan(len(task.train), training.batch_size, seed, processes.rank, processes.count)
        images = min(plan.batch_size, plan.images)
        if images < processes.count:
            raise InputError(
                f"a batch of {images} images cannot be shared by {processes.count} processes; start fewer of them or "
                "give a larger batch_size"
            )
        optimiser = optimiser_of(model, training, device)
        kept = Checkpoints(checkpoints, identity_of(training, course, seed, task, mask)) if checkpoints else None
        record = processes.on_main(partial(kept.restore, model, optimiser)) if kept else None
        record = TrainingRecord(**processes.broadcast_object(asdict(record or TrainingRecord(course.start))))
        _broadcast_state(model, optimiser, processes)
        # Steps after the checkpoint are logged again, so TensorBoard drops what it has of them.
        accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": record.step + 1}})
        descent = Descent.prepare(model, optimiser, mask, training, images, accelerator, processes)
        level = _LevelTraining(model, task, training, course, plan, descent, record, kept, device)
        return level.run(at_step or {}, at_end, progress)


@dataclass(frozen=True)
class _LevelTraining:
    """The training of a level, starting at the step that its record has reached."""

    model: nn.Module
    task: Task
    training: Training
    course: StepRange
    plan: Plan
    descent: Descent
    record: TrainingRecord
    kept: Checkpoints | None
    device: torch.device

    @property
    def processes(self) -> Processes:
        return self.descent.processes

    def run(
        self,
        at_step: Mapping[int, Callable[[], None]],
        at_end: Callable[[pd.DataFrame], None] | None,
        progress: Progress,
    ) -> pd.DataFrame:
        """Take the remaining steps; return the table of all steps."""
        course, record, main = self.course, self.record, self.processes.is_main
        alone = self.kept is not None and self.processes.count == 1
        pace = Pace(self.training.checkpoint_minutes, self.processes, record.step)
        pending: list[Tensor] = []  # losses not read yet, because reading them waits for the device
        between_steps = True
        self.model.train()
        try:
            # The batches are bound to no variable, because the traceback of an error would keep their workers alive.
            for step, batch in enumerate(
                self.task.training_batches(self.plan, record.step, course.stop, self.device), record.step
            ):
                with finishing_first() if alone else nullcontext():
                    if step in at_step:
                        self._act(at_step[step])
                    between_steps = False
                    seed_layers(self.device, self.plan.seed, step, self.processes.rank)
                    pending.append(self.descent.step(batch, self._rate(step)))
                    self._after_step(step + 1, pending, pace, acts=step + 1 in at_step)
                    between_steps = True
                    if main:
                        progress(step + 1 - course.start, course.stop - course.start)
        except KeyboardInterrupt:
            if alone and between_steps:
                with suppress(InputError):
                    self._record_losses(pending)
                    self._write()
            raise
        self._act(at_step.get(course.stop, lambda: None))
        rows = record.rows or [{"step": course.stop, "epoch": course.stop / self.plan.steps_per_epoch}]
        measured, predictions = self._measured()
        rows[-1] |= measured
        if at_end is not None:
            self.processes.on_main(partial(at_end, predictions))
        return pd.DataFrame(rows, columns=COLUMNS)

    def _after_step(self, done: int, pending: list[Tensor], pace: Pace, *, acts: bool) -> None:
        """After `done` steps, read the losses if a row, a checkpoint, an action or a regular check is due.

        If a row is due, it is added to the record; if a checkpoint is due, it is written.
        """
        per_epoch = self.plan.steps_per_epoch
        measured = _is_due(self.training.measure_every, done, per_epoch)
        row_is_due = measured or done % per_epoch == 0 or done == self.course.stop
        checkpoint_is_due = _is_due(self.training.checkpoint_every, done, per_epoch)
        if not (row_is_due or checkpoint_is_due or acts or pace.is_reading_due(done)):
            return
        self._record_losses(pending)
        checkpoint_is_due |= pace.losses_read(done)
        if row_is_due:
            loss = torch.tensor(self.record.losses, dtype=torch.float64).mean().item()
            row = {"step": done, "epoch": done / per_epoch, "learning_rate": self._rate(done - 1), "loss": loss}
            if measured and done != self.course.stop:
                row |= self._measured()[0]
            self.record.rows.append(row)
            self.record.losses.clear()
        if self.kept and checkpoint_is_due:
            self._write()
            pace.checkpoint_written()

    def _record_losses(self, pending: list[Tensor]) -> None:
        """Move the pending losses, summed over all processes, to the record; raise if one is not finite."""
        if not pending:
            return
        losses = self.processes.sum(torch.stack(pending).double().cpu()).tolist()
        pending.clear()
        for loss in losses:
            rate = self._rate(self.record.step)
            if not math.isfinite(loss):
                raise _diverged(f"the loss is {loss} at step {self.record.step}", rate)
            self.record.step += 1
            self.record.losses.append(loss)
            self.descent.accelerator.log({"loss": loss, "learning_rate": rate}, step=self.record.step)

    def _write(self) -> None:
        if self.kept:
            self._act(partial(self.kept.write, self.record, self.model, self.descent.optimiser))

    def _act(self, action: Callable[[], None]) -> None:
        self._refuse_diverged()
        self.processes.on_main(action)

    def _refuse_diverged(self) -> None:
        finite = torch.stack([weight.isfinite().all() for weight in self.model.parameters()])
        if not finite.all():
            step = self.record.step - 1
            raise _diverged(f"a weight is not finite after step {step}", self._rate(step))

    def _measured(self) -> tuple[dict[str, float], pd.DataFrame]:
        self.processes.broadcast_tensors(self.model.buffers())
        share = -(-self.training.batch_size // self.processes.count)
        size = min(share, self.descent.micro_batch_size)
        found, predictions = measure_images(self.model, self.task, size, self.device, self.processes)
        measured = {"top1": found.top1, "top5": found.top5, "validation_loss": found.loss}
        self.descent.accelerator.log(measured, step=self.record.step)
        return measured, predictions

    def _rate(self, step: int) -> float:
        if self.course.rate is not None:
            return self.course.rate
        return learning_rate(self.training, step, self.plan.steps_per_epoch)


def _is_due(every: Step | None, done: int, per_epoch: int) -> bool:
    return every is not None and done % every.iterations(per_epoch) == 0


def _diverged(what: str, rate: float) -> InputError:
    return InputError(
        f"training diverged: {what}, learning rate {rate:g}; try a lower learning_rate, a longer warmup or, instead of "
        "bf16, precision fp32"
    )


def _broadcast_state(model: nn.Module, optimiser: torch.optim.SGD, processes: Processes) -> None:
    """Broadcast the main process's network and momentum, which it may have read from a checkpoint."""
    processes.broadcast_tensors(model.state_dict().values())
    held = processes.broadcast_object(list(momentum_of(model, optimiser)))
    weights = dict(model.named_parameters())
    if not processes.is_main:
        for name in held:
            optimiser.state[weights[name]]["momentum_buffer"] = torch.empty_like(weights[name], requires_grad=False)
    processes.broadcast_tensors(momentum_of(model, optimiser).values())
