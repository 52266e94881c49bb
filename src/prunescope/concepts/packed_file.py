"""The packed copy of a data set: one file in safetensors' format, mapped into memory and never copied as a whole."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunescope.concepts.index import Row, Size
from prunescope.concepts.pixels import ImageLabels
from prunescope.errors import InputError

# Changes with whatever is stored in another way, so that copies of other versions are not misread.
_FORMAT = "prunescope concepts 1"
_HEADER = 4096


class Layout(NamedTuple):
    """Where things stand in a packed copy: a header, the images, the labels of each image, the labels' spans.

    The labels of an image are 32-bit words: the palette's `starts`, its `numbers`, and the pixels' codes in 1, 2 or 4
    bytes as the palette needs, filled up to 8 bytes. Its span is where they begin (in words), how many rows the
    palette has, and how many numbers.
    """

    images: int
    size: Size

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Layout:
        """Return the layout of the packed copy of a data set with these lines in its index, all of one size."""
        size = rows[0].size
        assert size is not None
        return cls(len(rows), size)

    def image(self, i: int) -> int:
        """Return where image `i` begins, in bytes; where the labels begin for `i` = `images`."""
        pixels = 3 * self.size.ih * self.size.iw
        # The header is filled up so that the labels, after any number of bytes, begin at a multiple of 8.
        return _HEADER + -self.images * pixels % 8 + i * pixels

    def end(self, words: int) -> int:
        """Return how long the file is whose labels take `words` words, in bytes."""
        return self.image(self.images) + 4 * words + 24 * self.images

    def header(self, words: int, source: str) -> bytes:
        """Return the header of the copy of a `source`: fully determined, so that comparing it is checking it."""
        size = self.size
        places = [0, *(end - self.image(0) for end in (self.image(self.images), self.end(words) - 24 * self.images))]
        places.append(self.end(words) - self.image(0))
        arrays = {
            "images": ("U8", [self.images, size.ih, size.iw, 3]),
            "labels": ("I32", [words]),
            "spans": ("I64", [self.images, 3]),
        }
        header: dict[str, object] = {
            "__metadata__": {"format": _FORMAT, "source": source, "label_size": f"{size.sh},{size.sw}"}
        }
        for (name, (dtype, shape)), place in zip(arrays.items(), itertools.pairwise(places), strict=True):
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        room = self.image(0) - 8
        return room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room)


def pack_labels(labels: ImageLabels) -> tuple[bytes, tuple[int, int]]:
    """Return an image's labels as they are stored, with the palette's number of rows and of numbers."""
    rows = len(labels.starts) - 1
    parts = [labels.starts.astype("<i4"), labels.numbers.astype("<i4"), labels.codes.astype(_code_type(rows))]
    record = b"".join(part.tobytes() for part in parts)
    return record + bytes(-len(record) % 8), (rows, len(labels.numbers))


def _code_type(rows: int) -> str:
    return "<u1" if rows <= 1 << 8 else "<u2" if rows <= 1 << 16 else "<u4"


@dataclass(frozen=True, eq=False)
class PackedFile:
    """A packed copy, mapped for reading; pickling it maps the same file again elsewhere.

    Attributes
    ----------
    path : Path
        The file.
    layout : Layout
        Where things stand in it.
    source : str
        The fingerprint of what was packed.
    images : uint8 array [images, ih, iw, 3]
        Read-only.
    words : int32 array
        The labels of all images, read-only.
    spans : int64 array [images, 3]
        Which words are an image's.
    """

    path: Path
    layout: Layout
    source: str
    images: np.ndarray
    words: np.ndarray
    spans: np.ndarray

    def __reduce__(self) -> tuple[object, ...]:
        return open_packed, (self.path, self.layout, self.source)

    def image(self, i: int) -> np.ndarray:
        """Return image `i` as uint8 [ih, iw, 3], read-only, without copying it."""
        image: np.ndarray = self.images[i]
        return image

    def labels(self, i: int) -> ImageLabels:
        """Return the labels of image `i`.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        first, rows, entries = self.spans[i].tolist()
        sh, sw = self.layout.size.sh, self.layout.size.sw
        starts = self.words[first : first + rows + 1]
        numbers = self.words[first + rows + 1 : first + rows + 1 + entries]
        dtype = np.dtype(_code_type(rows))
        rest = self.words[first + rows + 1 + entries :][: math.ceil(sh * sw * dtype.itemsize / 4)]
        codes = rest.view(dtype)[: sh * sw].reshape(sh, sw)
        # Counting pixels relies on these without looking again; a damaged file must not reach beyond its arrays.
        if codes.max() >= rows or starts[0] != 0 or starts[-1] != entries or (starts[1:] < starts[:-1]).any():
            raise InputError(f"{self.path}: the labels of image {i} are damaged; {_again(self.path)}")
        return ImageLabels(codes.astype(np.uint16) if dtype.itemsize == 1 else codes, starts, numbers)


def packed_path(root: Path) -> Path:
    """Return where the packed copy of a data set is, or would be."""
    return root / "packed" / "concepts.safetensors"


def open_packed(path: Path, layout: Layout, source: str) -> PackedFile:
    """Map the packed copy of a `source`.

    Raises
    ------
    InputError
        There is none, or it does not fit: another source, another version, a damaged file.
    """
    try:
        # One plain array: slices of np.memmap itself are ten times slower.
        content = np.asarray(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_again(path)}") from error
    labels, spans_at = layout.image(layout.images), content.size - 24 * layout.images
    words = (spans_at - labels) // 4
    header = layout.image(0)
    if words < 0 or layout.end(words) != content.size or content[:header].tobytes() != layout.header(words, source):
        raise InputError(
            f"{path}: was not packed from the files as they are now (an image, a label or the index has changed, or "
            f"another version packed it); {_again(path)}"
        )
    spans = content[spans_at:].view("<i8").reshape(layout.images, 3)
    if not _inside(spans, layout.size, words):
        raise InputError(f"{path}: is damaged; {_again(path)}")
    images = content[header:labels].reshape(layout.images, layout.size.ih, layout.size.iw, 3)
    return PackedFile(path, layout, source, images, content[labels:spans_at].view("<i4"), spans)


def _inside(spans: np.ndarray, size: Size, words: int) -> bool:
    first, rows, entries = spans.T
    widths = np.select([rows <= 1 << 8, rows <= 1 << 16], [1, 2], 4)
    # Each is bounded first: their sum could overflow.
    bounded = ((spans >= 0) & (spans <= words)).all() and (rows >= 1).all()
    return bool(bounded and (first + rows + 1 + entries + -(-size.sh * size.sw * widths // 4) <= words).all())


def _again(path: Path) -> str:
    return f"pack it again with `prunescope concepts pack {path.parent.parent}`"
