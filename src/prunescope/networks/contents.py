"""List the user's files that a network is built from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from prunescope.files import expanded, read_file
from prunescope.listings import Listing, list_files


def list_network(name: str) -> Listing:
    """List the user's files that a network is built from.

    Parameters
    ----------
    name
        The network's name, as `build_network` takes it.

    Returns
    -------
    Listing
        For `path/to/file.py:function`, the file and the modules in its folder that it imports, directly or through
        other modules of the folder; only import statements are followed. For `hf:FOLDER`, the configuration and the
        weights. For other networks, which use no files of the user, the list is empty.
    """
    kind, _, rest = name.partition(":")
    if kind == "hf":
        folder = expanded(rest)
        found = sorted(
            {folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")}
        )
        return list_files((path.name, str(path)) for path in found)
    if kind in ("torchvision", "timm", "prunescope"):
        return list_files(())
    file = expanded(name.rpartition(":")[0] if ".py:" in name else name).absolute()
    folder = file.parent
    return list_files((path.relative_to(folder).as_posix(), str(path)) for path in _imported(file, folder))


def _imported(file: Path, folder: Path) -> list[Path]:
    """Return a file followed by the files of its folder that it imports, directly or indirectly."""
    found, left = {file: None}, [file]
    while left:
        path = left.pop()
        for module in _modules(path, folder):
            if module not in found:
                found[module] = None
                left.append(module)
    first, *others = found
    return [first, *sorted(others)]


def _modules(path: Path, folder: Path) -> Iterator[Path]:
    """Yield the files within a folder that one file imports."""
    try:
        tree = ast.parse(read_file(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        # Running the file later raises an error that explains what is wrong with it.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = [path.parent, *path.parent.parents]
            start = folder if node.level == 0 else above[min(node.level, len(above)) - 1]
            if start == folder or folder in start.parents:
                module = node.module.split(".") if node.module else []
                yield from _files(start, module)
                for alias in node.names:
                    yield from _files(start, [*module, alias.name])


def _files(start: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files of a module and of the packages that contain it."""
    for length in range(1, len(parts) + 1):
        at = start.joinpath(*parts[:length])
        yield from (file for file in (at.with_name(f"{at.name}.py"), at / "__init__.py") if file.is_file())
