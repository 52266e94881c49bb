"""Unzip an archive that nobody vouches for: nothing is written outside the folder it is unzipped into."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from prunescope.errors import InputError


def unzip(archive: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Unzip `archive` into the new folder `folder`.

    Every name is looked at before anything is written. Files get no permissions, owners or links from the archive.

    Parameters
    ----------
    archive : Path
        A zip file.
    folder : Path
        Is made, and must not be there yet. It is left as it is on an error: remove it then.
    progress : callable, optional
        Called with the number of bytes written and the number of all bytes.

    Raises
    ------
    InputError
        The file is not a zip archive or is damaged, or an entry is encrypted, a link or device, or has a name that
        leaves the folder.
    OSError
        The entries need more space than the device has left (ENOSPC).
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _refuse_tricks(archive, entries)
            total = sum(entry.file_size for entry in entries)
            folder.mkdir(parents=True)
            if total > shutil.disk_usage(folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            written = 0
            for entry in entries:
                target = folder / entry.filename
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # "x": an entry can replace nothing, not even another entry.
                with opened.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                written += entry.file_size
                if progress:
                    progress(written, total)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise InputError(f"{archive}: not a whole zip archive ({error}); remove it and download it again") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive}: two entries have the name {error.filename}; do not trust this archive") from error


def damage(archive: Path) -> str | None:
    """Read a zip archive to its end; say what is damaged, None if nothing is.

    Entries that cannot be read for another reason, as encrypted ones, are left to `unzip`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.flag_bits & 1:
                    continue
                try:
                    with opened.open(entry) as source:
                        while source.read(1 << 20):
                            pass
                except NotImplementedError:
                    continue
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, zlib.error) as error:
        return str(error) or "it ends too early"
    return None


def _refuse_tricks(archive: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if reason := _trick(entry):
            raise InputError(
                f"{archive}: the entry {entry.orig_filename!r} {reason}; nothing was unzipped. Do not trust this "
                "archive: remove it and download it again from the published address"
            )


def _trick(entry: zipfile.ZipInfo) -> str | None:
    """Say why an entry cannot be unzipped; None if it can."""
    # The name as it stands in the archive: zipfile cuts it at a NUL and changes separators.
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if ".." in name.split("/"):
        return "leaves the folder"
    if name.startswith("/") or name[1:2] == ":":
        return "is absolute"
    if "\\" in name or not name.isprintable() or not name.strip("/."):
        return "has a name that is none"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    return "is encrypted" if entry.flag_bits & 1 else None
