"""The format of the packed copy of a data set: one safetensors file, which is memory-mapped for reading."""

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

# The version of the format. It has to change with every change of the format, so that copies of other versions are
# not misread.
_FORMAT = "prunescope concepts 2"
_HEADER = 4096
_SPAN = 32
_TAIL = _SPAN + 8


class Layout(NamedTuple):
    """The positions of all parts of a packed copy.

    The file consists of a header, the images, the labels of all images, the spans and the checksums. The labels of an
    image (see `ImageLabels`) are stored as 32-bit words: the palette's `starts`, its `numbers`, and the `codes` of the
    pixels with 1, 2 or 4 bytes each, depending on the size of the palette. They are padded to a multiple of 8 bytes.
    The span of an image contains the position of its first word, the number of words, the number of rows of the palette
    and the number of its `numbers`. The checksums are the CRC-32 of each image and of its labels; the header contains
    the CRC-32 of all spans and checksums.
    """

    images: int
    size: Size

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Layout:
        """Return the layout for a data set with these rows in its index. All images must have the same size."""
        size = rows[0].size
        assert size is not None
        return cls(len(rows), size)

    def image(self, i: int) -> int:
        """Return the byte offset of image `i`. For `i` equal to `images`, it is the byte offset of the labels."""
        pixels = 3 * self.size.ih * self.size.iw
        # The header is padded so that the labels begin at a multiple of 8 bytes, whatever the size of the images.
        return _HEADER + -self.images * pixels % 8 + i * pixels

    def end(self, words: int) -> int:
        """Return the size of the file in bytes if the labels take `words` words."""
        return self.image(self.images) + 4 * words + _TAIL * self.images

    def header(self, words: int, source: str, tail: int) -> bytes:
        """Return the header of a packed copy.

        The header is determined completely by the arguments, so that a file's header can be checked by comparing bytes.

        Parameters
        ----------
        words
            The number of words of all labels.
        source
            The hash that identifies the state of the packed files; see `state_of_files`.
        tail
            The CRC-32 of the spans and checksums.
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
    """Return the stored form of an image's labels and the numbers of its words, palette rows and concept numbers."""
    rows = len(labels.starts) - 1
    parts = [labels.starts.astype("<i4"), labels.numbers.astype("<i4"), labels.codes.astype(_code_type(rows))]
    record = b"".join(part.tobytes() for part in parts)
    record += bytes(-len(record) % 8)
    return record, (len(record) // 4, rows, len(labels.numbers))


def _code_type(rows: int) -> str:
    return "<u1" if rows <= 1 << 8 else "<u2" if rows <= 1 << 16 else "<u4"


@dataclass(frozen=True, eq=False)
class PackedFile:
    """A packed copy that is memory-mapped for reading. Unpickling the object maps the same file again.

    The checksums of an image and of its labels are verified when these are first read.

    Attributes
    ----------
    path : Path
        The path of the file.
    layout : Layout
        The positions of all parts of the file.
    source : str
        The hash that identifies the state of the packed files; see `state_of_files`.
    defined : int64 array
        The numbers in label.csv in ascending order.
    images : uint8 array [images, ih, iw, 3]
        The images, read-only.
    words : int32 array
        The labels of all images, read-only.
    spans : int64 array [images, 4]
        The position and the lengths of each image's labels in `words`; see `Layout`.
    checksums : uint32 array [images, 2]
        The CRC-32 of each image and of its labels.
    sound : bool array [images, 2]
        Whether each image and its labels have been read and verified.
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
        """Return a read-only view of image `i`, a uint8 array [ih, iw, 3].

        Raises
        ------
        InputError
            If the image is damaged.
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
            If the labels are damaged.
        """
        first, length, rows, entries = self.spans[i].tolist()
        record = self.words[first : first + length]
        sh, sw = self.layout.size.sh, self.layout.size.sw
        starts, numbers = record[: rows + 1], record[rows + 1 : rows + 1 + entries]
        codes = record[rows + 1 + entries :].view(_code_type(rows))[: sh * sw].reshape(sh, sw)
        if not self.sound[i, 1]:
            # The code that counts pixels relies on these conditions and does not check them again.
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
        """Verify the checksums of some images, and of the labels of some images, unless they are verified already.

        Afterwards these parts of the attributes `images`, `words` and `spans` can be read directly.

        Raises
        ------
        InputError
            If one of the images or labels is damaged.
        """
        for i in images:
            if not self.sound[i, 0]:
                self.image(i)
        for i in labels:
            if not self.sound[i, 1]:
                self.labels(i)

    def check(self, progress: Progress = silent) -> None:
        """Read and verify all images and labels.

        Raises
        ------
        InputError
            If an image or its labels are damaged.
        """
        for i in range(self.layout.images):
            self.image(i)
            self.labels(i)
            progress(i + 1, self.layout.images)

    def _damaged(self, what: str, i: int) -> InputError:
        return InputError(f"{self.path}: {what} {i} (from 0) is damaged in this packed copy; {_again(self.path)}")


def packed_path(root: Path) -> Path:
    """Return the path of the packed copy of a data set, whether or not the file exists."""
    return root / "packed" / "concepts.safetensors"


def open_packed(path: Path, layout: Layout, source: str, defined: np.ndarray) -> PackedFile:
    """Map a packed copy into memory.

    Images and labels are verified later, when they are read.

    Parameters
    ----------
    path
        The path of the file.
    layout
        The expected layout.
    source
        The hash that identifies the expected state of the packed files; see `state_of_files`.
    defined
        The numbers in label.csv in ascending order.

    Raises
    ------
    InputError
        If there is no such file, if it was packed from another state of the files or by another version, or if a part
        other than the images and labels is damaged.
    """
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        # The memmap is converted to a plain array, because slicing an np.memmap is ten times slower.
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
    # Each value is bounded first, because the sum below could overflow otherwise.
    bounded = ((spans >= 0) & (spans <= words)).all() and (rows >= 1).all() and (first + length <= words).all()
    return bool(bounded and (rows + 1 + entries + -(-size.sh * size.sw * widths // 4) <= length).all())


def _again(path: Path) -> str:
    return f"pack it again with `prunescope concepts pack {path.parent.parent}`"
