"""Files that are complete or absent: written beside, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace a leading `~` by the user's home; that of a user who is not known stays, as a name that is not there."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises there


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
