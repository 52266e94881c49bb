"""Pack a data set: images and labels decoded once, into one file that every later run maps into memory."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock

from prunescope.concepts.chunks import by_chunks
from prunescope.concepts.contents import state_of_files
from prunescope.concepts.index import Row
from prunescope.concepts.packed_file import Layout, open_packed, pack_labels, packed_path
from prunescope.concepts.pixels import read_image, read_labels
from prunescope.concepts.problems import clean
from prunescope.concepts.tables import Tables, read_tables
from prunescope.errors import InputError
from prunescope.files import expanded, replacing
from prunescope.progress import Progress, silent

_SAMPLE = 64


def pack_concepts(directory: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> Path:
    """Pack the images and labels of a data set into one file, which `open_concepts` uses by itself from then on.

    The file is `packed/concepts.safetensors` in the data set's folder: complete or absent, whatever happens. If it is
    there, fits the data set's files and is not damaged anywhere, which takes reading it, it stays. Several processes
    may pack and read at the same time.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv.
    workers : int, optional
        Processes that read images; as many as there are processors unless told.
    progress : callable, optional
        Called with the number of images packed (or found packed) and the number of all images.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        The data set has a problem, changed while it was packed, or its folder cannot be written to.
    OSError
        No space is left (ENOSPC); what had been written is removed. Mostly known before the first image is read.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    path, layout = packed_path(root), Layout.of(tables.rows)
    with _alone(root, path.parent):
        source = state_of_files(root, tables)
        if _fits(path, layout, source, tables.labels.index.to_numpy(), progress):
            return path
        # Nobody else is packing: what is there is a copy of another state, or was left by a process that was killed.
        for useless in (path, *path.parent.glob(f".{path.stem}.*.part{path.suffix}")):
            useless.unlink(missing_ok=True)
        with replacing(path) as beside:
            _write(beside, root, tables, source, workers, progress)
            if state_of_files(root, clean(read_tables(root))) != source:
                raise InputError(f"{root}: its files changed while they were packed; pack again when they are at rest")
    return path


def packed_size(directory: str | Path) -> int:
    """Tell how many bytes `pack_concepts` will write.

    Exact for up to 64 images. For more, the images are exact and the labels (a tenth of the whole, at the sizes of
    Broden) are an upper estimate: the mean over 64 images spread evenly through the index, plus three times its
    standard error.

    Raises
    ------
    InputError
        The tables have a problem, or one of the sampled images' labels has.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    defined, rows = tables.labels.index.to_numpy(), tables.rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).round().astype(int))
    words = np.array([len(pack_labels(clean(read_labels(root, rows[i], defined)))[0]) // 4 for i in chosen])
    margin = 3 * words.std() / np.sqrt(len(words)) if len(words) < len(rows) else 0.0
    return Layout.of(tables.rows).end(int(np.ceil((words.mean() + margin) * len(rows))))


@contextmanager
def _alone(root: Path, folder: Path) -> Iterator[None]:
    """Keep every other process from packing the same data set."""
    if not Path(os.path.realpath(folder)).is_relative_to(root.resolve()):
        raise InputError(f"{folder}: is a link that leaves the folder; remove it, for the packed copy to be made there")
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror}), but the packed copy would be made there; allow it, or "
            "copy the data set to where you may write"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fits(path: Path, layout: Layout, source: str, defined: np.ndarray, progress: Progress | None) -> bool:
    try:
        open_packed(path, layout, source, defined).check(progress or silent)
    except InputError:
        return False
    return True


class _Packed(NamedTuple):
    """The labels of some images, as they are stored."""

    records: bytes
    spans: np.ndarray  # int64 [images, 4], counted from the first record
    checksums: np.ndarray  # uint32 [images, 2]


def _write(
    path: Path,
    root: Path,
    tables: Tables,
    source: str,
    workers: int | None,
    progress: Progress | None,
) -> None:
    layout = Layout.of(tables.rows)
    labels_at = layout.image(layout.images)
    pack = partial(_pack, path, layout, root, tables.labels.index.to_numpy())
    spans, checksums, words = [], [], 0
    chunks = by_chunks(pack, list(enumerate(tables.rows)), workers, progress)
    # Closed first, so that no process still works when the file is removed for an error.
    with path.open("wb") as file, closing(chunks):
        _allocate(file, labels_at)
        file.seek(labels_at)
        for packed in chunks:
            file.write(packed.records)
            packed.spans[:, 0] += words
            spans.append(packed.spans)
            checksums.append(packed.checksums)
            words += len(packed.records) // 4
        tail = np.concatenate(spans).astype("<i8").tobytes() + np.concatenate(checksums).astype("<u4").tobytes()
        file.write(tail)
        file.seek(0)
        file.write(layout.header(words, source, zlib.crc32(tail)))


def _allocate(file: BinaryIO, length: int) -> None:
    """Reserve the space where that is possible, so that a full disk is known now and not in an hour."""
    try:
        os.posix_fallocate(file.fileno(), 0, length)
    except AttributeError:
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _pack(path: Path, layout: Layout, root: Path, defined: np.ndarray, rows: Sequence[tuple[int, Row]]) -> _Packed:
    """Write some consecutive images to their place in the file; return their labels."""
    records, spans, checksums, words = [], [], [], 0
    with path.open("rb+") as file:
        file.seek(layout.image(rows[0][0]))
        for _, row in rows:
            image = clean(read_image(root, row)).tobytes()
            file.write(image)
            record, lengths = pack_labels(clean(read_labels(root, row, defined)))
            records.append(record)
            spans.append((words, *lengths))
            checksums.append((zlib.crc32(image), zlib.crc32(record)))
            words += len(record) // 4
    return _Packed(b"".join(records), np.array(spans, dtype=np.int64), np.array(checksums, dtype=np.uint32))
