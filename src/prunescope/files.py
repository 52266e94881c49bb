"""Reading whole files, and writing files that are complete or absent: written beside, then renamed."""

from __future__ import annotations

import errno
import json
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from prunescope.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# File systems allow 255 bytes; names get a beginning, an ending, and the mark of a file that is not complete yet.
LONGEST_NAME = 180
_EXPECTED_NAME = f"one name without slashes or control characters, not only of dots, of at most {LONGEST_NAME} bytes"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace a leading `~` by the user's home; that of a user who is not known stays, as a name that is not there."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises there


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file, and refuse what would never end, such as a pipe or a device.

    Raises
    ------
    OSError
        The file is missing, cannot be read or is not a regular file.
    """
    found = os.stat(path)  # noqa: PTH116 - paths come as plain text too, a million of them
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        reason = os.strerror(code) if code == errno.EISDIR else "Not a regular file"
        raise OSError(code, reason, os.fspath(path))
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), os.fspath(path)) from error


def name_problem(name: str) -> str | None:
    """Say why a name cannot be that of one file or folder within another folder; None if it can.

    Names of layers, recipes and weights files become files and folders, and a study's files may come from elsewhere.

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
        return "it holds a control character"
    if len(name.encode()) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None


def text_problem(text: str) -> str | None:
    """Say why a text cannot be a path or be written to a file; None if it can."""
    if "\0" in text:
        return "it holds a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "it cannot be written as UTF-8"
    return None


def inside(folder: str | os.PathLike[str], name: str, what: str = "the name") -> Path:
    """Return the path of the file or folder called `name` in `folder`.

    Parameters
    ----------
    folder
        Any folder.
    name
        The name of one entry of it, which may come from a file that somebody else wrote.
    what
        What is called so, for the message.

    Raises
    ------
    InputError
        The name would leave the folder or cannot be that of a file; see `name_problem`.
    """
    if problem := name_problem(name):
        raise InputError(
            f"{what} {_shortened(name)!r} cannot name a file in {folder}: {problem}; expected {_EXPECTED_NAME}"
        )
    return Path(folder) / name


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:40]}..."


def file_name(name: str) -> str:
    """Return a name that can be that of one file within a folder, for the validation of fields.

    Raises
    ------
    ValueError
        It cannot; see `name_problem`.
    """
    if problem := name_problem(name):
        raise ValueError(f"cannot name a file: {problem}; expected {_EXPECTED_NAME}")
    return name


def refuse_links_out(folder: Path, names: Iterable[str]) -> None:
    """Refuse folders within `folder` that are links to a place outside of it, before anything is written into them.

    Files need no such check: they are replaced and never written through a link.

    Raises
    ------
    InputError
        One is such a link.
    """
    root = folder.resolve()
    for name in names:
        path = folder / name
        if not path.resolve().is_relative_to(root):
            raise InputError(
                f"{path} is a link that leads out of {folder}, to {path.resolve()}; nothing was written. Remove the "
                "link, or copy the folder that it leads to in its place"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` on success, remove it otherwise.

    The file keeps its ending, so that writers that choose a format by it work. Parent folders are made.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as beside:
    ...     _ = beside.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        # A link of this name would be written through.
        beside.unlink(missing_ok=True)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        # A full disk does not say which file it has no room for.
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, as parquet or CSV by the path's ending."""
    with replacing(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        else:
            table.to_csv(beside, index=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named NumPy arrays as safetensors."""
    import numpy as np
    from safetensors.numpy import save

    # Written as bytes, since safetensors' own writer hides why a disk refused (no space left, say).
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata or {}))
    with replacing(path) as beside:
        beside.write_bytes(content)
