"""Checkpoints: the state that training needs to resume as if it had never been interrupted."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from prunescope.errors import InputError
from prunescope.files import read_file, replacing
from prunescope.pruning import Mask
from prunescope.tasks.contents import content_of
from prunescope.tasks.task import Task
from prunescope.training.descent import momentum_of
from prunescope.training.recipe import StepRange, Training

KEPT = 2
NAME = re.compile(r"^step-(\d{9})-([0-9a-f]{32})\.safetensors$")

# Fields that do not identify a training, because they only change how it is run and recorded.
_BESIDE_THE_POINT = {"compile", "device_batch_size", "trackers", "checkpoint_every", "checkpoint_minutes"}
_CONTENT = "content of the images"


@dataclass
class TrainingRecord:
    """The results of a training so far.

    Attributes
    ----------
    step
        The number of the next step.
    rows
        The finished rows of the training table.
    losses
        The losses of the steps since the last row.
    """

    step: int
    rows: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def identity_of(training: Training, course: StepRange, seed: int, task: Task, mask: Mask) -> dict[str, Any]:
    """Return the values that identify a training, so that it is never resumed from the checkpoint of another one."""
    kept = b"".join(name.encode() + np.packbits(tensor.numpy()).tobytes() for name, tensor in mask.items())
    recipe = training.model_dump(mode="json", exclude=_BESIDE_THE_POINT)
    images = {
        "training images": _digest(task.train.targets.tobytes()),
        _CONTENT: task.content or _digest((content_of(task.train) + content_of(task.val)).encode()),
        "in_memory": task.train.pixels is not None,  # images in memory draw their augmentation differently
        "size": task.size,
        "augmentation": task.augmentation,
        "mean": list(task.mean),
        "std": list(task.std),
    }
    rest = {"seed": seed, "mask": _digest(kept), "start": course.start, "stop": course.stop, "rate": course.rate}
    return recipe | images | rest


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    A file's name contains its step and the first 32 hexadecimal digits of the SHA-256 of its content, so that a damaged
    file is recognised.

    Attributes
    ----------
    folder
        The folder of the checkpoints, which is created when it is needed.
    identity
        The values that identify the training, as returned by `identity_of`.
    """

    folder: Path
    identity: dict[str, Any]

    def write(self, record: TrainingRecord, model: nn.Module, optimiser: torch.optim.SGD) -> None:
        """Write a checkpoint, and remove all earlier ones except the last."""
        tensors = {f"network/{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"momentum/{name}": tensor for name, tensor in momentum_of(model, optimiser).items()}
        held = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
        state = {"identity": self.identity, "step": record.step, "rows": record.rows, "losses": record.losses}
        content = safetensors.torch.save(held, {"record": json.dumps(state)})
        with replacing(self.folder / f"step-{record.step:09d}-{_digest(content)}.safetensors") as beside:
            beside.write_bytes(content)
        for path in self._files()[:-KEPT]:
            path.unlink()

    def restore(self, model: nn.Module, optimiser: torch.optim.SGD) -> TrainingRecord | None:
        """Load the last intact checkpoint into the network and the optimiser.

        Damaged checkpoints are removed with a warning that says from which step training resumes instead.

        Returns
        -------
        TrainingRecord or None
            The record at the checkpoint, or None if there is no intact checkpoint.

        Raises
        ------
        InputError
            If the checkpoint belongs to another training or another network, or cannot be read.
        """
        if self.folder.is_dir():
            # Remove half-written files of processes that were killed.
            for part in self.folder.glob(".step-*.part.safetensors"):
                part.unlink(missing_ok=True)
        damaged: list[Path] = []
        for path in reversed(self._files()):
            if not _is_whole(path):
                damaged.append(path)
                continue
            record = self._load(path, model, optimiser)
            _drop(damaged, f"training continues from the previous one, at step {record.step}")
            return record
        _drop(damaged, "there is no intact earlier one, so the training of this level starts again")
        return None

    def _load(self, path: Path, model: nn.Module, optimiser: torch.optim.SGD) -> TrainingRecord:
        try:
            with safe_open(path, "pt") as file:
                stored = json.loads(file.metadata()["record"])
                # Checkpoints of older versions do not record the content of the images, so it is not compared for them.
                there = {_CONTENT: self.identity[_CONTENT]} | stored["identity"]
                record = TrainingRecord(int(stored["step"]), list(stored["rows"]), list(stored["losses"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # The name of a file states the digest of its content, but the content may still be anything.
        except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{path} is not a checkpoint of a training ({error}); remove {self.folder} to start this training again"
            ) from error
        differs = [name for name in self.identity if there.get(name) != self.identity[name]]
        if differs:
            raise InputError(
                f"{path} is a checkpoint of another training, which differs in {', '.join(differs)}; remove "
                f"{self.folder} to start this training, or give another folder"
            )
        parts = {
            part: {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
            for part in ("network/", "momentum/")
        }
        own = model.state_dict()
        given = parts["network/"]
        if own.keys() != given.keys() or any(own[name].shape != given[name].shape for name in own):
            raise InputError(f"{path} is a checkpoint of another network; remove {self.folder} to start again")
        model.load_state_dict(given)
        weights = dict(model.named_parameters())
        for name, momentum in parts["momentum/"].items():
            optimiser.state[weights[name]]["momentum_buffer"] = torch.empty_like(
                weights[name], requires_grad=False
            ).copy_(momentum)
        return record

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if NAME.match(path.name))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    found = NAME.match(path.name)
    assert found is not None
    try:
        return _digest(read_file(path)) == found[2]
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror}") from error


def _drop(damaged: list[Path], so: str) -> None:
    for path in damaged:
        warnings.warn(f"checkpoint {path} is damaged; {so}", stacklevel=1)
        path.unlink()
