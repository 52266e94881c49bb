"""Maps out of what layers put out: units first, units last, or tokens of a transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

# Tokens that stand before the grid: none, a class token, that and one for distillation, that and four registers.
_BEFORE_THE_GRID = (0, 1, 2, 5)
_LOST_AT_BORDERS = 10


def as_maps(output: Any, images: Sequence[int], prefix: int | None = None) -> Tensor | None:
    """Return what a layer put out as maps of its units.

    Parameters
    ----------
    output
        A tensor [n, units, h, w] or [n, units]; [n, h, w, units], as within Swin; [n, tokens, units], as in
        transformers, where the tokens are the patches of the image in reading order, with or without tokens that
        belong to no patch before them. Or a tuple, list or mapping that holds exactly one such tensor beside other
        things; one with places counts before one without.
    images
        The shape of the images, [n, 3, ih, iw].
    prefix
        How many tokens stand before the patches, where the network tells. None counts them: 0, 1, 2 or 5, such that
        the others form a grid of the image's proportions, by preference one that divides the image evenly.

    Returns
    -------
    Tensor or None
        [n, units, h, w] or [n, units], a view of the output. None if it has another shape, or its tokens form no grid
        or could form several.

    Examples
    --------
    >>> import torch
    >>> images = (2, 3, 224, 224)
    >>> as_maps(torch.zeros(2, 197, 768), images).shape  # 14 x 14 patches after a class token
    torch.Size([2, 768, 14, 14])
    >>> as_maps(torch.zeros(2, 7, 7, 1024), images).shape
    torch.Size([2, 1024, 7, 7])
    >>> as_maps(torch.zeros(2, 198, 768), images, prefix=1) is None
    True
    """
    if isinstance(output, Tensor):
        return _tensor_as_maps(output, images, prefix)
    values = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(values, list | tuple):
        return None
    tensors = (_tensor_as_maps(value, images, prefix) for value in values if isinstance(value, Tensor))
    found = [maps for maps in tensors if maps is not None]
    placed = [maps for maps in found if maps.shape[2:].numel() > 1]
    choice = placed or found
    return choice[0] if len(choice) == 1 else None


def _tensor_as_maps(output: Tensor, images: Sequence[int], prefix: int | None) -> Tensor | None:
    if output.ndim not in (2, 3, 4) or output.shape[0] != images[0]:
        return None
    if output.ndim == 2 or len(images) != 4:
        return None if output.ndim == 3 else output
    if output.ndim == 4:
        maps = output.permute(0, 3, 1, 2) if _units_are_last(output.shape, images) else output
        # Where there are tokens, attention puts out [n, heads, tokens, ...]: no places of the image.
        return maps if prefix is None or _is_grid(maps.shape[2:], images) else None
    grid = _grid(output.shape[1], images, _BEFORE_THE_GRID if prefix is None else (0, prefix))
    if grid is None:
        return None
    before, h, w = grid
    n, _, units = output.shape
    return output[:, before:].transpose(1, 2).view(n, units, h, w)


def _units_are_last(shape: Sequence[int], images: Sequence[int]) -> bool:
    """Tell [n, h, w, units] from [n, units, h, w] where only the first has the image's proportions."""
    (ih, iw), (_, first, second, third) = images[2:], shape
    if ih == iw:
        return first == second != third
    # Convolutions without padding lose some cells on each axis, as many on both.
    near = abs(second * iw - third * ih) <= max(ih, iw) + _LOST_AT_BORDERS * abs(ih - iw)
    return not near and _is_grid((first, second), images)


def _is_grid(size: Sequence[int], images: Sequence[int]) -> bool:
    ih, iw = images[2:]
    return any(tuple(size) in _grids(ih, iw, patch) for patch in range(1, max(ih, iw) + 1))


def _grid(tokens: int, images: Sequence[int], before: Collection[int]) -> tuple[int, int, int] | None:
    """Find how many tokens stand before the grid, its height and its width; None if there is not one answer."""
    even: set[tuple[int, int, int]] = set()
    uneven: set[tuple[int, int, int]] = set()
    ih, iw = images[2:]
    for patch in range(1, max(ih, iw) + 1):
        fits = {(tokens - h * w, h, w) for h, w in _grids(ih, iw, patch) if tokens - h * w in before}
        (uneven if ih % patch or iw % patch else even).update(fits)
    found = even or uneven
    if len(found) != 1:
        return None
    grid = found.pop()
    return grid if grid[1:] != (1, 1) else None


def _grids(ih: int, iw: int, patch: int) -> set[tuple[int, int]]:
    """Patches that cover an image; at its edges, incomplete ones are left out or filled up."""
    return {(ih // patch, iw // patch), (-(-ih // patch), -(-iw // patch))}
