"""Download the published Broden data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prunescope.downloads import Steps, fetch_folder
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.progress import shown_progress

SIZES = (224, 227, 384)
ADDRESS = "http://netdissect.csail.mit.edu/data/broden1_{size}.zip"


def download_broden(
    directory: str | Path,
    size: int,
    *,
    address: str = ADDRESS,
    retries: int = 5,
    backoff: float = 1.0,
    progress: Steps | Literal["auto", False] | None = "auto",
) -> Path:
    """Download the Broden data set of Bau et al. (2017) and extract it, unless it is there already.

    When the archive has been extracted, its SHA-256 is recorded in a file beside it (`broden1_224.zip.json`), and the
    archive is removed. Every later archive of the same name must have the same checksum. If an archive of the expected
    name (`broden1_224.zip`) is already in the folder, for example because it was downloaded by other means, it is used
    instead of a download.

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
    progress : callable, 'auto' or False
        Called with the current step ("downloading", "unzipping" or "already there"), the number of bytes done and the
        total number of bytes (0 if unknown). By default, a bar is shown on standard error if it is a terminal or
        belongs to a notebook. False turns this off.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    InputError
        If Broden is not published in this size, if the archive cannot be downloaded, if it is damaged or differs from
        the recorded checksum, or if it cannot be extracted safely (see `prunescope.archives.unpack`).
    OSError
        If the disk is full (ENOSPC). Incomplete files are removed.
    """
    if size not in SIZES:
        raise InputError(f"size {size}: Broden is published for {', '.join(map(str, SIZES))} only; choose one of them")
    folder = expanded(directory).absolute() / f"broden1_{size}"
    steps = progress if callable(progress) else None
    with shown_progress(False if callable(progress) else progress, folder.name) as bar:
        fetch_folder(
            address.format(size=size),
            folder.with_name(f"{folder.name}.zip"),
            folder,
            ["index.csv"],
            retries=retries,
            backoff=backoff,
            progress=steps or (lambda _step, done, total: bar(done, total)),
        )
    return folder
