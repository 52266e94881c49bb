"""Hard links between files of studies."""

from __future__ import annotations

import shutil
from pathlib import Path

from prunescope.files import replacing


def link(file: str | Path, other: str | Path) -> None:
    """Create the hard link `other` to `file`, or a copy if the file system does not support hard links."""
    with replacing(Path(other)) as beside:
        try:
            beside.hardlink_to(file)
        except OSError:
            shutil.copy2(file, beside)
