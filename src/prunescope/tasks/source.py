"""The images of a split, which are either encoded and read one by one, or held decoded in memory."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunescope.errors import InputError
from prunescope.files import read_file
from prunescope.tasks.pixels import Images, decode


@dataclass(frozen=True, eq=False)
class Source:
    """The images of one split and their classes.

    Attributes
    ----------
    classes
        The names of the classes.
    targets : int64 array [images]
        The class of each image, as an index into `classes`.
    images
        The encoded images, or None if the images are held in memory.
    pixels : uint8 tensor [images, 3, size, size]
        The decoded images in channels-last format, or None if the images are not held in memory.
    """

    classes: tuple[str, ...]
    targets: np.ndarray
    images: Images | None = None
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Files:
    """Encoded images that are stored in files.

    Attributes
    ----------
    paths : bytes array [images]
        The path of each file. An array is used because worker processes would copy the memory of a million Python
        strings merely by counting references to them.
    """

    paths: np.ndarray

    def read(self, index: int) -> bytes:
        """Return the content of the file at this index."""
        return read_file(self.name(index))

    def name(self, index: int) -> str:
        """Return the path of the file at this index."""
        return os.fsdecode(self.paths[index])


def hold(source: Source, size: int) -> Source:
    """Return a source with all images decoded in memory; a source that is in memory already is returned as it is.

    Parameters
    ----------
    source
        The images of a split.
    size
        The height and width that every image has to have, in pixels.

    Raises
    ------
    InputError
        If an image cannot be read or is not `size` x `size` pixels, or if there is not enough memory.
    """
    if source.pixels is not None or source.images is None:
        return source
    shape = (len(source), 3, size, size)
    try:
        held = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    except RuntimeError as error:
        raise InputError(
            f"{len(source)} images of {size} x {size} pixels need {math.prod(shape) / 1e9:.1f} GB of memory, which is "
            "not available; set `in_memory: false`"
        ) from error
    for index in range(len(source)):
        pixels = decode(source.images, index)
        if pixels.shape != (3, size, size):
            raise InputError(
                f"{source.images.name(index)}: the image is {pixels.shape[1]} x {pixels.shape[2]}, expected {size} x "
                f"{size} for a data set held in memory; set `in_memory: false` (images are then resized) or another "
                f"`size`"
            )
        held[index] = pixels
    return Source(source.classes, source.targets, pixels=held)
