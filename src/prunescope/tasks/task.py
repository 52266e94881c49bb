"""The classification task: read its images in batches, decoded, augmented and normalised."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from prunescope.errors import InputError
from prunescope.progress import Progress, silent
from prunescope.randomness import AUGMENTATION, generator_for
from prunescope.tasks.order import Plan
from prunescope.tasks.pixels import CROP_DRAWS, SHIFT, Cut, central, decode_cut, random_crop, shifted
from prunescope.tasks.source import Source, hold
from prunescope.tasks.sources import Augmentation, Cifar, HuggingFace, open_sources


class TaskBatch(NamedTuple):
    """A batch of normalised images and their classes."""

    images: Tensor  # float32 [n, 3, size, size], channels last
    targets: Tensor  # int64 [n]


@dataclass(frozen=True)
class Task:
    """An image-classification task.

    Attributes
    ----------
    root
        The folder or the name that the images come from.
    size
        The height and width of the network's input images, in pixels.
    augmentation
        The augmentation of training images. `imagenet` takes a random crop of 8 to 100 % of the image, resizes it and
        flips it at random; `shift-flip` shifts images by up to 4 pixels and flips them at random; `flip` flips them at
        random; `none` does nothing. If the crop is not random, images are resized to size x 256/224 on their shorter
        side and cropped at the centre, unless they have the right size already.
    mean, std
        The mean and the standard deviation of each color channel, for values from 0 to 1.
    workers
        The number of processes that decode images, if the images are not held in memory.
    train, val
        The training and the validation images.
    content
        A hash of the content of the images and their classes, or "" if it is not known; it is then computed from the
        images when it is needed. Checkpoints made from other content are refused.
    """

    root: str
    size: int
    augmentation: Augmentation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    workers: int
    train: Source
    val: Source
    content: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.train.classes

    def training_batches(self, plan: Plan, start: int, stop: int, device: torch.device) -> Iterator[TaskBatch]:
        """Yield this process's share of the batches of steps `start` to `stop` - 1.

        The augmentation of an image is a function of the seed, the epoch and the image.
        """
        keys = ([(plan.seed, epoch, int(i)) for i in indices] for epoch, indices in plan.batches(start, stop))
        return self._read(self.train, keys, self.augmentation, device)

    def validation_batches(
        self, batch_size: int, device: torch.device, indices: range | None = None
    ) -> Iterator[TaskBatch]:
        """Yield batches of the validation images at these indices (default: all), in order and not augmented."""
        wanted = range(len(self.val)) if indices is None else indices
        keys = ([(0, 0, i) for i in wanted[first : first + batch_size]] for first in range(0, len(wanted), batch_size))
        return self._read(self.val, keys, "none", device)

    def _read(
        self, source: Source, keys: Iterator[list[Key]], augmentation: Augmentation, device: torch.device
    ) -> Iterator[TaskBatch]:
        # Mean and std are repeated for a row of pixels, which is much faster on a CPU than broadcasting three channels.
        shift, scale = ((torch.tensor(color, device=device) * 255).repeat(self.size) for color in (self.mean, self.std))
        read: Iterator[Read]
        if source.pixels is not None:
            read = (_held(source.pixels, source.targets, batch, augmentation) for batch in keys)
        else:
            read = _decoded(Decoder(source, self.size, augmentation), keys, self.workers, device.type == "cuda")
        for images, targets in read:
            pixels = images.to(device, non_blocking=True).permute(0, 2, 3, 1).contiguous()
            rows = pixels.view(-1, 3 * self.size).float().sub_(shift).div_(scale)
            yield TaskBatch(rows.view(pixels.shape).permute(0, 3, 1, 2), targets.to(device, non_blocking=True))


def open_task(
    origin: str | Path | Cifar | HuggingFace,
    *,
    size: int,
    augmentation: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
    in_memory: bool = False,
    workers: int = 0,
    training: bool = True,
    progress: Progress = silent,
) -> Task:
    """Open a classification task.

    Parameters
    ----------
    origin
        A folder in ImageFolder's layout (`train/CLASS/*` and `val/CLASS/*`), CIFAR, or a data set of Hugging Face.
    size, augmentation, mean, std, workers
        See `Task`.
    in_memory
        Whether to hold all images decoded in memory. This is meant for small data sets whose images have the right size
        already. CIFAR is always held in memory.
    training
        Whether training images are needed. If not, a folder needs no `train/CLASS/*`, and the validation images take
        the place of the training images.
    progress
        Called with the number of bytes downloaded and the total number of bytes.

    Returns
    -------
    Task
        The opened task.

    Raises
    ------
    InputError
        If the images do not exist or are not as expected, if images to be held in memory cannot be read or have another
        size, or if images held in memory are to be augmented with `imagenet`.
    """
    name, train, val = open_sources(origin, size, progress, training=training)
    if in_memory:
        train, val = hold(train, size), hold(val, size)
    if train.pixels is not None and augmentation == "imagenet":
        raise InputError(
            f"{name}: `augmentation: imagenet` crops images of any size, but these are held in memory at {size} x "
            f"{size} pixels; use shift-flip, flip or none, or set `in_memory: false` if the images are in files"
        )
    red, green, blue = mean
    std_red, std_green, std_blue = std
    return Task(name, size, augmentation, (red, green, blue), (std_red, std_green, std_blue), workers, train, val)


Key = tuple[int, int, int]  # seed, epoch, index of the image
Read = tuple[Tensor, Tensor]  # images, uint8 [n, 3, size, size], channels last; classes, int64 [n]


@dataclass(frozen=True, eq=False)
class Decoder(Dataset[Any]):
    """A data set that decodes and augments images, each as a function of its key alone."""

    source: Source
    size: int
    augmentation: Augmentation

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor | np.ndarray, np.ndarray] | InputError:
        """Read a batch. An error is returned and not raised, so that `DataLoader` passes it on unchanged.

        In a worker process, the images are put into shared memory. If there is too little of it, which is common in
        containers, they are returned as an array instead, which is sent through a pipe.
        """
        shape = (len(keys), 3, self.size, self.size)
        images = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        try:
            for image, key in zip(images, keys, strict=True):
                image.copy_(self._image(key))
        except InputError as error:
            return error
        targets = self.source.targets[[index for _, _, index in keys]]
        if get_worker_info() is None:
            return images, targets
        try:
            # DataLoader would share the memory in a thread whose errors end nothing, and the batch would never arrive.
            return images.share_memory_(), targets  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError):
            return images.permute(0, 2, 3, 1).numpy(), targets

    def _image(self, key: Key) -> Tensor:
        seed, epoch, index = key
        assert self.source.images is not None
        cut: Callable[[int, int], Cut] = partial(central, size=self.size)
        if self.augmentation == "none":
            return decode_cut(self.source.images, index, cut, self.size)
        generator = generator_for(seed, AUGMENTATION, epoch, index)
        draws = torch.rand(3, generator=generator)
        if self.augmentation == "imagenet":
            cut = partial(random_crop, size=self.size, draws=torch.rand(CROP_DRAWS, generator=generator).tolist())
        image = decode_cut(self.source.images, index, cut, self.size)
        if draws[0] < 0.5:
            image = image.flip(2)
        if self.augmentation == "shift-flip":
            image = shifted(image[None], _offsets(draws[None]))[0]
        return image


def _decoded(decoder: Decoder, keys: Iterator[list[Key]], workers: int, pinned: bool) -> Iterator[Read]:
    loader: DataLoader[Any] = DataLoader(
        decoder,
        batch_sampler=keys,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # a DataLoader draws a number when iteration starts; the global state is kept
    )
    free = _free_descriptors()
    if workers and free is not None and free < 4 * workers + 2:  # a DataLoader whose start fails prints an error
        raise _too_few_files(workers, f"its limit leaves {free}")
    batches: Iterator[Any] | None = None
    try:
        batches = iter(loader)
        while (found := next(batches, None)) is not None:
            if isinstance(found, InputError):
                raise found
            images, targets = found
            if isinstance(images, np.ndarray):
                images = torch.from_numpy(images).permute(0, 3, 1, 2)
            yield images, torch.from_numpy(targets)
    except (RuntimeError, OSError) as error:
        if workers and ("Too many open files" in str(error) or getattr(error, "errno", None) == errno.EMFILE):
            raise _too_few_files(workers, str(error)) from error
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a process that decodes images has ended ({error}); if it ran out of memory (or of /dev/shm, in a "
            f"container), use fewer `workers` or a smaller batch"
        ) from error
    finally:
        del batches  # this ends the workers even if the traceback of an error keeps this function's frame alive


def _free_descriptors() -> int | None:
    """Return how many more files this process may open, or None if that is not known."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if limit == resource.RLIM_INFINITY else limit - sum(1 for _ in Path("/proc/self/fd").iterdir())
    except (ImportError, OSError):  # not every operating system has both
        return None


def _too_few_files(workers: int, reason: str) -> InputError:
    return InputError(
        f"this process may not open more files ({reason}), which {workers} processes that decode images need; use "
        "fewer `workers`, or raise the limit with `ulimit -n`"
    )


def _as_it_is(read: Any) -> Any:
    return read


def _leave_interrupts(_worker: int) -> None:
    """Ignore Ctrl-C in a worker, since the main process ends it; print no error if that process disappears."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _quiet_of_connections


def _quiet_of_connections(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _held(pixels: Tensor, targets: np.ndarray, keys: Sequence[Key], augmentation: Augmentation) -> Read:
    """Return a batch of images that are held in memory, augmented."""
    indices = torch.tensor([index for _, _, index in keys])
    images, classes = pixels[indices], torch.from_numpy(targets)[indices]
    if augmentation == "none":
        return images, classes
    # Numbers are drawn for all images of the epoch and selected by index, so they do not depend on the batch size.
    seed, epoch, _ = keys[0]
    draws = torch.rand(len(targets), 3, generator=generator_for(seed, AUGMENTATION, epoch))[indices]
    images = torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
    if augmentation == "shift-flip":
        images = shifted(images, _offsets(draws))
    return images, classes


def _offsets(draws: Tensor) -> Tensor:
    return (draws[:, 1:] * (2 * SHIFT + 1)).long()
