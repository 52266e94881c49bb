"""Extraction of untrusted zip archives, which never writes outside the target folder."""

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
    """Extract a zip archive into a new folder.

    All names are checked before anything is written. Permissions, owners and links in the archive are not restored.

    Parameters
    ----------
    archive : Path
        The zip file.
    folder : Path
        The folder to create; it must not exist yet. After an error it can contain some of the files, and the caller
        has to remove it.
    progress : callable, optional
        Called with the number of bytes written and the total number of bytes.

    Raises
    ------
    InputError
        If the file is not a zip archive or is damaged, or if an entry is encrypted, is a link or a device, or has an
        invalid name, such as one that leads out of the folder or that another entry has too.
    OSError
        If the device has too little space for the entries (ENOSPC).
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
                # The mode "x" ensures that no entry replaces an existing file or another entry.
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
    """Read a zip archive to its end and return a description of the damage, or None if it is not damaged.

    Entries that cannot be read for another reason, such as encrypted ones, are skipped here; `unzip` refuses them.
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
    """Return the reason why an entry must not be extracted, or None if it can be."""
    # `orig_filename` is the name as stored in the archive; in `filename`, zipfile cuts it at a NUL character and
    # replaces separators.
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
