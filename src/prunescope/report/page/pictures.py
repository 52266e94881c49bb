"""Store the example images of a page once each, as thumbnails on sheets, with the pixels of the concepts on them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunescope.concepts.protocol import Concepts
from prunescope.report.page.data import packed

TILES = 32  # on a sheet, so that a page with few units in view loads few sheets
COLUMNS = 8
QUALITY = 75
# The longest side of a thumbnail for so many images, which keeps the page of a large study below 150 MB.
SIDES = ((2_000, 192), (8_000, 128))
SMALLEST = 90
TRUTH = 56  # the greatest height and width of stored ground truth


@dataclass(frozen=True)
class Pictures:
    """Which images a page shows, and how large.

    Attributes
    ----------
    images : int64 array [tiles]
        The images in the order of their tiles.
    tiles : int32 array [images of the data set]
        The tile of each image; -1 for images that are not shown.
    height, width : int
        The size of a tile in pixels.
    """

    images: NDArray[np.int64]
    tiles: NDArray[np.int32]
    height: int
    width: int

    @property
    def sheets(self) -> int:
        """The number of sheets."""
        return -(-len(self.images) // TILES)


def choose_pictures(shown: Sequence[NDArray[np.int64]], count: int, image_size: tuple[int, int]) -> Pictures:
    """Give each image a tile, in the order in which the page first shows them.

    Parameters
    ----------
    shown : sequence of int64 array
        The images that levels show; -1 stands for none.
    count : int
        The number of images in the data set.
    image_size : (int, int)
        The height and width of the images. Thumbnails are not larger.
    """
    flat = np.concatenate([np.zeros(0, np.int64), *(part.ravel() for part in shown)])
    found, first = np.unique(flat[flat >= 0], return_index=True)
    images = found[np.argsort(first, kind="stable")]
    tiles = np.full(count, -1, np.int32)
    tiles[images] = np.arange(len(images), dtype=np.int32)
    side = next((side for most, side in SIDES if len(images) <= most), SMALLEST)
    scale = min(1.0, side / max(image_size))
    height, width = (max(1, round(scale * length)) for length in image_size)
    return Pictures(images, tiles, height, width)


def sheets(pictures: Pictures, concepts: Concepts, wanted: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Yield the data of each sheet: its thumbnails as one WebP image, and the ground truth on them.

    Parameters
    ----------
    pictures : Pictures
        The images and the size of their tiles.
    concepts : Concepts
        The data set.
    wanted : int64 array [n, 3]
        Tiles, the concepts on them whose pixels the page can show (as numbers of the data set), and their rows in the
        vocabulary, sorted by tile.

    Yields
    ------
    dict
        `image` (base64); `truth`, with `size`, the height and width of the ground truth; `tiles` and `concepts`, the
        place on the sheet and the row of the vocabulary; `ends`, the last index of each in `runs`; and `runs`, lengths
        in reading order that alternate between pixels outside and inside of the concept, beginning outside.
    """
    with ThreadPoolExecutor(2) as pool:
        for number in range(pictures.sheets):
            first = number * TILES
            images = pictures.images[first : first + TILES]
            start, stop = np.searchsorted(wanted[:, 0], [first, first + len(images)])
            thumbnails = pool.map(lambda image: _thumbnail(concepts, int(image), pictures), images)
            yield {
                "image": _sheet(list(thumbnails), pictures),
                "truth": _truth(concepts, pictures, wanted[start:stop], first),
            }


def _thumbnail(concepts: Concepts, image: int, pictures: Pictures) -> Image.Image:
    size = (pictures.width, pictures.height)
    return Image.fromarray(concepts.image(image)).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _sheet(thumbnails: list[Image.Image], pictures: Pictures) -> str:
    rows = -(-len(thumbnails) // COLUMNS)
    sheet = Image.new("RGB", (min(len(thumbnails), COLUMNS) * pictures.width, rows * pictures.height))
    for place, thumbnail in enumerate(thumbnails):
        sheet.paste(thumbnail, (place % COLUMNS * pictures.width, place // COLUMNS * pictures.height))
    stream = io.BytesIO()
    sheet.save(stream, format="WEBP", quality=QUALITY, method=2)
    return base64.b64encode(stream.getvalue()).decode()


def _truth(concepts: Concepts, pictures: Pictures, wanted: NDArray[np.int64], first: int) -> dict[str, Any]:
    height, width = concepts.label_size
    step = max(1, -(-max(height, width) // TRUTH))
    runs: list[NDArray[np.int64]] = []
    for tile in np.unique(wanted[:, 0]):
        labels = concepts.image_labels(int(pictures.images[tile]))
        codes = labels.codes[step // 2 :: step, step // 2 :: step]
        palette = np.repeat(np.arange(len(labels.starts) - 1), np.diff(labels.starts))
        for number in wanted[wanted[:, 0] == tile, 1]:
            holds = np.zeros(len(labels.starts) - 1, bool)
            holds[palette[labels.numbers == number]] = True
            runs.append(run_lengths(holds[codes]))
    size = [len(range(step // 2, length, step)) for length in (height, width)]
    ends = np.cumsum([len(one) for one in runs], dtype=np.int64)
    joined = np.concatenate([np.zeros(0, np.int64), *runs])
    return {
        "size": size,
        "tiles": packed((wanted[:, 0] - first).astype(np.uint8)),
        "concepts": packed(wanted[:, 2].astype(np.int32)),
        "ends": packed(ends.astype(np.int32)),
        "runs": packed(joined.astype(np.uint16)),
    }


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the lengths of runs of a mask in reading order, beginning with False (which may have length 0).

    >>> run_lengths(np.array([[True, True, False], [False, False, True]])).tolist()
    [0, 2, 3, 1]
    """
    flat = np.concatenate([[False], mask.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]]))
