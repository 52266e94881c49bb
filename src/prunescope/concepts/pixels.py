"""Read images and label files strictly, and represent the labels of one image by a palette."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from prunescope.concepts.index import Row
from prunescope.concepts.problems import Problem, Reading
from prunescope.files import read_file
from prunescope.images import ImageError, has_16_bits, open_image, to_rgb

_IMAGES, _LABELS = ("JPEG", "PNG"), ("PNG",)
_LABEL_MODES = ("RGB", "RGBA")

# Converting an image of label numbers to RGB would repeat each number n in all channels, which stands for 257 n.
_EXPECTED_LABELS = (
    "expected an RGB PNG with 8 bits a channel, in which red is the label's number modulo 256, green is the number "
    "divided by 256, rounded down, and blue is 0"
)


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """The labels of one image, stored as a palette.

    Each pixel has a code, which is the index of a row of the palette, and each row is a set of concepts. A pixel has a
    concept at most once, even if several label files or image-level labels name it.

    Attributes
    ----------
    codes : uint16 array (uint32 for more than 65536 rows) [sh, sw]
        The row of the palette for each pixel.
    starts : int32 array [palette + 1]
        The boundaries of the rows in `numbers`: row r consists of `numbers[starts[r]:starts[r + 1]]`.
    numbers : int32 array
        The concept numbers (as in label.csv), ascending and distinct within each row. Image-level labels are included
        in every row.
    """

    codes: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray


def read_image(root: Path, row: Row) -> Reading[np.ndarray | None]:
    """Read an image as a uint8 array [ih, iw, 3], yielding its problems; return None if it cannot be read."""
    size = None if row.size is None else (row.size.ih, row.size.iw)
    return (yield from _read_pixels(root, row.name, row.line, size, _IMAGES, to_rgb))


def read_labels(root: Path, row: Row, defined: np.ndarray) -> Reading[ImageLabels | None]:
    """Read the labels of one image, yielding their problems; return None if a label file cannot be used.

    Parameters
    ----------
    root : Path
        The data set's folder.
    row : Row
        The image's row of the index.
    defined : int array
        The numbers in label.csv.
    """
    size = None if row.size is None else (row.size.sh, row.size.sw)
    files: list[str] = []
    layers: list[np.ndarray] = []
    everywhere: list[int] = []
    complete = True
    for cell in row.cells:
        found, numbers = yield from read_cell(root, row, cell, size)
        everywhere += numbers
        for item, layer in found:
            if layer is None:
                complete = False
                continue
            size = size or (layer.shape[0], layer.shape[1])
            layers.append(layer)
            files.append(item)
    if size is None or not complete:
        return None
    codes, by_layer = palette(layers, size)
    unknown = (by_layer > 0) & ~np.isin(by_layer, defined)
    for at in np.flatnonzero(unknown.any(axis=0)):
        distinct = np.unique(by_layer[unknown[:, at], at])
        some = ", ".join(map(str, distinct[:5])) + (", ..." if distinct.size > 5 else "")
        message = f"its pixels name label {some}, which label.csv does not define; labels are red + 256 x green"
        yield Problem(root / "images" / files[at], None, f"{message} (index.csv, line {row.line})")
    if unknown.any():
        return None
    return join_layers(codes, by_layer, everywhere)


def read_cell(
    root: Path, row: Row, cell: str, size: tuple[int, int] | None
) -> Reading[tuple[list[tuple[str, np.ndarray | None]], list[int]]]:
    """Read the labels in one cell of the index, yielding their problems.

    Parameters
    ----------
    root, row
        The data set's folder, and the row of the index.
    cell
        The labels of one category, separated by semicolons.
    size
        The height and width that the labels must have; None if they are not known yet.

    Returns
    -------
    layers : list of (str, uint16 array [sh, sw] or None)
        The path of each label file and its concept numbers, or None if it cannot be used.
    everywhere : list of int
        The numbers of the image-level labels.
    """
    layers: list[tuple[str, np.ndarray | None]] = []
    everywhere: list[int] = []
    for item in cell.split(";") if cell else ():
        if item.isdigit():
            everywhere.append(int(item))
            continue
        pixels = yield from _read_pixels(root, item, row.line, size, _LABELS, _numbers)
        size = size if pixels is None else (pixels.shape[0], pixels.shape[1])
        layers.append((item, None if pixels is None else pixels[..., 0] | pixels[..., 1].astype(np.uint16) << 8))
    return layers, everywhere


def palette(layers: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Assign a code to each distinct combination of labels that occurs on a pixel.

    Parameters
    ----------
    layers
        The labels of each layer, arrays [sh, sw] of unsigned concept numbers, 0 where there is no label.
    size
        The height and width (sh, sw).

    Returns
    -------
    codes : int array [sh, sw]
        The code of each pixel.
    by_layer : int64 array [palette, layers]
        For each code, the concept number that each layer has on pixels with this code.
    """
    pixels = size[0] * size[1]
    key = np.zeros(pixels, dtype=np.uint64)
    bits = 0
    for layer in layers:
        width = int(layer.max()).bit_length()
        if bits + width > 64:
            codes, some_pixel = _codes(key)
            key, bits = codes.astype(np.uint64), len(some_pixel).bit_length()
        key = key << np.uint64(width) | layer.reshape(-1)
        bits += width
    codes, some_pixel = _codes(key)
    by_layer = np.empty((len(some_pixel), len(layers)), dtype=np.int64)
    for at, layer in enumerate(layers):
        by_layer[:, at] = layer.reshape(-1)[some_pixel]
    return codes.reshape(size), by_layer


def _codes(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct keys in order of first occurrence; return the code of each pixel and one pixel per code."""
    # Neighbouring pixels mostly have the same labels, so that it is many times faster to factorise runs of equal keys.
    runs = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    of_runs, distinct = pd.factorize(key[runs])
    some_pixel = np.empty(len(distinct), dtype=np.int64)
    some_pixel[of_runs] = runs
    return np.repeat(of_runs, np.diff(runs, append=len(key))), some_pixel


def join_layers(codes: np.ndarray, by_layer: np.ndarray, everywhere: Sequence[int]) -> ImageLabels:
    """Return the labels of an image, in which each pixel has a concept at most once.

    Parameters
    ----------
    codes, by_layer
        The palette of the layers, as `palette` returns it.
    everywhere
        The numbers of the image-level labels, which every pixel has. 0 stands for none.
    """
    image_level = np.broadcast_to(np.array(everywhere, dtype=np.int64), (len(by_layer), len(everywhere)))
    table = np.hstack([by_layer, image_level])
    ordered = np.sort(table, axis=1)
    first = ordered > 0
    first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    starts = np.zeros(len(table) + 1, dtype=np.int32)
    np.cumsum(first.sum(axis=1), out=starts[1:])
    code_type = np.uint16 if len(table) <= 1 << 16 else np.uint32
    return ImageLabels(codes.astype(code_type), starts, ordered[first].astype(np.int32))


def _numbers(image: Image.Image) -> Image.Image:
    """Return the pixels of a label file in RGB.

    The colors encode numbers and must be read exactly as stored. Modes that would have to be converted are refused.
    """
    if image.mode not in _LABEL_MODES:
        raise ImageError(f"it has the mode {image.mode}", _EXPECTED_LABELS)
    if has_16_bits(image):
        raise ImageError("it has 16 bits a channel", _EXPECTED_LABELS)
    return image.convert("RGB")


def _read_pixels(
    root: Path,
    name: str,
    line: int,
    size: tuple[int, int] | None,
    formats: tuple[str, ...],
    rgb: Callable[[Image.Image], Image.Image],
) -> Reading[np.ndarray | None]:
    """Read one file below images/ as a uint8 array [h, w, 3]; yield a problem and return None if that fails."""
    path = root / "images" / name
    where = f"(index.csv, line {line})"
    try:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root.resolve()):
            yield Problem(path, None, f"is a link that leaves the folder; copy the file into the data set {where}")
            return None
        with open_image(read_file(path), formats) as image:
            found = (image.height, image.width)
            if size is None or found == size:
                return np.asarray(rgb(image))
        message = f"is {found[0]} x {found[1]} pixels (height x width), but the index states {size[0]} x {size[1]}"
    except FileNotFoundError:
        message = "there is no such file; put it there or correct the index"
    except (ImageError, OSError) as error:
        advice = getattr(error, "advice", None) or "the file is damaged or not an image, fetch it anew"
        reason = getattr(error, "strerror", None) or error
        message = f"cannot be read as {' or '.join(formats)}: {reason}; {advice}"
    yield Problem(path, None, f"{message} {where}")
    return None
