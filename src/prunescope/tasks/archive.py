"""Download a published archive and extract files from it."""

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
    """Download a tar archive and extract the files `names` from it into `folder`: all of them, or none.

    If the archive exists already it is not downloaded. It is removed after the files have been extracted. Several
    processes may make this call at the same time; only one of them then does the work.

    Parameters
    ----------
    address
        The URL of the archive.
    md5
        The MD5 of the archive as 32 hexadecimal digits.
    archive
        The path to download the archive to.
    folder
        The folder to extract the files into. Their folders in the archive are ignored, so nothing is written elsewhere.
    names
        The names of the files, without folders.
    progress
        Called with the number of bytes downloaded and the total number of bytes, which is 0 if it is not known.
    retries
        The number of further attempts after a failed one, made after waiting for one second, two seconds and so on.

    Raises
    ------
    InputError
        If the archive cannot be downloaded, differs from the published one or lacks a file, or if `folder` exists but
        lacks a file.
    OSError
        If there is no space left on the disk (ENOSPC).
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
                # Only regular files with expected names are extracted; all other entries are ignored.
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
