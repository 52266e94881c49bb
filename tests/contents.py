"""What is in a folder, to be compared with another one."""

from __future__ import annotations

import hashlib
from pathlib import Path


def contents(folder: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the hash of each file by its path, but of files whose names end in one of `without`."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(without)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
