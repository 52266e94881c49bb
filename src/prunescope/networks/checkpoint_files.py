"""Read the content of checkpoint files without running code from them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from prunescope.errors import InputError
from prunescope.files import inside, read_file

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"

# Many checkpoints also contain a best accuracy, paths or the command line. These types are read as `Inert` objects.
_INERT_GLOBALS = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
)

_SHOWN = 10


class Inert:
    """A placeholder for a value other than a tensor in a checkpoint; it discards the value and runs no code."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_content(path: str | Path) -> Any:
    """Read the content of a checkpoint.

    Parameters
    ----------
    path
        A safetensors file; a file written by `torch.save`; an index of several such files
        (`model.safetensors.index.json`); or a folder that contains `model.safetensors.index.json` or
        `model.safetensors`. The files that an index lists must be in the folder of the index.

    Returns
    -------
    Any
        What was saved, with its tensors on the CPU: usually tensors by name, or a dictionary that contains them.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or contains objects that cannot be read without running code.
    """
    path = Path(path)
    try:
        if path.is_dir():
            path = _in_folder(path)
        # Opening a pipe would block until another program writes to it.
        if path.exists() and not path.is_file():
            raise InputError(
                f"weights file {path} cannot be read: it is not a file but a pipe or a device; write its content to a "
                "file and give that"
            )
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"weights file {path} cannot be read: {error.strerror}") from error
    if path.suffix == ".json":
        return _read_index(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    return _read_torch(path)


def checkpoint_paths(path: str | Path) -> list[Path]:
    """Return the files that `read_content` reads for a checkpoint: one file, or an index and the files that it lists.

    Raises
    ------
    InputError
        If a folder contains no weights, or if an index cannot be read or lists files that do not exist.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    return [path, *_shards(path, _weight_map(path)).values()] if path.suffix == ".json" else [path]


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, separated by commas, and the number of the others."""
    more = f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _in_folder(folder: Path) -> Path:
    for name in (_INDEX, _WHOLE):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"weights file {folder} cannot be read: it is a folder without {_INDEX} or {_WHOLE}; give the file of weights "
        "itself"
    )


def _weight_map(path: Path) -> dict[str, str]:
    """Read an index of weights, and return the name of the file of each tensor."""
    try:
        content = json.loads(read_file(path))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"index of weights {path} cannot be read as JSON ({error}); fetch it again") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise InputError(
            f'{path} is not an index of weights: expected {{"weight_map": {{TENSOR: FILE, ...}}}}, as transformers '
            "writes it; give the file of weights itself"
        )
    return files


def _shards(path: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """Return the path of each file that an index lists, by its name there."""
    shards = {file: inside(path.parent, file, f"{path}: the file") for file in files.values()}
    absent = [file for file, shard in shards.items() if not shard.is_file()]
    if absent:
        raise InputError(
            f"{path} lists {len(shards)} files, and {len(absent)} of them are missing in {path.parent}: "
            f"{listed(absent)}. Put all of them there"
        )
    return shards


def _read_index(path: Path) -> dict[str, Any]:
    files = _weight_map(path)
    shards = _shards(path, files)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, file in files.items():
        names[file].append(name)
    tensors: dict[str, Any] = {}
    for file, shard in shards.items():
        part = _read_safetensors(shard) if shard.suffix == ".safetensors" else _read_torch(shard)
        missing = [name for name in names[file] if not isinstance(part, Mapping) or name not in part]
        if missing:
            raise InputError(
                f"{path} lists tensors in {file} that this file does not contain: {listed(missing)}. The index and the "
                "files are of different checkpoints; fetch them again"
            )
        tensors |= {name: part[name] for name in names[file]}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"weights file {path} cannot be read as safetensors ({error}): it is damaged or has another format; fetch "
            "or write it again (if a study wrote it, remove it and run the study again)"
        ) from error
    return tensors


def _read_torch(path: Path) -> Any:
    inert = [(Inert, name) for name in _INERT_GLOBALS]
    try:
        with (
            torch.serialization.safe_globals(inert),  # type: ignore[arg-type]
            # A sparse tensor with indices outside of its shape would be written outside of its memory.
            torch.sparse.check_sparse_tensor_invariants(),  # type: ignore[no-untyped-call]
            warnings.catch_warnings(),
        ):
            # torch warns about unusual pickle protocols. A file that cannot be read raises an error anyway.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)", str(error))
        if code is None:
            raise _damaged(path, error) from error
        raise _refused(path, code[1]) from error
    # A damaged pickle or archive can raise any exception.
    except Exception as error:
        if "TorchScript archive" in str(error):
            raise _scripted(path) from error
        raise _damaged(path, error) from error


def _refused(path: Path, code: str) -> InputError:
    return InputError(
        f"weights file {path} contains more than tensors: reading it would run code ({code}). prunescope reads only "
        "tensors, and ran nothing. If you trust the source of the file, convert it with these three lines of Python "
        "where it was made (if the file contains a dictionary, write the key of its weights instead of 'state_dict'), "
        "and give the new file:\n"
        "  import torch\n"
        f"  content = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        "  torch.save(content.state_dict() if isinstance(content, torch.nn.Module) else content['state_dict'], "
        f"{str(_converted(path))!r})"
    )


def _scripted(path: Path) -> InputError:
    return InputError(
        f"weights file {path} contains a TorchScript program and not only tensors, and prunescope runs no code from "
        "files of weights. If you trust its source, convert it with these three lines of Python, and give the new "
        "file:\n"
        "  import torch\n"
        f"  model = torch.jit.load({str(path)!r}, map_location='cpu')\n"
        f"  torch.save(model.state_dict(), {str(_converted(path))!r})"
    )


def _converted(path: Path) -> Path:
    return path.with_name(f"{path.stem}-weights.pth")


def _damaged(path: Path, error: Exception) -> InputError:
    if path.stat().st_size == 0:
        what = "it is empty"
    elif zipfile.is_zipfile(path):
        what = f"it is an archive without readable weights ({_first_line(error)})"
    else:
        what = f"it is damaged, cut short, or neither safetensors nor written by torch.save ({_first_line(error)})"
    return InputError(f"weights file {path} cannot be read: {what}; fetch or write it again")


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0].split(". ")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
