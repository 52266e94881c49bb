"""Find the images of a folder, and the mask of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prunescope.errors import InputError
from prunescope.files import expanded

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
MASKS = IMAGES - {".webp"}
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def files_of(folder: str | Path, suffixes: Iterable[str], ending: str = "") -> dict[str, Path]:
    """Return the files of a folder and its subfolders by their paths relative to it, without suffix and `ending`.

    Hidden files are left out.

    Raises
    ------
    InputError
        If there is no such folder, if it has no such files, or if two differ in their suffix only.
    """
    root = expanded(folder).absolute()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; expected a folder of images")
    wanted = set(suffixes)
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.suffix.lower() not in wanted or any(part.startswith(".") for part in name.parts):
            continue
        if not path.stem.endswith(ending) or not path.is_file():
            continue
        key = name.with_suffix("").as_posix().removesuffix(ending)
        if key in found:
            raise InputError(f"{path} and {found[key].name} have the same stem; remove or rename one of them")
        found[key] = path
    if not found:
        what = f" whose names end in {ending}" if ending else ""
        raise InputError(f"{root}: contains no images{what} ({', '.join(sorted(wanted))}); give another folder")
    return found


def paired(
    images: Mapping[str, Path], masks: Mapping[str, Path], skip_unpaired: bool, hint: str = ""
) -> list[tuple[str, Path, Path]]:
    """Return the name, the image and the mask of all pairs.

    Raises
    ------
    InputError
        If an image has no mask or a mask has no image, unless `skip_unpaired`, or if there is no pair at all.
    """
    lone = [images[name] for name in images if name not in masks]
    if lone and not (skip_unpaired and len(lone) < len(images)):
        raise InputError(_unpaired(lone, len(images), "images", "mask of the same name", hint))
    lone = [masks[name] for name in masks if name not in images]
    if lone and not skip_unpaired:
        raise InputError(_unpaired(lone, len(masks), "masks", "image of the same name", hint))
    return [(name, images[name], masks[name]) for name in images if name in masks]


def _unpaired(lone: list[Path], count: int, what: str, lacking: str, hint: str) -> str:
    return (
        f"{lone[0]}: has no {lacking} (as {len(lone)} of the {count} {what} have none); add what is missing, "
        f"{hint}or leave these {what} out with skip_unpaired=True (--skip-unpaired)"
    )


def has_split(name: str) -> bool:
    """Return whether the first folder of an image's path stands for a split.

    >>> has_split("validation/kitchen/1"), has_split("trains/1")
    (True, False)
    """
    return "/" in name and name.split("/")[0].lower() in _SPLITS


def split_of(name: str) -> str:
    """Return the split that the first folder of an image's path stands for; it is "train" if there is none.

    >>> split_of("validation/kitchen/1"), split_of("kitchen/1")
    ('val', 'train')
    """
    return _SPLITS[name.split("/")[0].lower()] if has_split(name) else "train"
