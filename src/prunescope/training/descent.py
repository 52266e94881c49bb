"""Steps of stochastic gradient descent under a mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunescope.devices import is_out_of_memory
from prunescope.errors import InputError
from prunescope.processes import Processes
from prunescope.pruning import Mask
from prunescope.tasks.task import TaskBatch
from prunescope.training.recipe import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

_MOST_COMPILED = 256  # combinations of the shapes of a network and of a batch


def compiling_every_level() -> AbstractContextManager[object]:
    """Raise the recompilation limit of `torch.compile` while the block runs, so that all levels are compiled.

    All levels of a study count towards the same limit. Beyond PyTorch's default limit, networks would silently run
    without being compiled.
    """
    patch: AbstractContextManager[object] = torch._dynamo.config.patch(recompile_limit=_MOST_COMPILED)
    return patch


class SummedLoss(nn.Module):
    """A module that applies a network and returns the sum of the cross-entropy losses of a batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the summed loss, a scalar, for images [n, 3, h, w] and classes [n]."""
        return nn.functional.cross_entropy(self.network(images), targets, reduction="sum")


def optimiser_of(model: nn.Module, training: Training, device: torch.device) -> torch.optim.SGD:
    """Return the recipe's optimiser, without any momentum yet."""
    return torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        # One pass over the weights instead of five. The last bits may differ from those of the unfused optimiser.
        fused=device.type in ("cpu", "cuda"),
    )


def momentum_of(model: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum buffers of a network's parameters by name; there are none before the first step."""
    held = [(name, optimiser.state[w]) for name, w in model.named_parameters() if w in optimiser.state]
    return {name: state["momentum_buffer"] for name, state in held if state.get("momentum_buffer") is not None}


@dataclass(frozen=True)
class Descent:
    """Takes the training steps of a level.

    Attributes
    ----------
    loss
        The network's `SummedLoss`, as prepared by accelerate and possibly compiled.
    optimiser
        The optimiser of the network's parameters.
    kept
        The weights that are partly pruned, each with a tensor of its shape that is 1 where it is kept and 0 elsewhere.
    images
        The number of images in a step, over all processes.
    micro_batch_size
        The maximum number of images in a micro-batch of one process.
    accelerator
        The `Accelerator` that prepared the loss.
    processes
        The processes that train together.
    """

    loss: nn.Module
    optimiser: torch.optim.SGD
    kept: list[tuple[nn.Parameter, Tensor]]
    images: int
    micro_batch_size: int
    accelerator: Accelerator
    processes: Processes

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        optimiser: torch.optim.SGD,
        mask: Mask,
        training: Training,
        images: int,
        accelerator: Accelerator,
        processes: Processes,
    ) -> Descent:
        """Prepare a network that is on its device and has zeros as pruned weights for steps of `images` images."""
        loss = accelerator.prepare_model(SummedLoss(model))
        if training.compile:
            backend = "inductor" if training.compile is True else training.compile
            loss = torch.compile(loss, backend=backend)
        kept = [
            # The mask gets the strides of the weight, so that multiplying them reads memory in order.
            (weight, torch.empty_like(weight, requires_grad=False).copy_(mask[name]))
            for name, weight in mask.parameters(model).items()
            if not mask[name].all()
        ]
        micro_batch_size = training.device_batch_size or images
        return cls(loss, optimiser, kept, images, micro_batch_size, accelerator, processes)

    def step(self, batch: TaskBatch, rate: float) -> Tensor:
        """Take one step; return this process's contribution to the mean loss of the batch, a scalar.

        The gradients of pruned weights are set to zero before the optimiser's step. Since these weights start at zero,
        neither momentum nor weight decay ever changes them.

        Parameters
        ----------
        batch
            This process's share of the batch.
        rate
            The learning rate.

        Raises
        ------
        InputError
            If the images do not fit into the device's memory, if batch normalisation gets too few of them, or if the
            network cannot be compiled.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        *others, last = self._micro_batches(batch)
        losses = []
        for micro_batch in others:
            with self.accelerator.no_sync(self.loss):
                losses.append(self._accumulate(*micro_batch))
        losses.append(self._accumulate(*last))
        for weight, kept in self.kept:
            if weight.grad is not None:
                weight.grad.mul_(kept)
        self.optimiser.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _micro_batches(self, batch: TaskBatch) -> list[TaskBatch]:
        """Split a batch into micro-batches of nearly equal size.

        Their number is the same on every process, because processes may synchronise within each micro-batch.
        """
        largest_share = -(-self.images // self.processes.count)
        count = min(-(-largest_share // self.micro_batch_size), len(batch.images))
        parts = (torch.tensor_split(tensor, count) for tensor in batch)
        return [TaskBatch(*micro_batch) for micro_batch in zip(*parts, strict=True)]

    def _accumulate(self, images: Tensor, targets: Tensor) -> Tensor:
        with _explaining(len(images)):
            loss: Tensor = self.loss(images, targets) / self.images
            # Gradients are averaged over the processes, but have to be summed, as each loss is a part of the mean.
            torch.autograd.backward(loss * self.processes.count)
        return loss.detach()


@contextmanager
def _explaining(images: int) -> Iterator[None]:
    """Turn PyTorch's errors in a step on `images` images into errors that say what to change in the recipe."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"batch normalisation cannot train on {images} images at a time ({error}); give a larger "
            "batch_size or device_batch_size"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{images} images at a time do not fit in the device's memory; give a smaller device_batch_size (with "
                "which gradients are accumulated) or a smaller batch_size"
            ) from error
        from torch._dynamo.exc import BackendCompilerFailed

        if not isinstance(error, BackendCompilerFailed):
            raise
        reason = str(error.inner_exception).partition("\n")[0]
        raise InputError(
            f"compile: the network cannot be compiled here ({reason}); set `compile: false`, or `compile: aot_eager`, "
            "which needs no compiler"
        ) from error
