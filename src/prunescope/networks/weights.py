"""Read weights from files and load them into networks.

No code in a file is run, and a network is changed only after all weights have been checked against it.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.files import replacing
from prunescope.networks.prefixes import fit_names

# The names that training scripts usually give to the weights in a checkpoint. Under any other name, weights are found
# only if no other entry of the checkpoint is a tensor or a mapping of tensors by name.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model")

# Many checkpoints also contain a best accuracy or the command line. These types are read as `_Inert` objects.
_INERT_GLOBALS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "argparse.Namespace",
)

_SHOWN = 10


class _Inert:
    """A placeholder for a value other than the weights in a checkpoint; it discards the value and runs no code."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's weights into a network, in place.

    Parameters
    ----------
    model
        The network. It is unchanged if the file cannot be used.
    path
        A safetensors file, or a file written by `torch.save` that contains tensors by name or a checkpoint. In a
        checkpoint, the weights are under `state_dict`, `model_state_dict` or `model`, or under another name if no
        other entry contains tensors by name. All names of the network's tensors may have a common prefix such as
        `module.` or `model.`; tensors without the prefix are then ignored with a warning. Only tensors are read: a
        file with code is refused, and the code is not run.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or contains code or no weights; if its weights do not fit the network
        (the message lists the first ten tensors that are missing, unknown or of another shape); if two parts of the
        file fit, such as a student and its teacher; or if a tensor's type cannot be converted to that of the network
        (quantised or complex, for example).

    Warns
    -----
    UserWarning
        If tensors of the file are ignored, such as averaged weights beside the trained ones, or contain values that are
        not finite.
    """
    fit_weights(model, read_tensors(path), path)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights and buffers to a safetensors file.

    Parameters
    ----------
    model
        The network. Tensors that share memory are written once per name.
    path
        The file to write. If writing fails, no incomplete file is left, and an existing file is kept unchanged.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with replacing(Path(path)) as beside:
        # `save_file` is not used because it replaces the OSError of a full disk by an error of its own.
        beside.write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a weights file, as `load_weights` describes it.

    Parameters
    ----------
    path
        A safetensors file, or a file written by `torch.save`.

    Returns
    -------
    dict of str to Tensor
        The tensors by the names in the file, on the CPU.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or contains code or no weights.
    """
    path = Path(path)
    try:
        # Opening a pipe would block until another program writes to it.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"weights file {path} cannot be read: it is no file, but a pipe or a device")
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"weights file {path} cannot be read: {error.strerror}") from error
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    return _named_tensors(_read_torch(path), path)


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Load named tensors into a network, in place, if all of them fit.

    Parameters
    ----------
    model
        The network. It is unchanged if the tensors do not fit.
    tensors
        The tensors by name, as `read_tensors` returns them. `num_batches_tracked` may be missing.
    path
        The file that they were read from, for messages.

    Raises
    ------
    InputError
        If the tensors do not fit, as in `load_weights`.

    Warns
    -----
    UserWarning
        If tensors are ignored or contain values that are not finite, as in `load_weights`.
    """
    own = model.state_dict()
    fit = fit_names(model, tensors)
    if fit.others:
        shown = " and ".join(f"as {prefix}*" if prefix else "without a prefix" for prefix in fit.others)
        raise InputError(
            f"the weights in {path} fit the network {type(model).__name__} more than once, with different values: "
            f"{shown}. Save those that are meant alone: torch.save({{name.removeprefix(PREFIX): tensor for name, "
            "tensor in WEIGHTS.items() if name.startswith(PREFIX)}, NEW_FILE)"
        )
    given, missing = fit.tensors, fit.missing
    unknown = [name for name in given if name not in own]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or unknown or other:
        lines = [f"{name}: the network has {_shape(own[name])}, the file {_shape(given[name])}" for name in other]
        lines += [f"{name}: {_shape(own[name])} in the network, missing from the file" for name in missing]
        lines += [f"{name}: {_shape(given[name])} in the file, unknown to the network" for name in unknown]
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise InputError(
            f"the weights in {path} do not fit the network {type(model).__name__}: of its {len(own)} tensors "
            f"{len(other)} have another shape and {len(missing)} are missing from the file; {len(unknown)} in the file "
            "are unknown to the network. Give the network that the file was made with.\n  "
            + "\n  ".join(lines[:_SHOWN] + more)
        )
    model.load_state_dict(_loadable(model, given, path), strict=False)
    if fit.ignored:
        warnings.warn(
            f"{path}: the tensors named {fit.prefix}* are the network's; the others are ignored: "
            f"{_listed(fit.ignored)}",
            stacklevel=2,
        )


def classes_in(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of weights that differ from a network only in that number.

    Parameters
    ----------
    model
        The network, built for another number of classes.
    tensors
        The tensors by name, as `read_tensors` returns them.

    Returns
    -------
    int or None
        The common number of rows of all tensors with another shape than in the network. None if there is no such
        tensor, or if they differ in more than the number of rows.

    Examples
    --------
    >>> classes_in(nn.Linear(8, 1000), nn.Linear(8, 365).state_dict())
    365
    """
    own = model.state_dict()
    given = fit_names(model, tensors).tensors
    pairs = [(own[name].shape, given[name].shape) for name in own if name in given]
    pairs = [(here, there) for here, there in pairs if here != there]
    if any(not here or not there or here[1:] != there[1:] for here, there in pairs):
        return None
    rows = {(here[0], there[0]) for here, there in pairs}
    return (rows.pop()[1] or None) if len(rows) == 1 else None


@contextmanager
def tensors_only() -> Iterator[None]:
    """Restrict `torch.load` to tensors within the context, even where other packages ask it to unpickle objects."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights file {path} cannot be read as safetensors ({error}): it is damaged or of another format; fetch "
            "or write it again (where a study wrote it: remove it and run the study again)"
        ) from error
    return tensors


def _read_torch(path: Path) -> Any:
    inert = [(_Inert, name) for name in _INERT_GLOBALS]
    try:
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():  # type: ignore[arg-type]
            # torch warns about unusual pickle protocols. A file that cannot be read raises an error anyway.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)", str(error))
        if code is None:
            raise _damaged(path, error) from error
        raise InputError(
            f"weights file {path} holds more than weights: reading it would run {code[1]}. prunescope reads tensors "
            "only, and ran nothing of it. If you trust where it is from, convert it: "
            "`model = torch.load(FILE, weights_only=False)`, then `torch.save(model.state_dict(), NEW_FILE)`"
        ) from error
    # A damaged pickle or archive can raise any exception.
    except Exception as error:
        raise _damaged(path, error) from error


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


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        known = [key for key in _WEIGHT_KEYS if isinstance(content.get(key), Mapping)]
        # Under another name, a mapping of tensors by name is taken as the weights if it is the only one.
        parts = [value for value in content.values() if _is_tensors_by_name(value)]
        if known:
            chosen = content[known[0]]
            similar = [
                str(key)
                for key, value in content.items()
                if key != known[0] and _is_tensors_by_name(value) and value.keys() == chosen.keys()
            ]
            if similar:
                warnings.warn(
                    f"{path}: the weights under {known[0]!r} are used; tensors of the same names under "
                    f"{', '.join(map(repr, similar))} are ignored",
                    stacklevel=3,
                )
            content = chosen
        elif len(parts) == 1 and not any(isinstance(value, Tensor) for value in content.values()):
            content = parts[0]
    if not isinstance(content, Mapping):
        raise InputError(f"weights file {path} holds a {type(content).__name__}, not tensors by name")
    others = [f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        held = _listed(others) or "nothing"
        raise InputError(
            f"weights file {path} does not hold tensors by name, at its top, under {', '.join(_WEIGHT_KEYS)} or under "
            f"one other name alone, but {held}; save the network's state_dict() alone"
        )
    for name, tensor in content.items():
        if tensor.is_nested:
            raise InputError(
                f"weights file {path}: its tensor {name!r} is nested, expected numbers of one shape; save the "
                "network's weights as dense tensors"
            )
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _is_tensors_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _loadable(model: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Convert the tensors of a file to the dtypes of the network's tensors, or raise if that is not possible."""
    own = model.state_dict()
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    loadable: dict[str, Tensor] = {}
    for name, tensor in given.items():
        kind, wanted = tensor.dtype, own[name].dtype
        if tensor.is_meta:
            raise _unfit(path, name, "has no values, only a shape (device meta)", "save a network that has weights")
        if tensor.is_quantized or (name in parameters and not (kind.is_floating_point or kind.is_complex)):
            raise _unfit(path, name, f"is quantised or of whole numbers ({kind})", "save weights of real numbers")
        if kind.is_complex and not wanted.is_complex:
            raise _unfit(path, name, f"is complex ({kind}), the network's is {wanted}", "give the network of that file")
        plain = tensor if tensor.layout == torch.strided else tensor.to_dense()
        cast = plain.to(wanted)
        if not (wanted.is_floating_point or wanted.is_complex) and not torch.equal(cast.to(kind), plain):
            raise _unfit(path, name, f"is {kind}, the network's is {wanted}", "give the network of that file")
        loadable[name] = cast
    # Buffers may contain infinity on purpose, as attention masks do.
    spoilt = [
        name
        for name, tensor in loadable.items()
        if tensor.isnan().any() or (name in parameters and not tensor.isfinite().all())
    ]
    if spoilt:
        warnings.warn(
            f"{path}: {len(spoilt)} of its {len(loadable)} tensors hold nan or infinity as {own[spoilt[0]].dtype}, so "
            f"that what the network puts out means nothing where it depends on them: {_listed(spoilt)}",
            stacklevel=3,
        )
    return loadable


def _unfit(path: str | Path, name: str, found: str, instead: str) -> InputError:
    return InputError(f"the weights in {path} cannot be used: {name} {found}; {instead}")


def _listed(names: Sequence[str]) -> str:
    more = f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
