"""Extract archives that are not trusted, without writing outside the target folder."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from prunescope.errors import InputError
from prunescope.progress import Progress, silent

MOST_BYTES = 1 << 37  # of all files of an archive together
MOST_ENTRIES = 10_000_000  # files and folders of an archive
_BLOCK = 1 << 20
_DISTRUST = "Do not trust this archive: remove it and download it again from the published address"


class DamagedError(Exception):
    """The error that is raised when an archive is incomplete or damaged."""


def unpack(
    archive: Path,
    folder: Path,
    progress: Progress = silent,
    *,
    most_bytes: int = MOST_BYTES,
    most_entries: int = MOST_ENTRIES,
) -> None:
    """Extract an archive that is not trusted into a new folder.

    All entries are checked before anything is written. Permissions and owners in the archive are not restored.

    Parameters
    ----------
    archive
        The archive: a zip archive if its name ends in `.zip`, and a tar archive otherwise.
    folder
        The folder to create; it must not exist yet. After an error it can contain some of the files, and the caller
        has to remove it.
    progress
        Called with the number of bytes written and the total number of bytes.
    most_bytes, most_entries
        The largest total size of the extracted files in bytes, and the largest number of files and folders.

    Raises
    ------
    InputError
        If the file is not an archive or is damaged; if it is larger than the limits; or if an entry is encrypted, is a
        link or a device, or has an invalid name, such as one that leads out of the folder or that another entry has
        too.
    OSError
        If the device has too little space for the entries (ENOSPC).
    """
    try:
        with _reading(archive) as entries:
            total = _checked_size(archive, entries(), most_bytes, most_entries)
            folder.mkdir(parents=True)
            if total > shutil.disk_usage(folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            written = 0
            for entry in entries():
                target = folder / entry.name
                if entry.is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # The mode "x" ensures that no entry replaces an existing file or another entry.
                with entry.open() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
                written += entry.size
                progress(written, total)
    except DamagedError as error:
        raise InputError(
            f"{archive}: is damaged or not an archive ({error}); remove it and download it again"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{archive}: two entries have the name {error.filename}; do not trust this archive and remove it"
        ) from error


def _checked_size(archive: Path, entries: Iterable[_Entry], most_bytes: int, most_entries: int) -> int:
    """Raise if one of the entries must not be extracted or there are too many; return their total size in bytes."""
    total = 0
    for count, entry in enumerate(entries, 1):
        if entry.problem:
            raise InputError(f"{archive}: the entry {entry.name!r} {entry.problem}; nothing was extracted. {_DISTRUST}")
        total += entry.size
        # The limits are checked at every entry, because just listing a compressed tar archive decompresses all of it.
        if total > most_bytes or count > most_entries:
            raise InputError(
                f"{archive}: contains more than {most_bytes:,} bytes or {most_entries:,} files, which is the limit; "
                f"nothing was extracted. {_DISTRUST}"
            )
    return total


class _Entry(NamedTuple):
    """A file or folder in an archive, whatever the format."""

    name: str
    size: int
    is_folder: bool
    problem: str | None  # why it must not be extracted
    open: Callable[[], IO[bytes]]


@contextmanager
def _reading(archive: Path) -> Iterator[Callable[[], Iterator[_Entry]]]:
    """Open an archive and yield a function that iterates over its entries.

    Errors due to damage, which zipfile, tarfile and the decompressors report by many types, are raised as DamagedError.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                yield partial(_zip_entries, zipped)
        else:
            with tarfile.open(archive) as tarred:
                yield partial(_tar_entries, tarred)
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(f"{archive}: cannot be extracted ({error}); extract it by other means") from error
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError,
    ) as error:  # fmt: skip
        raise DamagedError(str(error) or "it ends too early") from error
    except OSError as error:
        # Errors of gzip and bz2 about their data have no number. A wrong offset in the archive is an invalid seek.
        if error.errno is not None and (error.errno, error.filename) != (errno.EINVAL, None):
            raise
        raise DamagedError(str(error)) from error


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for entry in archive.infolist():
        # `orig_filename` is the name as stored in the archive; in `filename`, zipfile cuts it at a NUL character and
        # replaces separators.
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        problem = _problem(name, plain) or ("is encrypted" if entry.flag_bits & 1 else None)
        yield _Entry(name, entry.file_size, name.endswith("/"), problem, partial(archive.open, entry))


def _tar_entries(archive: tarfile.TarFile) -> Iterator[_Entry]:
    for entry in archive:
        # tarfile accepts negative sizes, which make it read the same entry again and again.
        invalid = "has a negative size" if entry.size < 0 else None
        problem = invalid or _problem(entry.name, entry.isreg() or entry.isdir())
        yield _Entry(entry.name, entry.size, entry.isdir(), problem, partial(_open_in_tar, archive, entry))


def _open_in_tar(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(entry)
    if opened is None:
        raise DamagedError(f"the entry {entry.name!r} is not a file")
    return opened


def _problem(name: str, plain: bool) -> str | None:
    """Return the reason why an entry must not be extracted, or None; `plain` is False for links and devices."""
    if ".." in name.split("/"):
        return "leads out of the folder"
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute path"
    if "\\" in name or not name.isprintable() or not name.strip("/."):
        return "has an invalid name"
    return None if plain else "is a link or a device, not a file"


def damage(archive: Path) -> str | None:
    """Read an archive to its end and return a description of the damage, or None if it is not damaged.

    An archive that `unpack` refuses for another reason, such as a link in it, does not count as damaged.
    """
    try:
        with _reading(archive) as entries:
            _checked_size(archive, entries(), MOST_BYTES, MOST_ENTRIES)
            for entry in entries():
                if not entry.is_folder:
                    with entry.open() as source:
                        while source.read(_BLOCK):
                            pass
    except DamagedError as error:
        return str(error)
    except InputError:
        return None
    return None
