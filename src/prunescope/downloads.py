"""Download files and published archives. A downloaded file and an extracted folder are either complete or absent."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests
from filelock import FileLock

from prunescope.archives import DamagedError, damage, unpack
from prunescope.errors import InputError
from prunescope.files import replacing, write_json
from prunescope.progress import Progress, silent
from prunescope.reading import read_json

# The arguments are the current step ("downloading", "unzipping" or "already there"), the number of bytes done and the
# total number of bytes (0 if unknown).
Steps = Callable[[str, int, int], None]


def fetch_folder(
    address: str,
    archive: Path,
    folder: Path,
    files: Sequence[str],
    *,
    checksum: str | None = None,
    retries: int = 5,
    backoff: float = 1.0,
    progress: Steps | None = None,
) -> None:
    """Download an archive and extract the folder that it contains, unless the folder is there already.

    If the archive exists already, for example because it was downloaded by other means, it is used instead of a
    download. It is removed after it has been extracted. Several processes may make this call at the same time; only
    one of them then does the work.

    Parameters
    ----------
    address
        The URL of the archive.
    archive
        The path to download the archive to: a zip archive if it ends in `.zip`, and a tar archive otherwise.
    folder
        The folder to create. The archive contains a folder of the same name, which is moved here.
    files
        Names of files in that folder. The folder is complete if these exist.
    checksum
        The published checksum of the archive, such as `"md5:c32a..."`. By default, the SHA-256 of the first archive
        that was extracted is recorded in a file beside it (`ARCHIVE.json`), and every later archive must have the same.
    retries
        The number of retries after failures that may be temporary.
    backoff
        The time to wait before the first retry, in seconds. It is doubled for each further retry, up to 60 seconds.
    progress
        Called with the current step ("downloading", "unzipping" or "already there"), the number of bytes done and the
        total number of bytes (0 if unknown).

    Raises
    ------
    InputError
        If the archive cannot be downloaded, is damaged, has another checksum, lacks one of the files or cannot be
        extracted safely (see `unpack`), or if `folder` exists but lacks one of the files.
    OSError
        If the disk is full (ENOSPC). Incomplete files are removed.
    """
    report = progress or (lambda *_: None)
    # A folder is renamed once it is complete. A complete one is accepted without a lock, because it may be in a place
    # that cannot be written to.
    if folder.is_dir() and not _missing(folder, files):
        report("already there", 1, 1)
        return
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive.parent}: is a file; give a folder in which to store {folder.name}") from error
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        missing = _missing(folder, files)
        if not missing:
            report("already there", 1, 1)
            return
        if folder.exists():
            raise InputError(
                f"{folder}: exists but does not contain {missing}; move it away and run this again, or give another "
                "folder"
            )
        expected = checksum or _recorded(archive)
        verify = partial(_verify, archive=archive, address=address, checksum=expected, published=checksum is not None)
        if archive.exists():
            try:
                verify(archive)
            except DamagedError as error:
                raise InputError(f"{archive}: is damaged or incomplete ({error}); {_remove(address)}") from error
        else:
            download(
                address,
                archive,
                verify=verify,
                retries=retries,
                backoff=backoff,
                progress=partial(report, "downloading"),
            )
        beside = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            unpack(archive, beside, partial(report, "unzipping"))
            if missing := _missing(beside / folder.name, files):
                raise InputError(
                    f"{archive}: does not contain {folder.name}/{missing}, so it is another archive; {_remove(address)}"
                )
            if expected is None:
                _record(archive, address)
            (beside / folder.name).rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        archive.unlink()


def download(
    address: str,
    file: Path,
    *,
    verify: Callable[[Path], None],
    retries: int = 5,
    backoff: float = 1.0,
    progress: Progress = silent,
) -> None:
    """Download a file, with retries after failures that may be temporary.

    Parameters
    ----------
    address
        The URL of the file.
    file
        The path to download the file to. The file appears there only when it is complete and verified.
    verify
        A function that is called with the path of the received file. It raises `DamagedError` if another attempt may
        help, and another error if not.
    retries, backoff
        As in `fetch_folder`.
    progress
        Called with the number of bytes received and the total number of bytes (0 if unknown).

    Raises
    ------
    InputError
        If the file cannot be downloaded.
    OSError
        If the disk is full (ENOSPC).
    """
    for attempt in range(retries + 1):
        try:
            with replacing(file) as beside:
                downloader = pooch.HTTPDownloader(progressbar=_Bar(progress), chunk_size=1 << 16, timeout=30)
                downloader(address, str(beside), None)
                verify(beside)
            return
        except InputError:
            raise
        # pooch raises ValueError if the server sends a length that is not a number.
        except (requests.RequestException, DamagedError, ValueError) as error:
            if attempt == retries or not _may_pass(error):
                times = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
                raise InputError(
                    f"{address}: could not be downloaded after {times} ({error}); check the address and the connection "
                    f"and run this again, or download the file by other means and save it as {file}"
                ) from error
            time.sleep(min(backoff * 2**attempt, 60))


@dataclass
class _Bar:
    """A progress bar for pooch that calls `show` with the number of bytes done and the total number of bytes."""

    show: Progress
    total: int = 0
    done: int = 0

    def update(self, count: int) -> None:
        self.done = min(self.done + count, self.total or self.done + count)
        self.show(self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Do nothing; pooch calls this method at the end."""


def _may_pass(error: Exception) -> bool:
    """Return whether another attempt may help: not for a malformed address or a refusal by the server."""
    response = error.response if isinstance(error, requests.RequestException) else None
    if response is None:
        return not isinstance(error, ValueError)
    return response.status_code >= 500 or response.status_code in (408, 429)


def _verify(file: Path, *, archive: Path, address: str, checksum: str | None, published: bool) -> None:
    """Raise if a file is damaged or does not have the checksum that is published or recorded for the archive."""
    kind, _, expected = (checksum or "").partition(":")
    found = pooch.file_hash(str(file), alg=kind) if checksum else None
    if checksum and found == expected:
        return
    # If the server does not send the file's length, an interrupted download is not detected otherwise.
    if why := damage(file):
        raise DamagedError(f"the file is not a complete archive: {why}")
    if not checksum:
        return
    name = {"md5": "MD5", "sha256": "SHA-256"}.get(kind, kind)
    if published:
        raise InputError(
            f"{archive}: its {name} is {found}, but the archive published at {address} has {expected}, so the file is "
            "damaged or another one; remove it if it exists and run this again"
        )
    record = _record_of(archive).name
    raise InputError(
        f"{archive}: its {name} is {found}, but {record} records {expected}, so the file is damaged or not the "
        f"archive of the first download. Remove {archive.name} if it exists and download it again from {address}; "
        f"remove {record} too if you know that the published file has changed"
    )


def _record_of(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.json")


def _recorded(archive: Path) -> str | None:
    """Return the recorded checksum of an archive, or None if there is no record."""
    record = _record_of(archive)
    if not record.exists():
        return None
    advice = "remove it, and it is recorded again"
    content = read_json(record, advice)
    if "sha256" not in content:
        raise InputError(f"{record}: does not contain a checksum; {advice}")
    return f"sha256:{content['sha256']}"


def _record(archive: Path, address: str) -> None:
    found = pooch.file_hash(str(archive), alg="sha256")
    write_json(_record_of(archive), {"address": address, "bytes": archive.stat().st_size, "sha256": found})


def _missing(folder: Path, files: Sequence[str]) -> str:
    return ", ".join(name for name in files if not (folder / name).is_file())


def _remove(address: str) -> str:
    return f"remove it and download it again from {address}"
