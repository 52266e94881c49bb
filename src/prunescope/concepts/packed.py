"""Pack a data set: decode all images and labels once and write them to one file, for fast access later on."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.concepts.chunks import by_chunks
from prunescope.concepts.contents import state_of_files
from prunescope.concepts.index import Row
from prunescope.concepts.packed_file import Layout, open_packed, pack_labels, packed_path
from prunescope.concepts.pixels import read_image, read_labels
from prunescope.concepts.problems import clean
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.tables import Tables, read_tables
from prunescope.errors import InputError
from prunescope.files import expanded, replacing
from prunescope.progress import Progress, Shown, shown_progress

_SAMPLE = 64
Data = TypeVar("Data", bound=Concepts)


class NotWritableError(InputError):
    """Raised if the folder of a data set cannot be written to, so that no packed copy can be made."""


def pack_concepts(directory: str | Path, *, workers: int | None = None, progress: Shown = "auto") -> Path:
    """Write the decoded images and labels of a data set to one file, so that later runs read them faster.

    The file is `packed/concepts.safetensors` in the data set's folder, and `open_concepts` uses it automatically. It
    is either complete or absent, even if packing is interrupted. An existing file is read completely, and it is kept
    if it is undamaged and matches the files of the data set. Several processes may pack and read at the same time.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv.
    workers : int, optional
        The number of processes that read images. By default, it is the number of processors.
    progress : callable, 'auto' or False
        Called with the number of images packed (or verified in an existing file) and the total number of images. By
        default, a bar is shown on standard error if it is a terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    Path
        The path of the file.

    Raises
    ------
    InputError
        If the data set has a problem, if it changes while it is packed, or if its folder cannot be written to.
    OSError
        If the disk is full (ENOSPC). The incomplete file is removed. On most file systems, this error is raised before
        the first image is read, because the space for the images is reserved.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    path, layout = packed_path(root), Layout.of(tables.rows)
    with _alone(root, path.parent), shown_progress(progress, "packing") as report:
        source = state_of_files(root, tables)
        if _fits(path, layout, source, tables.labels.index.to_numpy(), report):
            return path
        # No other process is packing now, so that any existing file is outdated, damaged or was left incomplete by a
        # process that was killed.
        for useless in (path, *path.parent.glob(f".{path.stem}.*.part{path.suffix}")):
            useless.unlink(missing_ok=True)
        with replacing(path) as beside:
            _write(beside, root, tables, source, workers, report)
            if state_of_files(root, clean(read_tables(root))) != source:
                raise InputError(
                    f"{root}: its files changed while they were packed; pack again when they no longer change"
                )
    return path


def with_packed_copy(data: Data) -> Data:
    """Return a data set with a packed copy, which is written first if there is none.

    Permuted labels read the labels of each image many times, in another order than that of the index, for which a
    packed copy is made. A warning states that it is written or, if the folder cannot be written to or the disk is full,
    that there is none.

    Parameters
    ----------
    data
        The data set. It is returned as it is if it is not in Broden's format, if it is a sample (reading the whole data
        set would take longer), or if there is a packed copy already, even if that is outdated.

    Raises
    ------
    InputError
        If an image or a label file is missing or damaged.
    """
    if not isinstance(data, ConceptData) or data.packed is not None or data.sample is not None:
        return data
    if packed_path(data.root).exists():
        return data
    warnings.warn(
        f"{data.root} has no packed copy, from which permuted labels are read fastest; it is written now, once. With "
        "chance=0 (--chance 0), none is written",
        stacklevel=2,
    )
    # Scripts without a main guard, and processes that may not start others, can use only one process.
    alone = multiprocessing.get_start_method() != "fork" or multiprocessing.current_process().daemon
    try:
        pack_concepts(data.root, workers=1 if alone else None)
    except (NotWritableError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        warnings.warn(
            f"no packed copy could be written ({error}); the labels are decoded twice instead, which takes longer",
            stacklevel=2,
        )
        return data
    there = open_concepts(data.root)
    same = there.rows == data.rows and there.labels.equals(data.labels)
    return dataclasses.replace(data, packed=there.packed) if same else data


def packed_size(directory: str | Path) -> int:
    """Estimate the size of the file that `pack_concepts` writes, in bytes.

    The result is exact for up to 64 images. For more images, the size of the labels (a tenth of the total for Broden)
    is an upper estimate: the mean over 64 images spread evenly over the index, plus three standard errors of the mean.

    Raises
    ------
    InputError
        If the tables or the labels of a sampled image have a problem.
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
    """Hold a lock, so that no other process packs the same data set at the same time."""
    if not Path(os.path.realpath(folder)).is_relative_to(root.resolve()):
        raise InputError(
            f"{folder}: is a link that leaves the folder; remove it, because the packed copy is made there"
        )
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise
        raise NotWritableError(
            f"{folder}: cannot be written to ({error.strerror}), but the packed copy would be made there; make it "
            "writable, or copy the data set to a writable folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fits(path: Path, layout: Layout, source: str, defined: np.ndarray, progress: Progress) -> bool:
    try:
        open_packed(path, layout, source, defined).check(progress)
    except InputError:
        return False
    return True


class _Packed(NamedTuple):
    """The labels of some images in the format of the packed file."""

    records: bytes
    spans: np.ndarray  # int64 [images, 4], with positions relative to the first record
    checksums: np.ndarray  # uint32 [images, 2]


def _write(
    path: Path,
    root: Path,
    tables: Tables,
    source: str,
    workers: int | None,
    progress: Progress,
) -> None:
    layout = Layout.of(tables.rows)
    labels_at = layout.image(layout.images)
    pack = partial(_pack, path, layout, root, tables.labels.index.to_numpy())
    spans, checksums, words = [], [], 0
    chunks = by_chunks(pack, list(enumerate(tables.rows)), workers, progress)
    # The chunks are closed explicitly, so that all worker processes have ended when the file is removed after an error.
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
    """Reserve disk space if the system supports it, so that a full disk is detected before the long computation."""
    try:
        os.posix_fallocate(file.fileno(), 0, length)
    except AttributeError:
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _pack(path: Path, layout: Layout, root: Path, defined: np.ndarray, rows: Sequence[tuple[int, Row]]) -> _Packed:
    """Write some consecutive images to their position in the file and return their labels."""
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
