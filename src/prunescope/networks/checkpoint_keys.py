"""Find the weights, and the masks beside them, within the content of a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prunescope.errors import InputError, nearest
from prunescope.networks.checkpoint_files import Inert, listed, read_content

# The names that training scripts usually give to the weights in a checkpoint, in the order in which they are preferred:
# the weights that were trained, then their averages.
USUAL_KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights"),
    *("state_dict_ema", "model_state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
)
_MASK_KEYS = ("masks", "mask")

_DEEPEST = 3


@dataclass(frozen=True)
class Masks:
    """The masks of a pruned network, which state for each weight whether it is kept.

    Attributes
    ----------
    tensors
        The masks by name, as they were stored.
    place
        The file, and the key within it, for messages.
    required
        Whether masks that do not fit the network are an error. Otherwise they are ignored with a warning.
    """

    tensors: Mapping[str, Tensor]
    place: str
    required: bool


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint, as they were stored.

    Attributes
    ----------
    path
        The file.
    tensors
        The tensors by the names in the file.
    masks
        The masks that were given or that the checkpoint contains beside its weights; None if there are none.
    """

    path: Path
    tensors: dict[str, Tensor]
    masks: Masks | None = None


def read_checkpoint(path: str | Path, *, key: str | None = None, masks: str | Path | None = None) -> Checkpoint:
    """Read the weights and masks of a checkpoint, as `load_weights` describes it.

    Parameters
    ----------
    path
        The file or folder; see `read_content`.
    key
        The key of the weights, such as `ema` or `ema.module`. By default, the usual keys are tried.
    masks
        A file of masks. By default, those under `masks` or `mask` beside the weights are used, if there are any.

    Returns
    -------
    Checkpoint
        The weights and masks, on the CPU.

    Raises
    ------
    InputError
        If a file does not exist, is damaged, or contains code, no weights or no masks.

    Warns
    -----
    UserWarning
        If the checkpoint contains several sets of weights and no key is given, or masks that are not used.
    """
    path = Path(path)
    content = read_content(path)
    if key is None:
        found = _usual(content)
        if found is not None:
            _note_others(content, found, path)
    else:
        found = _under(content, key.strip("."))
        if found is None:
            raise InputError(
                f"{path} contains no weights under the key {key!r}; {nearest(key, list(_keys(content)))}. Give one of "
                "its keys, or none to use the usual one"
            )
    place, parts = found if found is not None else ("", (content,))
    tensors = _checked(parts[-1], path, place)
    stored = _masks_beside(parts, path)
    if masks is None:
        return Checkpoint(path, tensors, stored)
    if stored is not None:
        warnings.warn(f"the masks in {masks} are used, and {stored.place} are ignored", stacklevel=3)
    return Checkpoint(path, tensors, _read_masks(Path(masks)))


def _read_masks(path: Path) -> Masks:
    content = read_content(path)
    if isinstance(content, Mapping):
        content = next((content[key] for key in _MASK_KEYS if isinstance(content.get(key), Mapping)), content)
    found = _usual(content)
    tensors = _checked(content if found is None else found[1][-1], path, "", what="masks")
    # A checkpoint of torch.nn.utils.prune contains masks and weights.
    if any(name.endswith("_orig") or "parametrizations." in name for name in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name.endswith(("_mask", ".mask"))}
    return Masks(tensors, f"the masks in {path}", required=True)


def _usual(content: Any, depth: int = 0) -> tuple[str, tuple[Any, ...]] | None:
    """Return the key of the weights, and the mappings that lead to them, the last of which contains the weights."""
    if _is_tensors_by_name(content):
        return "", (content,)
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return None
    for key in USUAL_KEYS:
        found = _usual(content.get(key), depth + 1)
        # Weights among which there is something else are still what is meant, and `_checked` names the other values.
        if found is None and _has_tensors(content.get(key)):
            found = "", (content[key],)
        if found is not None:
            return _joined(key, found[0]), (content, *found[1])
    # Under another name, a mapping of tensors by name is taken as the weights if it is the only one.
    parts = [key for key, value in content.items() if key not in _MASK_KEYS and _is_tensors_by_name(value)]
    if len(parts) != 1 or _has_tensors(content):
        return None
    return str(parts[0]), (content, content[parts[0]])


def _under(content: Any, key: str) -> tuple[str, tuple[Any, ...]] | None:
    """Return the place of the weights under a key that the user gave, in the form of `_usual`."""
    found = _nested(content, key)
    if found is None:
        usual = _usual(content)
        inner = _nested(usual[1][-1], key) if usual is not None else None
        if usual is None or inner is None:
            return None
        found = (*usual[1][:-1], *inner)
    deeper = _usual(found[-1])
    return (key, found) if deeper is None else (_joined(key, deeper[0]), (*found[:-1], *deeper[1]))


def _nested(content: Any, key: str) -> tuple[Any, ...] | None:
    if not isinstance(content, Mapping) or not key:
        return None
    values = {str(name): value for name, value in content.items()}
    if key in values:
        return content, values[key]
    for place, letter in enumerate(key):
        inner = _nested(values.get(key[:place]), key[place + 1 :]) if letter == "." else None
        if inner is not None:
            return content, *inner
    # A part of one network's weights, such as the student's beside its teacher's.
    part = {name.removeprefix(f"{key}."): value for name, value in values.items() if name.startswith(f"{key}.")}
    return (content, part) if part else None


def _note_others(content: Any, found: tuple[str, tuple[Any, ...]], path: Path) -> None:
    place, parts = found
    chosen, top = parts[-1], place.partition(".")[0]
    if not isinstance(content, Mapping) or content is chosen:
        return
    others = [
        str(key)
        for key, value in content.items()
        if str(key) not in (place, top)
        and (
            (key in USUAL_KEYS and _usual(value) is not None)
            or (_is_tensors_by_name(value) and key not in _MASK_KEYS and value.keys() == chosen.keys())
        )
    ]
    if others:
        warnings.warn(
            f"{path} contains several sets of weights: those under {place!r} are used, and those under "
            f"{', '.join(map(repr, others))} are ignored. To use others, give their key with --weights-key "
            f"(key={others[0]!r} in Python)",
            stacklevel=4,
        )


def _masks_beside(parts: tuple[Any, ...], path: Path) -> Masks | None:
    for content in reversed(parts[:-1]):
        for key in _MASK_KEYS:
            value = content.get(key)
            if _is_tensors_by_name(value):
                tensors = {str(name): tensor.detach() for name, tensor in value.items()}
                return Masks(tensors, f"the masks under {key!r} in {path}", required=False)
            if isinstance(value, Mapping | list | tuple | Tensor | Inert) and not _is_empty(value):
                warnings.warn(
                    f"{path}: the value under {key!r} is ignored, because it is not masks by the names of weights; if "
                    "the network is pruned by it, write the masks to a file by name and give it with --masks "
                    "(masks=FILE in Python)",
                    stacklevel=4,
                )
    return None


def _checked(content: Any, path: Path, place: str, what: str = "weights") -> dict[str, Tensor]:
    where = f"{path} under {place!r}" if place else str(path)
    expected = "save a network's state_dict()" if what == "weights" else "save masks by the names of weights"
    if not isinstance(content, Mapping):
        raise InputError(f"{what} file {where} contains a {_kind(content)}, expected tensors by name; {expected}")
    packed = [str(name) for name in content if "_packed_params" in str(name)]
    if packed:
        raise InputError(
            f"{what} file {where} contains the weights of a quantised network ({listed(packed)}), which are whole "
            "numbers and cannot be loaded; give the checkpoint of the network from before it was quantised"
        )
    others = [f"{name} ({_kind(value)})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        if what == "weights":
            expected = f"give the key of the weights with --weights-key (key=... in Python), or {expected} alone"
        if place:
            raise InputError(
                f"{what} file {where} contains other values than tensors by name: {listed(others) or 'nothing'}; "
                f"{expected}"
            )
        raise InputError(
            f"{what} file {where} does not contain tensors by name, neither directly, nor under a usual key such as "
            f"{', '.join(USUAL_KEYS[:4])}, nor under one other key alone, but {listed(others) or 'nothing'}; {expected}"
        )
    for name, tensor in content.items():
        if tensor.is_nested:
            raise InputError(
                f"{what} file {where}: its tensor {name!r} is nested, expected numbers of one shape; save the "
                "network's weights as dense tensors"
            )
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _keys(content: Any, start: str = "", above: tuple[int, ...] = ()) -> Iterator[str]:
    """Yield the keys under which there are tensors by name."""
    # A pickled dictionary may contain itself.
    if isinstance(content, Mapping) and id(content) not in above and len(above) <= _DEEPEST:
        for key, value in content.items():
            if _is_tensors_by_name(value):
                yield _joined(start, str(key))
            yield from _keys(value, _joined(start, str(key)), (*above, id(content)))


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and not value


def _joined(start: str, key: str) -> str:
    return f"{start}.{key}" if start and key else start or key


def _kind(value: object) -> str:
    return "value of another type" if isinstance(value, Inert) else type(value).__name__


def _is_tensors_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values())
