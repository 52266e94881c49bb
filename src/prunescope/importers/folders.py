"""Import folders of images by class, which gives each image one label for all of its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from prunescope.errors import InputError
from prunescope.importers.pairing import IMAGES, files_of, has_split, split_of
from prunescope.importers.writing import Found, ImportOptions, write_found


def import_folders(
    directory: str | Path, out: str | Path, *, category: str = "scene", **options: Unpack[ImportOptions]
) -> Path:
    """Write a data set in Broden's format from images that are sorted into one folder per class.

    The labels are image-level labels: every pixel of an image has the class as its concept. A unit's mask covers about
    0.5 % of all pixels, so that its IoU with such a concept is small unless the concept is rare; docs/concepts.md shows
    the highest IoU that is possible.

    Parameters
    ----------
    directory
        A folder with CLASS/IMAGE, or with train/CLASS/IMAGE and val/CLASS/IMAGE.
    out
        The folder to write, which must be absent or empty.
    category
        The category of the concepts.
    **options
        Options of `prunescope.importers.writing.ImportOptions`, such as `resize`.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If an image is in no class's folder, or cannot be used; the message names the file.
    """
    files = files_of(directory, IMAGES)
    split = all(has_split(name) for name in files)
    classes = {}
    for name, path in files.items():
        parts = name.split("/")[1 if split else 0 :]
        if len(parts) < 2:
            raise InputError(f"{path}: is in no class's folder; expected {directory}/CLASS/{path.name}")
        classes[name] = parts[0]
    names = sorted(set(classes.values()))
    numbers = {name: number for number, name in enumerate(names, 1)}
    items = [
        Found(name, path, {category: [numbers[classes[name]]]}, split_of(name) if split else "train")
        for name, path in files.items()
    ]
    about = {"format": "folders", "directory": str(directory), "category": category}
    return write_found(out, items, _same, names, [category], about, **options)


def _same(item: Found) -> Found:
    return item
