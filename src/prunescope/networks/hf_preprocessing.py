"""Read the preprocessing of transformers' networks from the JSON file that is published with their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from prunescope.bounds import LEAST_STD
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.networks.preprocessing import Preprocessing, colors
from prunescope.reading import read_json

_FILE = "preprocessor_config.json"


def of_hf(name: str, *, download: bool = True) -> Preprocessing | None:
    """Return the preprocessing of a network of transformers.

    Parameters
    ----------
    name
        A folder, or a name on the hub, from which only the JSON file is read.
    download
        Whether to download the file of a name on the hub. Otherwise, it is looked for in transformers' cache only.

    Returns
    -------
    Preprocessing or None
        The preprocessing; None if no image processor is stored with the network, or if the hub cannot be reached.

    Raises
    ------
    InputError
        If the file cannot be used, or transformers is not installed.
    """
    if expanded(name).is_dir():
        return _of_folder(expanded(name))
    try:
        from transformers.utils.hub import cached_file
    except ImportError as error:
        raise InputError(
            f"hf:{name} needs transformers, which is not installed: pip install 'prunescope[transformers]'"
        ) from error
    try:
        found = cached_file(name, _FILE, local_files_only=not download)
    # Errors of the hub have many types. A network without an image processor can still be dissected.
    except Exception:
        return None
    return None if found is None else _read(Path(found), f"{_FILE} of hf:{name}", with_size=True)


def _of_folder(folder: Path) -> Preprocessing | None:
    """Return the preprocessing in a folder. The size and interpolation are left out if there are no weights in it."""
    path = folder / _FILE
    return _read(path, str(path), with_size=any(folder.glob("*.safetensors"))) if path.is_file() else None


def _read(path: Path, source: str, *, with_size: bool) -> Preprocessing | None:
    given = read_json(path, "download it again, or delete it")
    numbers = _numbers(given, path)
    if numbers is None:
        return None
    size = _size(given) if with_size else None
    interpolation = _interpolation(given.get("resample")) if with_size else None
    order = "BGR" if given.get("do_flip_channel_order") else "RGB"
    return Preprocessing(*numbers, size, interpolation, source, order)


def _numbers(given: Mapping[str, Any], path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation for images scaled to 0..1, whatever the processor scales images to."""
    mean: tuple[float, ...] | None = (0.0, 0.0, 0.0)
    std: tuple[float, ...] | None = (1.0, 1.0, 1.0)
    if given.get("do_normalize", "image_mean" in given):
        if "image_mean" not in given or "image_std" not in given:
            return None
        mean, std = colors(given["image_mean"]), colors(given["image_std"])
    factor = given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 1
    if (
        mean is None
        or std is None
        or len(mean) != len(std)
        or min(std) < LEAST_STD
        or not isinstance(factor, int | float)
        or not 0 < factor < math.inf
    ):
        raise InputError(
            f"{path}: its image_mean is {given.get('image_mean')!r}, its image_std is {given.get('image_std')!r} and "
            f"its rescale_factor is {given.get('rescale_factor')!r}; expected three numbers each, std above 0, and a "
            "factor above 0. Correct the file, or delete it and give mean and std"
        )
    # The usual factor is rounded to 1, so that the mean and the standard deviation stay exactly as they are written.
    scale = 255 * factor if abs(255 * factor - 1) > 1e-6 else 1.0
    shift = 1.0 if given.get("rescale_offset") else 0.0
    if scale == 1 and not shift:
        return mean, std
    return tuple((value + shift) / scale for value in mean), tuple(value / scale for value in std)


def _size(given: Mapping[str, Any]) -> tuple[int, int] | None:
    size = given.get("crop_size") if given.get("do_center_crop") else given.get("size")
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if {"height", "width"} <= size.keys() else size.get("shortest_edge")
    if isinstance(size, int):
        size = (size, size)
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        return None
    return size[0], size[1]


def _interpolation(resample: object) -> str | None:
    return next((known.name.lower() for known in Image.Resampling if known.value == resample), None)
