"""Open images that are stored in one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.tasks.source import Files, Source


def open_folders(root: Path, *, training: bool = True) -> tuple[Source, Source]:
    """Open the images of `root/train/CLASS/*` and `root/val/CLASS/*`, as listed by torchvision's ImageFolder.

    Without `training`, only the validation images are opened, and are returned twice.

    Returns
    -------
    tuple of Source
        The training images and the validation images.

    Raises
    ------
    InputError
        If a folder is missing or empty, or if `val` has other classes than `train`.
    """
    if not training and not (root / "train").is_dir():
        val = _list_files(root, "val")
        return val, val
    train, val = (_list_files(root, split) for split in ("train", "val"))
    if val.classes != train.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise InputError(
            f"{root}: train has {len(train.classes)} classes, val has {len(val.classes)}; only one of them has "
            f"{', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}; expected the same folders in both"
        )
    return train, val


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split, `train` or `val`.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    folder = root / split
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; expected ImageNet's layout: {root}/train/CLASS/* and "
            f"{root}/val/CLASS/*"
        )
    return folder


def _list_files(root: Path, split: str) -> Source:
    folder = split_folder(root, split)
    import_torchvision()
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: expected a folder of images for each class; {error}") from error
    paths = np.array([os.fsencode(path) for path, _ in found.samples])
    return Source(tuple(found.classes), np.array(found.targets, np.int64), images=Files(paths))
