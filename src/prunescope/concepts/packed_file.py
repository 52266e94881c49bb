"""The packed copy of a data set: one file in safetensors' format, mapped into memory and never copied as a whole."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunescope.concepts.index import Row, Size
from prunescope.concepts.pixels import ImageLabels
from prunescope.errors import InputError
from prunescope.progress import Progress, silent

# Changes with whatever is stored in another way, so that copies of other versions are not misread.
_FORMAT = "prunescope concepts 2"
_HEADER = 4096
_SPAN = 32
_TAIL = _SPAN + 8


class Layout(NamedTuple):
    """Where things are in a packed copy: a header, the images, the labels of each image, their spans, the checksums.

    The labels of an image are 32-bit words: the palette's `starts`, its `numbers`, and the pixels' codes in 1, 2 or 4
    bytes as the palette needs, filled up to 8 bytes. A span says where they begin (in words), how many words there
    are, how many rows the palette has, and how many numbers. The checksums are CRC-32s of each image and of its
    labels; the header holds one of the spans and checksums together.
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
        return self.image(self.images) + 4 * words + _TAIL * self.images

    def header(self, words: int, source: str, tail: int) -> bytes:
        """Return the header of the copy of a `source`: fully determined, so that comparing it is checking it.

        Parameters
        ----------
        words
            How many words the labels take.
        source
            The fingerprint of what is packed.
        tail
            The checksum of the spans and checksums.
        """
        size = self.size
        spans = self.image(self.images) + 4 * words
        ends = (self.image(self.images), spans, spans + _SPAN * self.images, self.end(words))
        places = [0, *(end - self.image(0) for end in ends)]
        arrays = {
            "images": ("U8", [self.images, size.ih, size.iw, 3]),
            "labels": ("I32", [words]),
            "spans": ("I64", [self.images, 4]),
            "checksums": ("U32", [self.images, 2]),
        }
        metadata = {"format": _FORMAT, "source": source, "label_size": f"{size.sh},{size.sw}", "tail": f"{tail:08x}"}
        header: dict[str, object] = {"__metadata__": metadata}
        for (name, (dtype, shape)), place in zip(arrays.items(), itertools.pairwise(places), strict=True):
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        room = self.image(0) - 8
        return room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room)


def pack_labels(labels: ImageLabels) -> tuple[bytes, tuple[int, int, int]]:
    """Return an image's labels as they are stored, with how many words, rows of the palette and numbers these are."""
    rows = len(labels.starts) - 1
    parts = [labels.starts.astype("<i4"), labels.numbers.astype("<i4"), labels.codes.astype(_code_type(rows))]
    record = b"".join(part.tobytes() for part in parts)
    record += bytes(-len(record) % 8)
    return record, (len(record) // 4, rows, len(labels.numbers))


def _code_type(rows: int) -> str:
    return "<u1" if rows <= 1 << 8 else "<u2" if rows <= 1 << 16 else "<u4"


@dataclass(frozen=True, eq=False)
class PackedFile:
    """A packed copy, mapped for reading; pickling it maps the same file again elsewhere.

    Each image and each image's labels are held against their checksum when they are first read.

    Attributes
    ----------
    path : Path
        The file.
    layout : Layout
        Where things are in it.
    source : str
        The fingerprint of what was packed.
    defined : int64 array
        The numbers of label.csv, ascending.
    images : uint8 array [images, ih, iw, 3]
        Read-only.
    words : int32 array
        The labels of all images, read-only.
    spans : int64 array [images, 4]
        Which words are an image's.
    checksums : uint32 array [images, 2]
        Of each image and of its labels.
    sound : bool array [images, 2]
        Which of these have been read and found to be as they were packed.
    """

    path: Path
    layout: Layout
    source: str
    defined: np.ndarray
    images: np.ndarray
    words: np.ndarray
    spans: np.ndarray
    checksums: np.ndarray
    sound: np.ndarray

    def __reduce__(self) -> tuple[object, ...]:
        return open_packed, (self.path, self.layout, self.source, self.defined)

    def image(self, i: int) -> np.ndarray:
        """Return image `i` as uint8 [ih, iw, 3], read-only, without copying it.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        image: np.ndarray = self.images[i]
        if not self.sound[i, 0]:
            if zlib.crc32(image.data) != self.checksums[i, 0]:
                raise self._damaged("image", i)
            self.sound[i, 0] = True
        return image

    def labels(self, i: int) -> ImageLabels:
        """Return the labels of image `i`.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        first, length, rows, entries = self.spans[i].tolist()
        record = self.words[first : first + length]
        sh, sw = self.layout.size.sh, self.layout.size.sw
        starts, numbers = record[: rows + 1], record[rows + 1 : rows + 1 + entries]
        codes = record[rows + 1 + entries :].view(_code_type(rows))[: sh * sw].reshape(sh, sw)
        if not self.sound[i, 1]:
            # Counting pixels relies on all of these without looking again.
            if (
                zlib.crc32(record.data) != self.checksums[i, 1]
                or (codes.max() >= rows or starts[0] != 0 or starts[-1] != entries)
                or (starts[1:] < starts[:-1]).any()
                or not np.isin(numbers, self.defined).all()
            ):
                raise self._damaged("the labels of image", i)
            self.sound[i, 1] = True
        return ImageLabels(codes.astype(np.uint16) if codes.itemsize == 1 else codes, starts, numbers)

    def verify(self, images: Iterable[int] = (), labels: Iterable[int] = ()) -> None:
        """Hold some images, and the labels of some, against their checksums, unless that was done before.

        `images`, `words` and `spans` can be read directly afterwards.

        Raises
        ------
        InputError
            The file is damaged there.
        """
        for i in images:
            if not self.sound[i, 0]:
                self.image(i)
        for i in labels:
            if not self.sound[i, 1]:
                self.labels(i)

    def check(self, progress: Progress = silent) -> None:
        """Read the whole file.

        Raises
        ------
        InputError
            It is damaged anywhere.
        """
        for i in range(self.layout.images):
            self.image(i)
            self.labels(i)
            progress(i + 1, self.layout.images)

    def _damaged(self, what: str, i: int) -> InputError:
        return InputError(f"{self.path}: {what} {i} (from 0) is damaged in this packed copy; {_again(self.path)}")


def packed_path(root: Path) -> Path:
    """Return where the packed copy of a data set is, or would be."""
    return root / "packed" / "concepts.safetensors"


def open_packed(path: Path, layout: Layout, source: str, defined: np.ndarray) -> PackedFile:
    """Map the packed copy of a `source`, whose labels have the numbers `defined`.

    Raises
    ------
    InputError
        There is none, or it does not fit: another source, another version, damage to what is not an image or its
        labels. Those are looked at when they are read.
    """
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        # One plain array: slices of np.memmap itself are ten times slower.
        content = np.asarray(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_again(path)}") from error
    labels, spans_at = layout.image(layout.images), content.size - _TAIL * layout.images
    words = (spans_at - labels) // 4
    header = layout.image(0)
    if words < 0 or layout.end(words) != content.size or not _has_header(content, layout, words, source):
        raise InputError(
            f"{path}: was not packed from the files as they are now (an image, a label or the index has changed, or "
            f"another version packed it), or is damaged; {_again(path)}"
        )
    checksums_at = spans_at + _SPAN * layout.images
    spans = content[spans_at:checksums_at].view("<i8").reshape(layout.images, 4)
    if not _inside(spans, layout.size, words):
        raise InputError(f"{path}: is damaged; {_again(path)}")
    return PackedFile(
        path=path,
        layout=layout,
        source=source,
        defined=defined,
        images=content[header:labels].reshape(layout.images, layout.size.ih, layout.size.iw, 3),
        words=content[labels:spans_at].view("<i4"),
        spans=spans,
        checksums=content[checksums_at:].view("<u4").reshape(layout.images, 2),
        sound=np.zeros((layout.images, 2), dtype=bool),
    )


def _has_header(content: np.ndarray, layout: Layout, words: int, source: str) -> bool:
    tail = zlib.crc32(content[content.size - _TAIL * layout.images :].data)
    return content[: layout.image(0)].tobytes() == layout.header(words, source, tail)


def _inside(spans: np.ndarray, size: Size, words: int) -> bool:
    first, length, rows, entries = spans.T
    widths = np.select([rows <= 1 << 8, rows <= 1 << 16], [1, 2], 4)
    # Each is bounded first: their sum could overflow.
    bounded = ((spans >= 0) & (spans <= words)).all() and (rows >= 1).all() and (first + length <= words).all()
    return bool(bounded and (rows + 1 + entries + -(-size.sh * size.sw * widths // 4) <= length).all())


def _again(path: Path) -> str:
    return f"pack it again with `prunescope concepts pack {path.parent.parent}`"
