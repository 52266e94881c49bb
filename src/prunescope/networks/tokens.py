"""Turn a layer's output into maps, if its units come first or last or its positions are a transformer's tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from prunescope.networks.outputs import named_tensors

# The usual numbers of tokens before the grid of patches: no token, a class token, a class token and a distillation
# token, or a class token and four register tokens.
_BEFORE_THE_GRID = (0, 1, 2, 5)
_LOST_AT_BORDERS = 10


def as_maps(
    output: Any, images: Sequence[int], prefix: int | None, units_axis: int, part: str | None = None
) -> Tensor | None:
    """Return a layer's output as activation maps of its units.

    Parameters
    ----------
    output
        A tensor [n, units, h, w], [n, h, w, units] (as within Swin) or [n, units]; or one with tokens as positions,
        [n, tokens, units] (as in transformers) or [n, units, tokens]. The tokens are the patches of the image in
        reading order, possibly after some tokens that do not belong to a patch. The output may also be a tuple, list
        or mapping that contains such tensors, of which the first is taken. Tensors with more than one spatial position
        take precedence over others.
    images
        The shape of the images, [n, 3, ih, iw].
    prefix
        The number of tokens before the patches, if the network specifies it. With None, it is 0, 1, 2 or 5, chosen so
        that the remaining tokens form a grid with the aspect ratio of the image. Grids that divide the image evenly
        are preferred.
    units_axis
        The axis of the tensor that holds the units, counted from 0 or, if negative, from the end, as `find_axes`
        returns it. It is not used for a tensor [n, units].
    part
        The name of the tensor to take from a tuple, list or mapping, as `named_tensors` gives it.

    Returns
    -------
    Tensor or None
        A view of the output, [n, units, h, w] or [n, units]. None if the tensor has another shape or no such axis, or
        if its tokens form no grid or could form several.

    Examples
    --------
    >>> import torch
    >>> images = (2, 3, 224, 224)
    >>> as_maps(torch.zeros(2, 197, 768), images, None, -1).shape  # 14 x 14 patches after a class token
    torch.Size([2, 768, 14, 14])
    >>> as_maps(torch.zeros(2, 7, 7, 1024), images, None, 3).shape
    torch.Size([2, 1024, 7, 7])
    >>> as_maps(torch.zeros(2, 198, 768), images, 1, 2) is None
    True
    """
    found = [
        maps
        for name, tensor in named_tensors(output).items()
        if part in (None, name) and (maps := _tensor_as_maps(tensor, images, prefix, units_axis)) is not None
    ]
    return next((maps for maps in found if maps.shape[2:].numel() > 1), found[0] if found else None)


def _tensor_as_maps(output: Tensor, images: Sequence[int], prefix: int | None, units_axis: int) -> Tensor | None:
    if output.ndim not in (2, 3, 4) or output.shape[0] != images[0]:
        return None
    if output.ndim == 2 or len(images) != 4:
        return None if output.ndim == 3 else output
    axis = units_axis + output.ndim if units_axis < 0 else units_axis
    if not 0 < axis < output.ndim:
        return None
    units_first = output.movedim(axis, 1)
    if output.ndim == 4:
        # In a network with tokens, attention also returns [n, heads, tokens, ...], which has no spatial positions.
        return units_first if prefix is None or _is_grid(units_first.shape[2:], images) else None
    grid = _grid(units_first.shape[2], images, _BEFORE_THE_GRID if prefix is None else (0, prefix))
    if grid is None:
        return None
    before, h, w = grid
    n, units = units_first.shape[:2]
    return units_first[:, :, before:].view(n, units, h, w)


def has_proportions(size: Sequence[int], images: Sequence[int]) -> bool:
    """Return whether a map of this height and width could cover the images with the same stride on both axes."""
    (ih, iw), (h, w) = images[2:], size
    if ih == iw:
        return h == w
    # Convolutions without padding remove some positions from each axis, and the same number from both.
    near = abs(h * iw - w * ih) <= max(ih, iw) + _LOST_AT_BORDERS * abs(ih - iw)
    return near or _is_grid((h, w), images)


def _is_grid(size: Sequence[int], images: Sequence[int]) -> bool:
    ih, iw = images[2:]
    return any(tuple(size) in _grids(ih, iw, patch) for patch in range(1, max(ih, iw) + 1))


def _grid(tokens: int, images: Sequence[int], before: Collection[int]) -> tuple[int, int, int] | None:
    """Return the number of tokens before the grid and the grid's height and width, or None if this is ambiguous."""
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
    """Return the possible grids of patches of an image; incomplete patches at its edges are dropped or padded."""
    return {(ih // patch, iw // patch), (-(-ih // patch), -(-iw // patch))}
