"""Reading and writing of whole files.

Files are written under a temporary name in the same folder and then renamed, so that a file is either complete or
absent.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from prunescope.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# File systems allow names of 255 bytes. The limit leaves room for the prefix and the suffixes that are added to a name,
# among them the ones that mark an incomplete file.
LONGEST_NAME = 180
# The host, which older versions left out, and the number of the process that writes a file.
_MADE_BY = re.compile(r"(?:([0-9a-f]{8})-)?([0-9]{1,10})")
_EXPECTED_NAME = (
    "a name without slashes or control characters that does not consist only of dots and has at most "
    f"{LONGEST_NAME} bytes"
)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace a leading `~` or `~user` by the user's home folder; an unknown user's `~user` is left unchanged."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises an error for an unknown user


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file. Pipes, devices and other files that might never end are refused.

    Raises
    ------
    OSError
        If the file is missing, cannot be read or is not a regular file.
    """
    found = os.stat(path)  # noqa: PTH116 - there can be a million paths, and creating a Path for each is slow
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        reason = os.strerror(code) if code == errno.EISDIR else "Not a regular file"
        raise OSError(code, reason, os.fspath(path))
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), os.fspath(path)) from error


def check_folder(path: Path) -> None:
    """Raise if a folder cannot be created or written to, before any work is done that would be lost.

    Parameters
    ----------
    path
        The folder, which need not exist.

    Raises
    ------
    InputError
        If the path, or the closest parent that exists, is a file or is not writable.
    """
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir():
        raise InputError(f"{path}: {there} is a file, not a folder; give the path of a folder, which need not exist")
    if not os.access(there, os.W_OK):
        raise InputError(f"{path}: {there} is not writable; give a folder that you can write to")


def name_problem(name: str) -> str | None:
    """Return the reason why a name cannot name an entry of a folder, or None if it can.

    Names of layers, recipes and weights files become the names of files and folders. They may come from a file that
    somebody else wrote, and must not lead out of the folder.

    >>> name_problem("layer4.2"), name_problem("../layer4")
    (None, 'it would leave its folder')
    """
    if not isinstance(name, str) or not name.strip():
        return "it is empty"
    if name.strip(".") == "" or PurePath(name).name != name or "/" in name or "\\" in name:
        return "it would leave its folder"
    if problem := text_problem(name):
        return problem
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "it contains a control character"
    if len(name.encode()) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None


def text_problem(text: str) -> str | None:
    """Return the reason why a text cannot be used as a path or be written to a file, or None if it can."""
    if "\0" in text:
        return "it contains a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "it cannot be written as UTF-8"
    return None


def inside(folder: str | os.PathLike[str], name: str, what: str = "the name") -> Path:
    """Return the path of the file or folder called `name` in `folder`.

    Parameters
    ----------
    folder
        The folder that contains the entry.
    name
        The name of the entry. It may come from an untrusted file.
    what
        A description of the name, which begins the error message.

    Raises
    ------
    InputError
        If the name would lead out of the folder or cannot be the name of a file; see `name_problem`.
    """
    if problem := name_problem(name):
        raise InputError(
            f"{what} {_shortened(name)!r} cannot name a file in {folder}: {problem}; expected {_EXPECTED_NAME}"
        )
    return Path(folder) / name


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:40]}..."


def file_name(name: str) -> str:
    """Return `name` unchanged if it can name a file within a folder. This function serves as a field validator.

    Raises
    ------
    ValueError
        If the name cannot be used; see `name_problem`.
    """
    if problem := name_problem(name):
        raise ValueError(f"cannot name a file: {problem}; expected {_EXPECTED_NAME}")
    return name


def refuse_links_out(folder: Path, names: Iterable[str]) -> None:
    """Raise if one of the named subfolders is a link that leads out of `folder`, before anything is written there.

    Files need no such check: they are always replaced, never written to through a link.

    Raises
    ------
    InputError
        If a subfolder is such a link.
    """
    root = folder.resolve()
    for name in names:
        path = folder / name
        if not path.resolve().is_relative_to(root):
            raise InputError(
                f"{path} is a link that leads out of {folder}, to {path.resolve()}; nothing was written. Remove the "
                "link, or replace it with a copy of the folder that it leads to"
            )


def part_path(path: Path) -> Path:
    """Return the path beside `path` under which this process writes a file or folder until it is complete.

    Whatever processes that have ended left there for the same `path` is removed, because a process that is killed
    cannot remove its own. Processes of other computers, which may share the file system, are assumed to be running.
    """
    host = f"{zlib.crc32(socket.gethostname().encode()):08x}"
    # A file system may allow a name that leaves no room for the additions.
    stem = path.stem if len(path.stem.encode()) <= LONGEST_NAME else f"{zlib.crc32(path.stem.encode()):08x}"
    if path.parent.is_dir():
        start, end = f".{stem}.", f".part{path.suffix}"
        for entry in os.scandir(path.parent):
            made = _MADE_BY.fullmatch(entry.name[len(start) : -len(end)])
            if not entry.name.startswith(start) or not entry.name.endswith(end) or made is None:
                continue
            # If a link has the name, writing to it would change the file that it points to, so it is removed as well.
            if made[1] in (None, host) and (int(made[2]) == os.getpid() or not _is_running(int(made[2]))):
                _remove(Path(entry.path))
    return path.with_name(f".{stem}.{host}-{os.getpid()}.part{path.suffix}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder as `path`; rename it to `path` on success and remove it on failure.

    The temporary path has the suffix of `path`, because some writers choose the format by the suffix. Missing parent
    folders are created.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as beside:
    ...     _ = beside.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part_path(path)
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        # The error for a full disk does not name the file, so the name is added.
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to a file as UTF-8."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to a file as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, as Parquet if the path ends in `.parquet` and as CSV otherwise."""
    with replacing(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        else:
            table.to_csv(beside, index=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named NumPy arrays, and optional metadata, to a safetensors file."""
    import numpy as np
    from safetensors.numpy import save

    # The bytes are written here because the errors of safetensors' own writer hide the cause, such as a full disk.
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata or {}))
    with replacing(path) as beside:
        beside.write_bytes(content)
