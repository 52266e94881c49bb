"""Set up accelerate for training: distributed processes, mixed precision and trackers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunescope.errors import InputError
from prunescope.processes import Processes
from prunescope.training.recipe import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

# Other modes of `accelerate launch`. They are refused, because they would split or rebuild the masked network.
_OTHER_WAYS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@contextmanager
def accelerating(
    training: Training, device: torch.device, processes: Processes, tracking: Path | None
) -> Iterator[Accelerator]:
    """Yield an `Accelerator` for the recipe, and restore accelerate's global state afterwards.

    Parameters
    ----------
    training
        The hyperparameters, of which the precision and the trackers are used.
    device
        The device to run on.
    processes
        The processes that train together.
    tracking
        The folder that trackers write to, or None.

    Raises
    ------
    InputError
        If accelerate was launched with a mode other than data-parallel training, if the device does not support the
        recipe's precision, or if a tracker's package or folder is missing.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import patch_environment

    for variable, name in _OTHER_WAYS.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise InputError(
                f"accelerate was launched with {name} ({variable}); networks under masks are trained data-parallel "
                "only: launch with `accelerate launch --multi_gpu`, or with torchrun"
            )
    _require_trackers(training, tracking)
    # accelerate's state is global to the process, but precision and device may differ from call to call.
    states = [shared._shared_state for shared in (AcceleratorState, PartialState, GradientState)]
    kept = [dict(state) for state in states]
    environment: dict[str, object] = {"accelerate_torch_device": device}
    if processes.count == 1:
        # These variables keep accelerate from joining processes if torchrun started only one, or srun unrelated ones.
        environment |= {"local_rank": -1, "pmi_size": 1}
    for state in states:
        state.clear()
    try:
        with patch_environment(**environment):
            try:
                accelerator = Accelerator(
                    mixed_precision="bf16" if training.precision == "bf16" else "no",
                    cpu=device.type == "cpu",
                    log_with=list(training.trackers) or None,
                    project_dir=tracking,
                    dynamo_backend="no",
                    # The main process's batch statistics are broadcast when they are used, not before every step.
                    kwargs_handlers=[
                        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
                    ],
                )
            except ValueError as error:
                raise InputError(f"precision {training.precision} cannot be used on {device}: {error}") from error
        try:
            yield accelerator
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            if processes.count > 1:
                # The hooks that synchronise gradients stay attached to the network until they are garbage-collected.
                accelerator.free_memory()
    finally:
        for state, before in zip(states, kept, strict=True):
            state.clear()
            state.update(before)


@contextmanager
def synchronising_statistics(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Replace batch normalisation by `torch.nn.SyncBatchNorm` while the block runs.

    Statistics are then computed over the whole batch of all processes. The network's own modules are restored
    afterwards.

    Raises
    ------
    InputError
        If the device is not a GPU, or if the network has a subclass of PyTorch's batch normalisation.
    """
    if device.type != "cuda":
        raise InputError(
            f"synchronise_statistics: torch.nn.SyncBatchNorm works on GPUs only, but the device is {device}; "
            "set `synchronise_statistics: false` or train with one process"
        )
    replaced = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                    raise InputError(
                        f"synchronise_statistics: {type(child).__name__} does more than batch normalisation and has "
                        "no synchronised form; set `synchronise_statistics: false`"
                    )
                replaced.append((parent, name, child))
    for parent, name, child in replaced:
        # The new module shares the parameters and buffers of the one that it replaces.
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
        setattr(parent, name, synchronised)
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def _require_trackers(training: Training, tracking: Path | None) -> None:
    if not training.trackers:
        return
    if tracking is None:
        raise InputError(f"trackers: {', '.join(training.trackers)} needs a folder to write to; give `tracking`")
    if find_spec("tensorboard") is None:
        raise InputError(
            "trackers: tensorboard is not installed; `pip install 'prunescope[tensorboard]'`, or remove `trackers`"
        )
