"""Read the data files of a page back, as the browser does."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def read_data(root: Path, name: str) -> Any:
    """The content of one data file of the page of a study, with its arrays decoded."""
    text = (root / "report" / "data" / f"{name}.js").read_text(encoding="ascii")
    found, content = json.loads(f"[{text.removeprefix('prunescope(').removesuffix(');' + chr(10))}]")
    assert found == name
    return decoded(content)


def decoded(content: Any) -> Any:
    if isinstance(content, dict) and set(content) == {"type", "data"}:
        return np.frombuffer(zlib.decompress(base64.b64decode(content["data"])), "<" + content["type"])
    if isinstance(content, dict):
        return {key: decoded(value) for key, value in content.items()}
    return content


def of_units(root: Path, name: str = "units-0-0") -> dict[str, Any]:
    """The units of one layer and trial, with arrays [levels, units, ...]."""
    found = read_data(root, name)
    shape = (len(found["levels"]), len(found["units"]))
    return {
        key: value.reshape(*shape, -1).squeeze(-1) if len(value) == shape[0] * shape[1] else value
        for key, value in found.items()
        if isinstance(value, np.ndarray)
    } | {"levels": found["levels"]}
