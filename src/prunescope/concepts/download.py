"""Download of the published Broden data set.

Failed downloads are repeated, the archive's checksum is recorded, and the data set's folder appears only when it is
complete.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock

from prunescope.concepts.archive import damage, unzip
from prunescope.errors import InputError
from prunescope.files import expanded, replacing, write_json

SIZES = (224, 227, 384)
ADDRESS = "http://netdissect.csail.mit.edu/data/broden1_{size}.zip"

# The arguments are the current step ("downloading", "unzipping" or "already there"), the number of bytes done and the
# total number of bytes (0 if unknown).
Progress = Callable[[str, int, int], None]


def download_broden(
    directory: str | Path,
    size: int,
    *,
    address: str = ADDRESS,
    retries: int = 5,
    backoff: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Download the Broden data set of Bau et al. (2017) and extract it, unless it is there already.

    When an archive has been read completely and is not damaged, its SHA-256 is recorded in a file beside it
    (`broden1_224.zip.json`). Every later archive of the same name must have the same checksum. The archive is removed
    after it has been extracted. If an archive of the expected name (`broden1_224.zip`) is already in the folder, for
    example because it was downloaded by other means, it is used instead of a download.

    Parameters
    ----------
    directory : str or Path
        The folder in which the data set's folder (`broden1_224`) is created.
    size : int
        The height and width of the images in pixels: 224, 227 or 384.
    address : str
        The URL of the archive, in which `{size}` stands for the size.
    retries : int
        The number of retries after failures that may be temporary.
    backoff : float
        The time to wait before the first retry, in seconds. It is doubled for each further retry, up to 60 seconds.
    progress : callable, optional
        Called with the current step ("downloading", "unzipping" or "already there"), the number of bytes done and the
        total number of bytes (0 if unknown).

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If Broden is not published in this size, if the archive cannot be downloaded, if it is damaged or differs from
        the recorded checksum, or if it contains an entry that would be written outside the folder.
    OSError
        If the disk is full (ENOSPC). Incomplete files are removed.
    """
    if size not in SIZES:
        raise InputError(f"size {size}: Broden is published for {', '.join(map(str, SIZES))} only; choose one of them")
    say = progress or (lambda *_: None)
    name = f"broden1_{size}"
    parent = expanded(directory).absolute()
    target, archive = parent / name, parent / f"{name}.zip"
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{parent}: is a file; give a folder to put {name} into") from error
    with FileLock(parent / f".{name}.lock"):
        if (target / "index.csv").is_file():
            say("already there", 1, 1)
            return target
        if target.exists():
            raise InputError(f"{target}: is there, but has no index.csv; move it away, or give another folder")
        if archive.exists():
            _verify(archive, archive, address.format(size=size))
            if not damage(archive):
                _record(archive, archive, address.format(size=size))
        else:
            _fetch(address.format(size=size), archive, retries, backoff, partial(say, "downloading"))
        _unzip_whole(archive, target, partial(say, "unzipping"))
        archive.unlink()
    return target


@dataclass
class DownloadBar:
    """A progress bar for pooch that calls `show` with the number of bytes done and the total number of bytes."""

    show: Callable[[int, int], None]
    total: int = 0
    done: int = 0

    def update(self, count: int) -> None:
        """Add `count` received bytes."""
        self.done = min(self.done + count, self.total or self.done + count)
        self.show(self.done, self.total)

    def reset(self) -> None:
        """Set the number of bytes done to zero."""
        self.done = 0

    def close(self) -> None:
        """Do nothing; pooch calls this method at the end."""


def _fetch(address: str, archive: Path, retries: int, backoff: float, show: Callable[[int, int], None]) -> None:
    """Download the archive and verify it, with retries after failures that may be temporary."""
    for attempt in range(retries + 1):
        try:
            with replacing(archive) as beside:
                pooch.HTTPDownloader(progressbar=DownloadBar(show), timeout=30)(address, str(beside), None)
                _verify(beside, archive, address)
                if why := damage(beside):
                    # If the server does not send the file's length, an interrupted download is not detected otherwise.
                    raise requests.ConnectionError(f"what came is not a whole zip archive: {why}")
                _record(beside, archive, address)
            return
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            passing = status is None or status >= 500 or status in (408, 429)
            if attempt == retries or not passing:
                raise InputError(
                    f"{address}: could not be downloaded, tried {attempt + 1} times ({error}); check the address and "
                    f"the connection and run it again, or fetch the file by other means and put it at {archive}"
                ) from error
            time.sleep(min(backoff * 2**attempt, 60))


def _verify(file: Path, archive: Path, address: str) -> None:
    """Raise if a checksum is recorded for the archive and the file's checksum differs from it."""
    record = archive.with_name(f"{archive.name}.json")
    if not record.exists():
        return
    found = pooch.file_hash(str(file), alg="sha256")
    try:
        content: Any = json.loads(record.read_text(encoding="utf-8"))
        expected = content["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{record}: holds no checksum; remove it, and the next download records it anew") from error
    if found != expected:
        raise InputError(
            f"{archive}: its SHA-256 is {found}, but {record.name} records {expected}; the file is damaged or not the "
            f"one of the first download. Remove {archive.name} if it is there and download it again from {address}; "
            f"remove {record.name} too if you know that the published file has changed"
        )


def _record(file: Path, archive: Path, address: str) -> None:
    """Record the checksum of an undamaged file as that of the archive, unless a checksum is recorded already."""
    record = archive.with_name(f"{archive.name}.json")
    if not record.exists():
        found = pooch.file_hash(str(file), alg="sha256")
        write_json(record, {"address": address, "bytes": file.stat().st_size, "sha256": found})


def _unzip_whole(archive: Path, target: Path, show: Callable[[int, int], None]) -> None:
    """Extract the top folder of the archive to `target`, either completely or not at all."""
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        unzip(archive, beside, show)
        if not (beside / target.name / "index.csv").is_file():
            raise InputError(f"{archive}: no {target.name}/index.csv in it; this is another archive, remove it")
        (beside / target.name).rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
