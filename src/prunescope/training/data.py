"""The classification task: images in folders, one per class, in `train` and `val`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prunescope.errors import InputError
from prunescope.networks.torchvision_shim import import_torchvision
from prunescope.training.plan import Plan
from prunescope.training.randomness import AUGMENTATION, generator_for
from prunescope.training.recipe import Augmentation

Split = Literal["train", "val"]
SHIFT = 4  # pixels, He et al. 2016, section 4.2


class Batch(NamedTuple):
    """Images, normalised, and their classes."""

    images: Tensor  # float32 [n, 3, size, size], channels last
    targets: Tensor  # int64 [n]


@dataclass(frozen=True)
class Task:
    """An image-classification task in ImageFolder's layout: `train/CLASS/*` and `val/CLASS/*`.

    Attributes
    ----------
    root
        The folder.
    size
        Images go into the network as size x size pixels.
    augmentation
        Of training images. `imagenet`: a random crop of 8 to 100 % of the image, resized, and flips; `shift-flip`:
        moved by up to 4 pixels, and flips; `flip`; `none`. Where the crop is not random, images are resized to
        size x 256/224 and cropped at the centre, unless they have the size already.
    mean, std
        Of each color channel, for values in 0..1.
    in_memory
        Hold all images decoded; for small data sets whose images have the size already.
    workers
        Processes that decode images.
    """

    root: Path
    size: int
    augmentation: Augmentation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    in_memory: bool
    workers: int
    train: Source
    val: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return self.train.classes

    def training_batches(self, plan: Plan, start: int, stop: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batches of the steps from `start` up to `stop`; augmentation depends on (seed, epoch, image)."""
        keys = ([(plan.seed, epoch, int(i)) for i in places] for epoch, places in plan.batches(start, stop))
        yield from self._read(self.train, keys, self.augmentation, device)

    def validation_batches(self, batch_size: int, device: torch.device, places: range | None = None) -> Iterator[Batch]:
        """Yield the validation images at `places` (all unless told) in order, not augmented."""
        wanted = range(len(self.val)) if places is None else places
        keys = ([(0, 0, i) for i in wanted[first : first + batch_size]] for first in range(0, len(wanted), batch_size))
        yield from self._read(self.val, keys, "none", device)

    def _read(
        self, source: Source, keys: Iterator[list[Key]], augmentation: Augmentation, device: torch.device
    ) -> Iterator[Batch]:
        shift = torch.tensor(self.mean, device=device).view(1, 3, 1, 1) * 255
        scale = torch.tensor(self.std, device=device).view(1, 3, 1, 1) * 255
        pixels = Pixels(source, self.size, augmentation)
        if self.in_memory:
            read = (pixels.held(batch) for batch in keys)
        else:
            read = iter(
                DataLoader(
                    pixels,
                    batch_sampler=keys,  # type: ignore[arg-type]
                    collate_fn=_collate,
                    num_workers=self.workers,
                    pin_memory=device.type == "cuda",
                )
            )
        for found in read:
            if isinstance(found, InputError):
                raise found
            images, targets = found
            images = images.to(device, non_blocking=True).float().sub_(shift).div_(scale)
            yield Batch(images.contiguous(memory_format=torch.channels_last), targets.to(device, non_blocking=True))


Key = tuple[int, int, int]  # seed, epoch, place of the image


@dataclass(frozen=True)
class Source:
    """The images of one split."""

    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    pixels: Tensor | None  # uint8 [images, 3, size, size], where they are held in memory

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Pixels(Dataset[Any]):
    """Decodes and augments one image; a function of its key alone."""

    source: Source
    size: int
    augmentation: Augmentation

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | InputError:
        """uint8 [3, size, size] and class; an image that cannot be read is returned as its error."""
        path, target = self.source.files[key[2]]
        try:
            image = decode(Path(path))
        except InputError as error:
            return error
        generator = generator_for(key[0], AUGMENTATION, *key[1:])
        return _augmented(image, self.size, self.augmentation, generator), target

    def held(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Take a batch out of memory: uint8 [n, 3, size, size] and classes."""
        assert self.source.pixels is not None
        places = torch.tensor([place for _, _, place in keys])
        targets = torch.tensor([self.source.files[place][1] for _, _, place in keys])
        images = self.source.pixels[places]
        if self.augmentation == "none":
            return images, targets
        # One draw for the batch's epoch, looked up by place: the same for any batch size.
        seed, epoch, _ = keys[0]
        draws = torch.rand(len(self.source), 3, generator=generator_for(seed, AUGMENTATION, epoch))[places]
        images = torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
        if self.augmentation == "shift-flip":
            images = _shifted(images, (draws[:, 1:] * (2 * SHIFT + 1)).long())
        return images, targets


def open_task(
    root: str | Path,
    *,
    size: int,
    augmentation: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
    in_memory: bool = False,
    workers: int = 0,
) -> Task:
    """Open a classification task; see `Task` for the parameters.

    Raises
    ------
    InputError
        A folder is missing or empty, `val` has other classes than `train`, or an image that is to be held in memory
        cannot be read or has another size.
    """
    root = Path(root).expanduser()
    found = {split: _list_files(root, split) for split in ("train", "val")}
    classes = found["train"][0]
    if found["val"][0] != classes:
        odd = sorted(set(classes) ^ set(found["val"][0]))
        raise InputError(
            f"{root}: train has {len(classes)} classes, val has {len(found['val'][0])}; only one of them has "
            f"{', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}; expected the same folders in both"
        )
    sources = {}
    for split, (_, files) in found.items():
        held = None
        if in_memory:
            held = torch.stack([_exactly(decode(Path(path)), size, path) for path, _ in files])
            held = held.contiguous(memory_format=torch.channels_last)
        sources[split] = Source(classes, files, held)
    red, green, blue = mean
    std_red, std_green, std_blue = std
    return Task(
        root, size, augmentation, (red, green, blue), (std_red, std_green, std_blue), in_memory, workers,
        sources["train"], sources["val"],
    )  # fmt: skip


def decode(path: Path) -> Tensor:
    """Read an image as uint8 [3, h, w] in RGB.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no readable image ({error}); replace or remove it") from error
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3).permute(2, 0, 1)


def _list_files(root: Path, split: str) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    folder = root / split
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; expected ImageNet's layout: {root}/train/CLASS/* and "
            f"{root}/val/CLASS/*"
        )
    import_torchvision()
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: expected a folder of images for each class; {error}") from error
    return tuple(found.classes), tuple(found.samples)


def _exactly(image: Tensor, size: int, path: str) -> Tensor:
    if image.shape[1:] != (size, size):
        height, width = image.shape[1:]
        raise InputError(
            f"{path}: the image is {height} x {width}, expected {size} x {size} for a data set held in memory; set "
            f"`in_memory: false` (images are resized then) or another `size`"
        )
    return image


def _collate(found: list[tuple[Tensor, int] | InputError]) -> tuple[Tensor, Tensor] | InputError:
    for one in found:
        if isinstance(one, InputError):
            return one
    images, targets = zip(*found, strict=True)
    return torch.stack(images), torch.tensor(targets)


def _augmented(image: Tensor, size: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    import_torchvision()
    from torchvision.transforms import RandomResizedCrop
    from torchvision.transforms.v2 import functional

    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator.get_state())
        draws = torch.rand(3)
        if augmentation == "imagenet":
            box = RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            image = functional.resized_crop(image, *box, [size, size], antialias=True)
        elif image.shape[1:] != (size, size):
            image = functional.center_crop(functional.resize(image, [size * 256 // 224], antialias=True), [size, size])
    if augmentation != "none" and draws[0] < 0.5:
        image = image.flip(2)
    if augmentation == "shift-flip":
        image = _shifted(image[None], (draws[None, 1:] * (2 * SHIFT + 1)).long())[0]
    return image


def _shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Cut [n, 3, size, size] out of the images padded by SHIFT zeros, at offsets [n, 2] from 0 to 2 x SHIFT."""
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (SHIFT,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows[torch.arange(len(images)), :, offsets[:, 0], offsets[:, 1]]
