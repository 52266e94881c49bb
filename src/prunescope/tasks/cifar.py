"""Read CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their binary version.

torchvision's classes read the Python version instead. Its files are pickles, which can execute arbitrary code when they
are loaded. The binary version holds the same images in the same order as plain bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prunescope.downloads import fetch_folder
from prunescope.errors import InputError
from prunescope.progress import Progress, silent
from prunescope.tasks.source import Source

SIZE = 32
_PIXELS = 3 * SIZE * SIZE


class Published(NamedTuple):
    """The published files of CIFAR-10 or CIFAR-100.

    Attributes
    ----------
    title
        The name of the data set, for messages.
    address, md5
        The URL and the MD5 of the archive.
    folder
        The folder of the files in the archive.
    train, val
        The files of the training and the test images. Each image consists of `labels` bytes, of which the last is its
        class, followed by its red, green and blue channels of 32 x 32 bytes each.
    names
        The file with the names of the classes, one per line.
    labels
        The number of label bytes before each image.
    pickled
        The names of the folder and the archive of the Python version.
    """

    title: str
    address: str
    md5: str
    folder: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: str
    labels: int
    pickled: tuple[str, str]


CIFAR10 = Published(
    title="CIFAR-10",
    address="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    val=("test_batch.bin",),
    names="batches.meta.txt",
    labels=1,
    pickled=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
)
CIFAR100 = Published(
    title="CIFAR-100",
    address="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train=("train.bin",),
    val=("test.bin",),
    names="fine_label_names.txt",
    labels=2,  # the superclass, then the class
    pickled=("cifar-100-python", "cifar-100-python.tar.gz"),
)


def open_cifar(
    folder: Path, published: Published, size: int, *, download: bool = False, progress: Progress = silent
) -> tuple[Source, Source]:
    """Read CIFAR's training and test images into memory.

    Parameters
    ----------
    folder
        The folder that contains the data set's own folder, its archive or the files themselves.
    published
        The description of the data set, `CIFAR10` or `CIFAR100`.
    size
        The height and width of the images in pixels, which have to be 32.
    download
        Whether to download the archive into `folder` if it contains none of these.
    progress
        Called with the number of bytes downloaded and the total number of bytes.

    Returns
    -------
    tuple of Source
        The training images and the test images.

    Raises
    ------
    InputError
        If the files are missing or damaged, if only the Python version is there, or if `size` is not 32.
    """
    if size != SIZE:
        raise InputError(f"{published.title}'s images are {SIZE} x {SIZE} pixels, but `size` is {size}; give {SIZE}")
    found = find_cifar(folder, published, download=download, progress=progress)[0].parent
    classes = _names(found / published.names)
    train, val = (
        _read([found / name for name in names], published.labels, classes) for names in (published.train, published.val)
    )
    return train, val


def find_cifar(
    folder: Path, published: Published, *, download: bool = False, progress: Progress = silent
) -> list[Path]:
    """Return the paths of CIFAR's files; they are extracted or downloaded first if necessary and allowed.

    The parameters are those of `open_cifar`. The last path is that of the file with the names of the classes.

    Raises
    ------
    InputError
        If the files are missing, or only the Python version is there.
    """
    files = (*published.train, *published.val, published.names)
    found = _find(folder, published, files)
    if found is None:
        archive = folder / published.address.rpartition("/")[2]
        if not download and not archive.is_file():
            raise InputError(_missing(folder, published))
        found = folder / published.folder

        def show(step: str, done: int, total: int) -> None:
            if step == "downloading":
                progress(done, total)

        fetch_folder(published.address, archive, found, files, checksum=f"md5:{published.md5}", progress=show)
    return [found / name for name in files]


def _find(folder: Path, published: Published, files: Sequence[str]) -> Path | None:
    places = (folder / published.folder, folder)
    return next((place for place in places if all((place / name).is_file() for name in files)), None)


def _missing(folder: Path, published: Published) -> str:
    files = ", ".join((*published.train, *published.val, published.names))
    what = f"expected the folder {published.folder} in it, with {files}"
    get = f"set `download: true`, or download {published.address} and put it there"
    pickled = next((name for name in published.pickled if (folder / name).exists() or folder.name == name), None)
    if pickled:
        return (
            f"{folder}: {pickled} is {published.title}'s Python version; its files are pickles, which can run any "
            f"code when they are loaded, so they are not read; {what} (the binary version): {get}"
        )
    return f"{folder}: does not contain {published.title}; {what}: {get}"


def _names(file: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: cannot be read ({error}); expected the names of the classes, one per line"
        ) from error
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"{file}: expected the names of the classes, one per line and each only once; download the data set again"
        )
    return names


def _read(files: Sequence[Path], labels: int, classes: tuple[str, ...]) -> Source:
    records = []
    for file in files:
        try:
            content = np.fromfile(file, np.uint8)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error})") from error
        if not len(content) or len(content) % (labels + _PIXELS):
            raise InputError(
                f"{file}: has {len(content)} bytes, expected a multiple of {labels + _PIXELS}, the size of one image; "
                f"the file is truncated or does not belong to the binary version; download the data set again"
            )
        images = content.reshape(-1, labels + _PIXELS)
        wrong = np.flatnonzero(images[:, labels - 1] >= len(classes))
        if len(wrong):
            raise InputError(
                f"{file}: image {wrong[0]} has class {images[wrong[0], labels - 1]}, expected 0 to {len(classes) - 1}; "
                f"download the data set again"
            )
        records.append(images)
    together = np.concatenate(records)
    pixels = torch.from_numpy(together[:, labels:].reshape(-1, 3, SIZE, SIZE))
    targets = together[:, labels - 1].astype(np.int64)
    return Source(classes, targets, pixels=pixels.contiguous(memory_format=torch.channels_last))
