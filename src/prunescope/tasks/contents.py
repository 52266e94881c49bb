"""List the files of a classification task, and identify its images and classes by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.fingerprints import HASHED, Fingerprint
from prunescope.hashes import SAMPLED
from prunescope.listings import Listing, list_files, walk_files
from prunescope.progress import Progress, silent
from prunescope.tasks.folders import split_folder
from prunescope.tasks.source import Source
from prunescope.tasks.sources import Cifar, HuggingFace, cifar_files, open_sources


def list_task(
    origin: str | Path | Cifar | HuggingFace, progress: Progress = silent, *, training: bool = True
) -> Listing:
    """List the files that a task is read from.

    For a folder in ImageFolder's layout these are the images below `train` and `val`; for CIFAR, its files; for a
    folder that Hugging Face's library reads, all files except hidden ones and the library's own cache. The list is
    empty for a data set on the Hugging Face hub.

    Parameters
    ----------
    origin
        The origin of the images, as in `open_task`.
    progress
        Called with the number of folders listed and the number of folders known so far.
    training
        Whether a folder needs training images, as in `open_task`.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    if isinstance(origin, Cifar):
        return list_files((path.name, str(path)) for path in cifar_files(origin))
    if isinstance(origin, HuggingFace):
        folder = expanded(origin.huggingface)
        return walk_files(folder, wanted=_is_data, progress=progress) if folder.is_dir() else list_files(())
    root = expanded(origin)
    splits = [split_folder(root, split).name for split in (("train", "val") if training else ("val",))]
    import_torchvision()
    from torchvision.datasets.folder import IMG_EXTENSIONS

    def is_image(name: str) -> bool:
        # ImageFolder does not read files that lie next to the folders of the classes.
        return name.lower().endswith(IMG_EXTENSIONS) and name.count("/") > 1

    return walk_files(root, splits, is_image, progress)


def classes_of(origin: str | Path | Cifar | HuggingFace, size: int) -> Fingerprint | None:
    """Take the fingerprint of the classes in a data set of Hugging Face, as its library reads them.

    It covers the class of every image, which the fingerprint of the files may not: large files and data sets of many
    files are hashed only in part, and a data set on the hub has no local files. For a data set on the hub, the
    fingerprint that the library gives it is included.

    Returns
    -------
    Fingerprint or None
        A fingerprint with one entry per split; None for data that are not from Hugging Face.

    Raises
    ------
    InputError
        If the data set cannot be opened.
    """
    if not isinstance(origin, HuggingFace):
        return None
    _, *sources = open_sources(origin, size)
    on_hub = not expanded(origin.huggingface).is_dir()
    digests = [_digest_of(source, on_hub) for source in sources]
    names = [f"classes of the {split} images" for split in ("training", "validation")]
    return Fingerprint(names, np.array([len(source) for source in sources], np.int64), np.array(digests, "S32"))


def content_of(source: Source) -> str:
    """Return a hash of the images of a split and their classes, as 32 hexadecimal digits.

    The hash covers all classes, and all pixels of images that are held in memory. Of other images, it covers the
    encoded content: of all of them if there are at most 10,000, otherwise of a sample of 1,000.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    digest = hashlib.sha256(repr(source.classes).encode())
    digest.update(source.targets.tobytes())
    if source.pixels is not None:
        digest.update(source.pixels.permute(0, 2, 3, 1).contiguous().numpy().data)
    elif source.images is not None:
        count = len(source)
        chosen = np.arange(count)
        if count > HASHED:
            chosen = np.sort(np.random.default_rng(0).choice(count, SAMPLED, replace=False))
        for index in chosen.tolist():
            try:
                digest.update(hashlib.sha256(source.images.read(index)).digest())
            except (OSError, ValueError) as error:
                raise InputError(f"{source.images.name(index)}: cannot be read ({error})") from error
    return digest.hexdigest()[:32]


def _digest_of(source: Source, on_hub: bool) -> str:
    digest = hashlib.sha256(repr(source.classes).encode())
    digest.update(source.targets.tobytes())
    if on_hub:
        digest.update(str(getattr(source.images, "fingerprint", "")).encode())
    return digest.hexdigest()[:32]


def _is_data(name: str) -> bool:
    file = name.rpartition("/")[2]
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and not (file.startswith("cache-") and file.endswith(".arrow"))
