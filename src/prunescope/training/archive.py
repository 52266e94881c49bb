"""Fetching a published archive and taking files out of it."""

from __future__ import annotations

import gzip
import logging
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests
from filelock import FileLock

from prunescope.concepts.download import DownloadBar
from prunescope.errors import InputError
from prunescope.progress import Progress, silent


def fetch_files(
    address: str,
    md5: str,
    archive: Path,
    folder: Path,
    names: Sequence[str],
    progress: Progress = silent,
    *,
    retries: int = 3,
) -> None:
    """Fetch a tar archive and take the files `names` out of it into `folder`: all of them, or none.

    An archive that is there already is used; it is removed once the files are there. Many processes can do this at a
    time: one of them does it.

    Parameters
    ----------
    address, md5
        Of the archive.
    archive
        Where to put it.
    folder
        For the files. Whatever folders they are in within the archive, nothing is written elsewhere.
    names
        Of the files, without folders.
    progress
        Called with the bytes done and all bytes of the download (0: not known).
    retries
        How often to try again, waiting one second, two seconds and so on.

    Raises
    ------
    InputError
        The archive cannot be downloaded, is not the published one, or lacks a file, or `folder` lacks one.
    OSError
        No space is left (ENOSPC).
    """
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive.parent}: is a file; give a folder to put {archive.name} into") from error
    with FileLock(archive.with_name(f".{archive.name}.lock")):
        if all((folder / name).is_file() for name in names):
            return
        if folder.exists():
            raise InputError(f"{folder}: is there, but is not whole; move it away, and it is fetched anew")
        if archive.exists():
            if pooch.file_hash(str(archive), alg="md5") != md5:
                raise InputError(
                    f"{archive}: is not the archive published at {address} (its MD5 is not {md5}), or not whole; "
                    f"remove it, and fetch it anew"
                )
        else:
            _download(address, md5, archive, progress, retries)
        _take_out(archive, folder, names)
        archive.unlink()


def _download(address: str, md5: str, archive: Path, progress: Progress, retries: int) -> None:
    fetcher = pooch.create(
        path=archive.parent,
        base_url="",
        registry={archive.name: f"md5:{md5}"},
        urls={archive.name: address},
        retry_if_failed=retries,
    )
    downloader = pooch.HTTPDownloader(progressbar=DownloadBar(progress), chunk_size=1 << 16, timeout=30)
    try:
        with _quiet(pooch.get_logger()):
            fetcher.fetch(archive.name, downloader=downloader)
    except (ValueError, requests.RequestException) as error:
        raise InputError(
            f"{address}: could not be downloaded, tried {retries + 1} times ({error}); check the connection and run it "
            f"again, or fetch the file by other means and put it at {archive}"
        ) from error


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _take_out(archive: Path, folder: Path, names: Sequence[str]) -> None:
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    missing = set(names)
    try:
        with tarfile.open(archive) as opened:
            for entry in opened:
                # Only names that are expected, as plain files: whatever else an archive holds has no effect.
                name = entry.name.rpartition("/")[2]
                content = opened.extractfile(entry) if name in missing and entry.isfile() else None
                if content is not None:
                    with content, (beside / name).open("xb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
                    missing.remove(name)
        if missing:
            raise InputError(f"{archive}: there is no {', '.join(sorted(missing))} in it; remove it and fetch it anew")
        beside.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{archive}: no whole tar archive ({error}); remove it and fetch it anew") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
